package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/vm"

	"weir/capacity"
)

// Limits of a policy's cost. No expression loops over more than a list it
// spells out or a record's features, or makes a text longer than all those it
// names together.
const (
	maxRules     = 32
	maxTerms     = 16
	maxExpr      = 1024 // bytes
	maxExprNodes = 256
	maxWeight    = 1e6
	maxBalance   = 100
)

// MaxGrace bounds the Grace of a policy.
const MaxGrace = 5 * time.Minute

// Policy says how to choose among nodes: which qualify, and which of those is
// best. Its expressions are written in expr-lang (https://expr-lang.org) over
// the names that [RecordVars] and [NeedVars] document. A field's tags determine
// how it is read, written and shown.
type Policy struct {
	Name     string   `json:"name" yaml:"name"`
	Version  uint64   `json:"version" yaml:"version"`
	Strategy Strategy `json:"strategy" yaml:"strategy"`
	Keep     int      `json:"keep" yaml:"keep,omitempty"`     // how many of the best to draw among; 0: 4
	Fanout   int      `json:"fanout" yaml:"fanout,omitempty"` // most cascade pulls of a stream per node, which may have a lower limit itself; 0: unlimited
	Depth    int      `json:"depth" yaml:"depth,omitempty"`   // most cascade links from the origin; 0: MaxDepth

	// Grace is how long a stream outlives its origin, or its publisher, so that
	// viewers stay until that is back; at most MaxGrace. 0: 10 s.
	Grace time.Duration `json:"-" yaml:"grace,omitempty"`

	// Balance is how evenly regions share load: what percent of its clients a
	// region sends to less loaded ones near it, for each percent by which it is
	// fuller than their mean. 0: none, as long as it has room itself.
	Balance float64 `json:"balance" yaml:"balance,omitempty"`

	Provision Provision `json:"provision" yaml:"provision,omitempty"`

	Filter []Rule `json:"filter" yaml:"filter"` // all must hold
	Score  []Term `json:"score" yaml:"score"`   // summed up
}

// Rule is a condition on a candidate. Expr is boolean; if it is false, Name is
// the reason of the rejection.
type Rule struct {
	Name string `json:"name" yaml:"name"`
	Expr string `json:"expr" yaml:"expr"`
}

// Term is a part of a candidate's score: Weight times the number that Expr
// yields.
type Term struct {
	Name   string  `json:"name" yaml:"name"`
	Expr   string  `json:"expr" yaml:"expr"`
	Weight float64 `json:"weight" yaml:"weight"` // 1 if a text has none
}

// Default is the policy that spreads load: of the nodes with room it prefers
// those that will be least stressed, near ones, and for cascades carriers near the
// origin.
//
// It allows cascades from full and draining nodes: the streams carried there
// can be pulled from there, and the last tenth of their uplink is reserved for
// that; see [ledger.Ledger].
func Default() Policy {
	return Policy{
		Name: "default",
		Filter: []Rule{
			{"self", `!r.self`},
			{"state", `q.purpose == "cascade" || r.state == "active"`},
			{"url", `q.purpose == "cascade" || r.url`},
			{"carries", `q.purpose != "cascade" || r.carries`},
			{"loop", `q.purpose != "cascade" || !r.loop`},
			{"depth", `q.purpose != "cascade" || r.depth < q.depth`},
			{"fanout", `q.purpose != "cascade" || r.fanout_free >= 1`},
			{"sessions", `q.purpose == "cascade" || r.sessions_free >= 1`},
			{"uplink", `r.uplink_free - q.uplink >= (q.purpose == "cascade" ? 0 : 0.1 * r.uplink_limit)`},
			{"packets", `r.packets_free - q.packets >= (q.purpose == "cascade" ? 0 : 0.1 * r.packets_limit)`},
			{"overloaded", `r.stress < 0.9 || q.purpose == "cascade" && r.cpu < 1`},
		},
		Score: []Term{
			{"headroom", `max(0, min(1 - r.stress_then, r.trust))`, 0.6},
			{"rtt", `rtt > 0 ? 1 / (1 + rtt / 50) : 0.25`, 0.2},
			{"region", `q.region == "" ? 0.5 : r.region == q.region ? 1 : 0`, 0.1},
			{"shallow", `r.carries ? 1 / (1 + r.depth) : 0`, 0.1},
		},
		Keep:    4,
		Fanout:  8,
		Depth:   4,
		Balance: 10,
	}
}

// BinPackTarget is the stress up to which [BinPacking] fills a node. A node
// counts as full from FullAt on; the range between them is for load that grows
// by itself.
const BinPackTarget = 0.8

// BinPacking fills the fewest nodes that stay under BinPackTarget, in an order
// that all seekers share, so that the others can be switched off (as Mafalda
// does for mediasoup). Everything else is as in [Default].
func BinPacking() Policy {
	p := Default()
	p.Name, p.Strategy, p.Keep, p.Balance = "binpack", BinPack, 2, 0
	p.Filter = append(p.Filter, Rule{"target", fmt.Sprintf(`q.purpose == "cascade" || r.stress < %v`, BinPackTarget)})
	p.Score = []Term{
		{"fill", `r.stress`, 1},
		{"order", `r.hash`, 0.2},
		{"trust", `r.trust`, 0.5},
		{"rtt", `rtt > 0 ? 1 / (1 + rtt / 50) : 0.25`, 0.2},
		{"region", `q.region == "" ? 0.5 : r.region == q.region ? 1 : 0`, 0.5},
		{"shallow", `r.carries ? 1 / (1 + r.depth) : 0`, 0.2},
	}
	return p
}

// Compiled is a policy ready for use. It is safe for concurrent use.
type Compiled struct {
	policy    Policy
	filter    []*vm.Program
	score     []*vm.Program
	nodeNames bool // an expression uses r.node or me.node
}

// Compile checks every expression of p: its syntax, its names, its types and
// its cost. The error names each wrong rule or term, and the place in it, by
// line, column and a caret. Several are joined.
func Compile(p Policy) (*Compiled, error) {
	// Copy, because the caller may change its slices afterwards.
	p.Filter, p.Score = slices.Clone(p.Filter), slices.Clone(p.Score)
	j := &Compiled{policy: p}
	var errs []error
	if len(p.Filter) > maxRules {
		return nil, fmt.Errorf("policy: %d filter rules, at most %d", len(p.Filter), maxRules)
	}
	if len(p.Score) > maxTerms {
		return nil, fmt.Errorf("policy: %d score terms, at most %d", len(p.Score), maxTerms)
	}
	if p.Keep < 0 || p.Fanout < 0 || p.Fanout > capacity.MaxCount || p.Depth < 0 || p.Depth > capacity.MaxDepth {
		errs = append(errs, fmt.Errorf("policy: keep %d, fanout %d, depth %d: want 0 or more, a fanout of at most %d and a depth of at most %d", p.Keep, p.Fanout, p.Depth, capacity.MaxCount, capacity.MaxDepth))
	}
	if !(p.Balance >= 0 && p.Balance <= maxBalance) { // so that NaN fails
		errs = append(errs, fmt.Errorf("policy: balance %v: want 0 to %d", p.Balance, maxBalance))
	}
	if p.Grace < 0 || p.Grace > MaxGrace || p.Grace%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("policy: grace %v: want whole milliseconds within 0…%v", p.Grace, MaxGrace))
	}
	if err := capacity.CheckLabel(p.Name, capacity.MaxLabel); err != nil {
		errs = append(errs, fmt.Errorf("policy: name: %w", err))
	}
	if p.Strategy > BinPack {
		errs = append(errs, fmt.Errorf("policy: strategy %d: want spread or binpack", p.Strategy))
	}
	if err := p.Provision.check(); err != nil {
		errs = append(errs, err)
	}
	seen := map[string]bool{ruleScore: true}
	name := func(list string, i int, s string) {
		fault := func(err error) { errs = append(errs, &partError{list, i, s, err}) }
		switch err := capacity.CheckLabel(s, capacity.MaxLabel); {
		case err != nil:
			fault(fmt.Errorf("name: %w", err))
		case s == "":
			fault(errors.New("it has no name"))
		case seen[s]:
			fault(errors.New("the name is taken"))
		}
		seen[s] = true
	}
	for i, r := range p.Filter {
		name(filterList, i, r.Name)
		holds, err := j.compile(r.Expr, "a condition", (*nature.Nature).IsBool)
		if err != nil {
			errs = append(errs, &partError{filterList, i, r.Name, err})
		}
		j.filter = append(j.filter, holds)
	}
	clear(seen)
	for i, t := range p.Score {
		name(scoreList, i, t.Name)
		if !(math.Abs(t.Weight) <= maxWeight) { // so that NaN fails
			errs = append(errs, &partError{scoreList, i, t.Name, fmt.Errorf("weight %v is not within ±%v", t.Weight, float64(maxWeight))})
		}
		value, err := j.compile(t.Expr, "a number", (*nature.Nature).IsNumber)
		if err == nil {
			err = tryOut(value)
		}
		if err != nil {
			errs = append(errs, &partError{scoreList, i, t.Name, err})
		}
		j.score = append(j.score, value)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return j, nil
}

// A partError is a mistake in one rule or term of a policy.
type partError struct {
	list  string // filterList or scoreList
	index int
	name  string
	err   error
}

const filterList, scoreList = "filter", "score"

func (e *partError) what() string {
	if e.list == filterList {
		return "rule"
	}
	return "term"
}

func (e *partError) Error() string { return fmt.Sprintf("%s %q: %v", e.what(), e.name, e.err) }
func (e *partError) Unwrap() error { return e.err }

// AsVersion is j with another version number.
func (j *Compiled) AsVersion(version uint64) *Compiled {
	k := *j
	k.policy.Version = version
	return &k
}

// Policy returns the policy that was compiled.
func (j *Compiled) Policy() Policy {
	p := j.policy
	p.Filter, p.Score = slices.Clone(p.Filter), slices.Clone(p.Score)
	return p
}
