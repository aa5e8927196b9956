package policy

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/expr-lang/expr/vm"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// Unlimited is the value for the free part of a resource without a limit.
	Unlimited = 1e15

	// ruleScore is the rule that rejects a candidate whose score is no finite
	// number.
	ruleScore = "score"
	// ruleOrphan is the rule, of any policy, that rejects a carrier that is cut
	// off from the stream's origin.
	ruleOrphan = "orphan"
	// ruleDraining is the rule, of any policy, that rejects a relay that is about
	// to go for a cascade: it refuses.
	ruleDraining = "draining"

	defaultKeep = 4
)

// RecordVars are the variables of a record in a policy's expressions: r.… is
// the candidate's record, me.… the seeker's own. All numbers are floating
// point.
type RecordVars struct {
	Node    string `expr:"node" doc:"peer ID"`
	Name    string `expr:"name" doc:"as its operator calls it; several may share one"`
	State   string `expr:"state" doc:"active, draining or full"`
	Region  string `expr:"region" doc:"operator's label"`
	Zone    string `expr:"zone" doc:"operator's label"`
	Release string `expr:"release" doc:"version of the software"`

	Features []string `expr:"features" doc:"protocol features, for \"x\" in r.features"`

	Self   bool    `expr:"self" doc:"the record is our own"`
	URL    bool    `expr:"url" doc:"it serves WHIP and WHEP"`
	Trust  float64 `expr:"trust" doc:"0…1, by experience, our own or told by many; 1 is trusted"`
	Stress float64 `expr:"stress" doc:"0…1 and beyond: the largest of used/limit"`
	Then   float64 `expr:"stress_then" doc:"stress once the need is met there as well; one viewer fills more of a small node than of a large one"`
	Policy float64 `expr:"policy" doc:"version of the policy held"`
	Hash   float64 `expr:"hash" doc:"0…1, drawn by the peer ID: an order among equals that all seekers share"`

	// For each resource: used, limit (0: none), and free = limit − used, or
	// Unlimited. Reserved room is not free.
	UplinkUsed    float64 `expr:"uplink_used" doc:"bit/s"`
	UplinkLimit   float64 `expr:"uplink_limit" doc:"bit/s; 0: none"`
	UplinkFree    float64 `expr:"uplink_free" doc:"bit/s; 1e15 without a limit; what is reserved is not free"`
	DownlinkUsed  float64 `expr:"downlink_used" doc:"bit/s"`
	DownlinkLimit float64 `expr:"downlink_limit" doc:"bit/s; 0: none"`
	DownlinkFree  float64 `expr:"downlink_free" doc:"bit/s; 1e15 without a limit"`
	PacketsUsed   float64 `expr:"packets_used" doc:"packets/s"`
	PacketsLimit  float64 `expr:"packets_limit" doc:"packets/s; 0: none"`
	PacketsFree   float64 `expr:"packets_free" doc:"packets/s; 1e15 without a limit"`
	SessionsUsed  float64 `expr:"sessions_used" doc:"count, leases included"`
	SessionsLimit float64 `expr:"sessions_limit" doc:"count; 0: none"`
	SessionsFree  float64 `expr:"sessions_free" doc:"count; 1e15 without a limit"`
	StreamsUsed   float64 `expr:"streams_used" doc:"count"`
	StreamsLimit  float64 `expr:"streams_limit" doc:"count; 0: none"`
	StreamsFree   float64 `expr:"streams_free" doc:"count; 1e15 without a limit"`
	Reserved      float64 `expr:"reserved" doc:"bit/s promised and not yet used"`
	Cores         float64 `expr:"cores" doc:"CPU cores it may use"`
	CPU           float64 `expr:"cpu" doc:"share of the CPU limit in use; 0 without a limit"`
	CPUShare      float64 `expr:"cpu_share" doc:"share of the cores in use"`
	Delay         float64 `expr:"delay" doc:"ms by which it is late in serving packets, as it measures; 0: unknown"`

	// About the stream, in records of a stream's topic.
	Carries    bool    `expr:"carries" doc:"it is a record of the stream asked for; the next seven are about that stream"`
	Origin     bool    `expr:"origin" doc:"the publisher is connected there"`
	Loop       bool    `expr:"loop" doc:"we are on its path from the origin"`
	Depth      float64 `expr:"depth" doc:"cascade links to the origin"`
	ParentRTT  float64 `expr:"parent_rtt" doc:"ms to the node it pulls from"`
	Viewers    float64 `expr:"viewers" doc:"count"`
	Children   float64 `expr:"children" doc:"cascade pulls served"`
	FanoutFree float64 `expr:"fanout_free" doc:"more that may be; 1e15 without a limit"`
}

// NeedVars are the variables of the need in a policy's expressions, as q.…
type NeedVars struct {
	Purpose string  `expr:"purpose" doc:"view, publish or cascade"`
	Stream  string  `expr:"stream" doc:"its name"`
	Region  string  `expr:"region" doc:"wanted; \"\" if any will do"`
	Uplink  float64 `expr:"uplink" doc:"bit/s"`
	Packets float64 `expr:"packets" doc:"packets/s"`
	Depth   float64 `expr:"depth" doc:"the policy's: greatest depth that a node may come to by a pull"`
	Fanout  float64 `expr:"fanout" doc:"the policy's; 0: not bounded"`
}

// A Field is a name that a policy's expressions may use.
type Field struct {
	Name string `json:"name"` // such as r.stress
	Type string `json:"type"` // "number", "string", "condition", "list of strings"
	Doc  string `json:"doc"`  // unit and meaning
}

// Fields lists every name that expressions may use. The fields of r also exist
// for me, the seeker's own record.
func Fields() []Field {
	var list []Field
	add := func(prefix string, v any) {
		for f := range reflect.TypeOf(v).Fields() {
			kind := map[reflect.Kind]string{reflect.Float64: "number", reflect.String: "string", reflect.Bool: "condition", reflect.Slice: "list of strings"}[f.Type.Kind()]
			list = append(list, Field{prefix + f.Tag.Get("expr"), kind, f.Tag.Get("doc")})
		}
	}
	add("r.", RecordVars{})
	add("q.", NeedVars{})
	return append(list, Field{"rtt", "number", "ms to the candidate and back, as predicted; 0 if unknown"})
}

// environment holds the variables of an expression's run.
type environment struct {
	R   RecordVars `expr:"r"`
	Q   NeedVars   `expr:"q"`
	Me  RecordVars `expr:"me"`
	RTT float64    `expr:"rtt"` // ms to the candidate as predicted; 0 if unknown
}

// Candidate is a node that may be chosen.
type Candidate struct {
	Record capacity.Record
	Sealed []byte        // the record as it was received
	RTT    time.Duration // predicted; 0: unknown
	Trust  float64       // 0…1: how far experience, one's own or reported, bears out its claims; 1: fully trusted
}

// Evaluation is a policy's result for a candidate.
type Evaluation struct {
	Candidate
	Rule  string      // the rule that rejected it; "" if it passed
	Score float64     // sum of Terms
	Terms []TermScore // nil if a filter rule rejected it
}

// TermScore is one term's contribution to a score.
type TermScore struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"` // the expression's result
	Weight float64 `json:"weight"`
	Score  float64 `json:"score"` // Value × Weight
}

// Ranking is a policy's result for all candidates.
type Ranking struct {
	Passed   []Evaluation // best first
	Rejected []Evaluation // in the order they came in
}

// Rank evaluates cands for need. me is the seeker's own record, or the zero
// Record if there is none. A candidate is rejected by the first filter rule
// that is not true for it, by "score" if its score is not a finite number, and
// by "orphan" if it is cut off from the origin of the stream asked for. A relay
// that drains is rejected for a cascade, by "draining".
// Rank neither keeps nor reorders cands.
func (j *Compiled) Rank(need capacity.Need, me capacity.Record, cands []Candidate) Ranking {
	env := &environment{Q: j.needVars(need)}
	j.recordVars(&env.Me, &me, need, me.Node, 1)
	// Evaluations are large: each is written once, in its final place.
	found := make([]evaluated, len(cands))
	terms := make([]TermScore, len(cands)*len(j.score))
	passed := 0
	var machine vm.VM // keeps its stack from one expression to the next
	for i := range cands {
		c := &cands[i]
		j.recordVars(&env.R, &c.Record, need, me.Node, c.Trust)
		env.RTT = capacity.Milliseconds(c.RTT)
		n := len(j.score)
		if rule := unfit(need, &c.Record); rule != "" {
			found[i] = evaluated{of: c, rule: rule}
			continue
		}
		found[i] = j.evaluate(&machine, env, terms[i*n:(i+1)*n:(i+1)*n])
		found[i].of = c
		if found[i].rule == "" {
			passed++
		}
	}
	slices.SortStableFunc(found, func(a, b evaluated) int {
		switch {
		case a.rule == "" && b.rule == "":
			return cmp.Compare(b.score, a.score)
		case a.rule == "":
			return -1
		case b.rule == "":
			return 1
		}
		return 0
	})
	verdicts := make([]Evaluation, len(cands))
	for i, f := range found {
		verdicts[i] = Evaluation{*f.of, f.rule, f.score, f.terms}
	}
	return Ranking{Passed: verdicts[:passed:passed], Rejected: verdicts[passed:]}
}

// unfit returns the rule, of any policy, by which r is no source of the stream
// asked for; "": none.
func unfit(need capacity.Need, r *capacity.Record) string {
	switch s := r.Carries; {
	case s == nil:
		return ""
	case s.State == capacity.Orphan:
		return ruleOrphan
	case need.Purpose == capacity.Cascade && r.State == capacity.Draining && !s.Origin:
		return ruleDraining
	}
	return ""
}

// evaluated is an evaluation without a copy of the candidate.
type evaluated struct {
	of    *Candidate
	rule  string
	score float64
	terms []TermScore
}

// evaluate evaluates the candidate in env. It fills in terms, unless a filter
// rule rejects the candidate.
func (j *Compiled) evaluate(machine *vm.VM, env *environment, terms []TermScore) evaluated {
	for i, rule := range j.filter {
		if !holds(machine, rule, env) {
			return evaluated{rule: j.policy.Filter[i].Name}
		}
	}
	f := evaluated{terms: terms}
	for i, value := range j.score {
		t := &j.policy.Score[i]
		x := number(machine, value, env)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			f.rule = ruleScore
			return f
		}
		terms[i] = TermScore{t.Name, x, t.Weight, x * t.Weight}
		f.score += terms[i].Score
	}
	if math.IsNaN(f.score) || math.IsInf(f.score, 0) {
		f.rule = ruleScore
	}
	return f
}

func (j *Compiled) needVars(need capacity.Need) NeedVars {
	w := NeedVars{
		Purpose: need.Purpose.String(),
		Stream:  need.Stream,
		Region:  need.Region,
		Uplink:  float64(need.Uplink),
		Packets: float64(need.Packets),
		Depth:   float64(j.policy.Depth),
		Fanout:  float64(j.policy.Fanout),
	}
	if w.Depth == 0 {
		w.Depth = capacity.MaxDepth
	}
	return w
}

// recordVars sets f from r, a candidate for need.
func (j *Compiled) recordVars(f *RecordVars, r *capacity.Record, need capacity.Need, me peer.ID, believed float64) {
	*f = RecordVars{
		State:    r.State.String(),
		Name:     r.Name,
		Region:   r.Region,
		Zone:     r.Zone,
		Release:  r.Release,
		Features: r.Features,
		Self:     r.Node == me,
		URL:      r.URL != "",
		Trust:    believed,
		Stress:   r.Stress(),
		Then:     r.StressWith(need),
		Policy:   float64(r.Policy),
		Hash:     hashOf(r.Node),
		Reserved: float64(r.Reserved),
		Cores:    r.Cores,
		CPUShare: r.CPU,
		Delay:    capacity.Milliseconds(r.Delay),
	}
	if j.nodeNames {
		f.Node = r.Node.String()
	}
	if r.CPULimit > 0 {
		f.CPU = r.CPU / r.CPULimit
	}
	f.UplinkUsed, f.UplinkLimit, f.UplinkFree = usageVars(r.Uplink, r.Reserved)
	f.DownlinkUsed, f.DownlinkLimit, f.DownlinkFree = usageVars(r.Downlink, 0)
	f.PacketsUsed, f.PacketsLimit, f.PacketsFree = usageVars(r.Packets, 0)
	f.SessionsUsed, f.SessionsLimit, f.SessionsFree = usageVars(r.Sessions, 0)
	f.StreamsUsed, f.StreamsLimit, f.StreamsFree = usageVars(r.Streams, 0)
	c := r.Carries
	if c == nil {
		return
	}
	f.Carries = true
	f.Origin = c.Origin
	f.Loop = me != "" && slices.Contains(c.Path, me)
	f.Depth = float64(c.Depth)
	f.ParentRTT = capacity.Milliseconds(c.ParentRTT)
	f.Viewers = float64(c.Viewers)
	f.Children = float64(c.Children)
	f.FanoutFree = Unlimited
	if limit := cmp.Or(c.Fanout, j.policy.Fanout); limit > 0 {
		f.FanoutFree = float64(limit - c.Children)
	}
}

// hashOf is a number in 0…1 that depends only on the node. Peer IDs end with
// the public key, which can only be chosen by generating many.
func hashOf(id peer.ID) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return float64(h.Sum32()) / math.MaxUint32
}

func usageVars(u capacity.Usage, reserved int64) (used, limit, free float64) {
	used, limit, free = float64(u.Used), float64(u.Limit), Unlimited
	if u.Limit > 0 {
		free = limit - used - float64(reserved)
	}
	return used, limit, free
}

// RejectedBy counts the rejected candidates by rule.
func (r Ranking) RejectedBy() map[string]int {
	by := map[string]int{}
	for _, v := range r.Rejected {
		by[v.Rule]++
	}
	return by
}

// Draw returns n of the keep best that passed, or all if they are fewer, in the
// order drawn: without replacement, each time with a probability in proportion
// to the score. Scores of 0 or less have no chance while there are others. keep
// 0 means 4.
//
// Randomness prevents seekers with the same stale records from all choosing the
// same node (Mitzenmacher, "How Useful Is Old Information?", IEEE TPDS 11(1),
// 2000). Tests seed rnd. Draw leaves r as it is.
func (r Ranking) Draw(n, keep int, rnd *rand.Rand) []Evaluation {
	if keep <= 0 {
		keep = defaultKeep
	}
	pool := slices.Clone(r.Passed[:min(keep, len(r.Passed))])
	n = min(n, len(pool))
	drawn := make([]Evaluation, 0, max(n, 0))
	for len(drawn) < n {
		i := drawOne(pool, rnd)
		drawn = append(drawn, pool[i])
		pool = slices.Delete(pool, i, i+1)
	}
	return drawn
}

func drawOne(pool []Evaluation, rnd *rand.Rand) int {
	total := 0.0
	for _, v := range pool {
		total += max(0, v.Score)
	}
	if total <= 0 || math.IsInf(total, 1) {
		return rnd.IntN(len(pool))
	}
	x := rnd.Float64() * total
	last := 0
	for i, v := range pool {
		if v.Score <= 0 {
			continue
		}
		if x < v.Score {
			return i
		}
		x -= v.Score
		last = i
	}
	return last // x was rounded up to the total
}
