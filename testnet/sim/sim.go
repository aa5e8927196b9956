// Package sim places viewers in simulated networks of up to 100,000 nodes, on
// virtual time, by weir and, for the same viewers, by other systems.
//
// The network, the viewers and the meters are simulated. The decisions are the
// product's own code: [policy.Compiled] and its policies, [ledger.Ledger], of
// package holder the table, the offers, the reputation and the rate of
// publishing, and package place, whose state machines are driven here as
// package dht does. Every viewer is placed: the node that receives the request,
// the seeker, serves none itself.
//
// Simplifications: a record arrives at all holders at once; holders are drawn
// at random, as if by a hash; coordinates are exact; links have unlimited
// bandwidth; nothing is lost; and all clocks are right.
package sim

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"weir/testnet/model"
)

// ErrInput means that a Config is invalid.
var ErrInput = errors.New("bad input")

// Scenarios are the names of all scenarios, in the order in which they run.
var Scenarios = []string{"burst", "steady", "flash", "pack", "liars", "antagonist", "scale"}

// MaxNodes bounds the nodes, for the memory of one machine.
const MaxNodes = 200_000

// Config says what to simulate. The zero value is all scenarios at their usual
// size.
type Config struct {
	Scenarios []string // empty: all
	Nodes     int      // of scenarios without a fixed size; 0: their own
	Seed      uint64   // 0: 1
	Progress  func(scenario, who string)
}

// Report is the result of a simulation.
type Report struct {
	Began   time.Time `json:"began"`
	Elapsed float64   `json:"elapsed_s"` // real seconds
	Go      string    `json:"go"`
	Seed    uint64    `json:"seed"`
	Rows    []Row     `json:"rows"`
	Aims    []Aim     `json:"aims"`
}

// Row is the result of one way of placing in one scenario. Shares are of 1.
type Row struct {
	Scenario     string  `json:"scenario"`
	Case         string  `json:"case,omitempty"`
	Who          string  `json:"who"`
	Nodes        int     `json:"nodes"`
	Placed       int     `json:"placements"`
	FirstRefused float64 `json:"first_refused"` // the node tried first had no room
	BothRefused  float64 `json:"both_refused"`  // nor the one tried at the same time; for other systems the same as FirstRefused
	Blocked      float64 `json:"blocked"`       // no node tried had room
	Overfull     float64 `json:"overfull"`      // placed on a node without room that does not refuse
	MostOnOne    float64 `json:"most_on_one"`   // of all placements
	Peak         float64 `json:"peak"`          // highest load, as a share of the part of a node's limit that may be used
	Spread       float64 `json:"spread"`        // s.d. of load, as a share of each node's limit
	RTT          float64 `json:"rtt_ms"`        // mean, from the node of the first request to the chosen one
	Degraded     float64 `json:"degraded"`      // sent to a node that delivered too little
	TimeP50      float64 `json:"time_p50_ms"`
	TimeP99      float64 `json:"time_p99_ms"`
	Messages     float64 `json:"messages"` // per placement
	Bytes        float64 `json:"bytes"`
	Records      float64 `json:"records"`          // published per node and second
	Regret       float64 `json:"regret,omitempty"` // score of the best node less that of the chosen one
	CPU          float64 `json:"cpu_us,omitempty"` // real µs of one placement: two holders' ranking, and the pick
	Depth        int     `json:"depth,omitempty"`  // of the tree
	Carriers     int     `json:"carriers,omitempty"`
	InUse        float64 `json:"in_use,omitempty"`         // nodes with sessions, over the minimum needed, at steady load
	Falling      float64 `json:"in_use_falling,omitempty"` // the same while load falls
	Released     int     `json:"released,omitempty"`       // nodes switched off
	Disturbed    int     `json:"disturbed,omitempty"`      // of them with a session or a lease
	FairShare    float64 `json:"fair_share,omitempty"`     // liars' share of sessions, over that of honest nodes of their size; second half
	Series       []Point `json:"series,omitempty"`
}

// Point is a value at a time.
type Point struct {
	T float64 `json:"t"` // s
	Y float64 `json:"y"`
}

// Aim is a result that a scenario should show for weir.
type Aim struct {
	Scenario string `json:"scenario"`
	Aim      string `json:"aim"`
	Found    string `json:"found"`
	Met      bool   `json:"met"`
}

// Check returns an error wrapping [ErrInput] if c is invalid.
func (c Config) Check() error {
	for _, s := range c.Scenarios {
		if !slices.Contains(Scenarios, s) {
			return fmt.Errorf("%w: scenario %q: want all or some of %v", ErrInput, s, Scenarios)
		}
	}
	if c.Nodes != 0 && (c.Nodes < 10 || c.Nodes > MaxNodes) {
		return fmt.Errorf("%w: %d nodes: want 10 to %d", ErrInput, c.Nodes, MaxNodes)
	}
	return nil
}

// Run simulates c. The same Config gives the same figures, except for those of
// real time.
func Run(c Config) (*Report, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	weights, err := model.SizesOf()
	if err != nil {
		return nil, err
	}
	if len(c.Scenarios) == 0 {
		c.Scenarios = Scenarios
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Progress == nil {
		c.Progress = func(string, string) {}
	}
	r := &Report{Began: time.Now(), Go: runtime.Version(), Seed: c.Seed}
	s := &stage{Config: c, weights: weights, report: r}
	for _, name := range Scenarios {
		if !slices.Contains(c.Scenarios, name) {
			continue
		}
		switch name {
		case "burst":
			s.burst()
		case "steady":
			s.steady()
		case "flash":
			s.flash()
		case "pack":
			s.pack()
		case "liars":
			s.liars()
		case "antagonist":
			s.antagonist()
		case "scale":
			s.scale()
		}
	}
	r.Elapsed = time.Since(r.Began).Seconds()
	return r, nil
}

// Met reports whether all aims are met.
func (r *Report) Met() bool {
	return !slices.ContainsFunc(r.Aims, func(a Aim) bool { return !a.Met })
}
