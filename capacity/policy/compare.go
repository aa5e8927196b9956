package policy

import (
	"cmp"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// Comparison is the effect on one need of replacing a policy by another.
type Comparison struct {
	Before Outcome    `json:"before"`
	After  Outcome    `json:"after"`
	Nodes  []Compared `json:"nodes"` // best afterwards first, then best before
}

// Outcome is one policy's result for all candidates together.
type Outcome struct {
	Passed   int            `json:"passed"`
	First    peer.ID        `json:"first,omitempty"` // the best; "": no candidate passes
	Rejected map[string]int `json:"rejected"`        // by rule
}

// Compared is one candidate, evaluated by both policies.
type Compared struct {
	Node   peer.ID  `json:"node"`
	Region string   `json:"region"`
	Stress float64  `json:"stress"`
	RTT    float64  `json:"rtt_ms"` // predicted; 0: unknown
	Before Standing `json:"before"`
	After  Standing `json:"after"`
}

// Standing is one policy's result for one candidate.
type Standing struct {
	Rule   string      `json:"rule,omitempty"` // the one that rejects it
	Rank   int         `json:"rank,omitempty"` // 1: the best; 0: rejected
	Score  float64     `json:"score"`
	Terms  []TermScore `json:"terms,omitempty"`
	Chance float64     `json:"chance"` // 0…1: of being drawn first
}

// Compare evaluates cands for need by two policies, as [Compiled.Rank] does,
// and returns the difference. Chances are those of a seeker that knows all of
// cands.
func Compare(before, after *Compiled, need capacity.Need, me capacity.Record, cands []Candidate) Comparison {
	c := Comparison{Nodes: make([]Compared, len(cands))}
	index := make(map[peer.ID]int, len(cands))
	for i, cand := range cands {
		r := &cand.Record
		c.Nodes[i] = Compared{Node: r.Node, Region: r.Region, Stress: r.Stress(), RTT: capacity.Milliseconds(cand.RTT)}
		index[r.Node] = i
	}
	var standings map[peer.ID]Standing
	c.Before, standings = before.outcome(need, me, cands)
	for id, s := range standings {
		c.Nodes[index[id]].Before = s
	}
	c.After, standings = after.outcome(need, me, cands)
	for id, s := range standings {
		c.Nodes[index[id]].After = s
	}
	slices.SortFunc(c.Nodes, func(a, b Compared) int {
		return cmp.Or(compareRanks(a.After.Rank, b.After.Rank), compareRanks(a.Before.Rank, b.Before.Rank), cmp.Compare(a.Node, b.Node))
	})
	return c
}

// outcome is the result of j for cands, together and for each.
func (j *Compiled) outcome(need capacity.Need, me capacity.Record, cands []Candidate) (Outcome, map[peer.ID]Standing) {
	ranking := j.Rank(need, me, cands)
	o := Outcome{Passed: len(ranking.Passed), Rejected: ranking.RejectedBy()}
	if o.Passed > 0 {
		o.First = ranking.Passed[0].Record.Node
	}
	standings := make(map[peer.ID]Standing, len(cands))
	chances := ranking.Chances(j.Policy().Keep)
	for i, v := range ranking.Passed {
		standings[v.Record.Node] = Standing{Rank: i + 1, Score: v.Score, Terms: v.Terms, Chance: chances[i]}
	}
	for _, v := range ranking.Rejected {
		standings[v.Record.Node] = Standing{Rule: v.Rule}
	}
	return o, standings
}

// compareRanks sorts by rank, with the rejected, of rank 0, last.
func compareRanks(a, b int) int {
	if a == 0 || b == 0 {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// Chances returns, for each candidate that passed, its probability 0…1 of being
// the first that [Ranking.Draw] draws.
func (r Ranking) Chances(keep int) []float64 {
	if keep <= 0 {
		keep = defaultKeep
	}
	chances := make([]float64, len(r.Passed))
	pool := r.Passed[:min(keep, len(r.Passed))]
	total := 0.0
	for _, v := range pool {
		total += max(0, v.Score)
	}
	for i, v := range pool {
		if total <= 0 || math.IsInf(total, 1) {
			chances[i] = 1 / float64(len(pool))
		} else {
			chances[i] = max(0, v.Score) / total
		}
	}
	return chances
}
