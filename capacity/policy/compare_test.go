package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// roomy is a policy of one rule and one term.
func roomy(rule, score string, keep int) Policy {
	return Policy{Name: "roomy", Version: 1, Keep: keep,
		Filter: []Rule{{"room", rule}}, Score: []Term{{"free", score, 1}}}
}

func TestCompare(t *testing.T) {
	var cands []Candidate
	for i, used := range []int64{1, 6, 3, 9} {
		cands = append(cands, Candidate{Trust: 1, Record: capacity.Record{
			Node: peer.ID(fmt.Sprintf("n%d", i+1)), Sessions: capacity.Usage{Used: used, Limit: 10},
		}})
	}
	before := mustCompile(t, roomy(`r.sessions_free >= 1`, `r.sessions_free`, 2))
	type standing struct {
		node          string
		before, after int
		rule          string  // afterwards
		chance        float64 // afterwards
	}
	for _, tt := range []struct {
		name  string
		after Policy
		want  []standing
		first peer.ID
	}{
		{"the same policy changes nothing", before.Policy(), []standing{
			{"n1", 1, 1, "", 9. / 16}, {"n3", 2, 2, "", 7. / 16}, {"n2", 3, 3, "", 0}, {"n4", 4, 4, "", 0},
		}, "n1"},
		{"a stricter rule rejects more", roomy(`r.sessions_free >= 5`, `r.sessions_free`, 2), []standing{
			{"n1", 1, 1, "", 9. / 16}, {"n3", 2, 2, "", 7. / 16}, {"n2", 3, 0, "room", 0}, {"n4", 4, 0, "room", 0},
		}, "n1"},
		{"another score turns the order round", roomy(`r.sessions_free >= 1`, `r.sessions_used`, 0), []standing{
			{"n4", 4, 1, "", 9. / 19}, {"n2", 3, 2, "", 6. / 19}, {"n3", 2, 3, "", 3. / 19}, {"n1", 1, 4, "", 1. / 19},
		}, "n4"},
		{"nobody passes", roomy(`r.sessions_free > 10`, `1`, 0), []standing{
			{"n1", 1, 0, "room", 0}, {"n3", 2, 0, "room", 0}, {"n2", 3, 0, "room", 0}, {"n4", 4, 0, "room", 0},
		}, ""},
		{"a score that is no number", roomy(`true`, `1 / (r.sessions_used - 6)`, 1), []standing{
			{"n4", 4, 1, "", 1}, {"n1", 1, 2, "", 0}, {"n3", 2, 3, "", 0}, {"n2", 3, 0, "score", 0},
		}, "n4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Compare(before, mustCompile(t, tt.after), capacity.Need{}, capacity.Record{}, cands)
			var got []standing
			rejected := map[string]int{}
			passed := 0
			for _, n := range c.Nodes {
				got = append(got, standing{string(n.Node), n.Before.Rank, n.After.Rank, n.After.Rule, n.After.Chance})
				if n.After.Rule != "" {
					rejected[n.After.Rule]++
				} else {
					passed++
				}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%v, want\n%v", got, tt.want)
			}
			if c.Before.Passed != 4 || c.Before.First != "n1" || len(c.Before.Rejected) != 0 {
				t.Errorf("before: %+v", c.Before)
			}
			if c.After.Passed != passed || c.After.First != tt.first || !reflect.DeepEqual(c.After.Rejected, rejected) {
				t.Errorf("after: %+v, but the nodes say %d passed and %v", c.After, passed, rejected)
			}
		})
	}
	if c := Compare(before, before, capacity.Need{}, capacity.Record{}, nil); c.Nodes == nil || len(c.Nodes) > 0 || c.After.First != "" {
		t.Errorf("of nobody: %+v", c)
	}
}

// Chances returns the frequencies of many draws.
func TestChancesAreThoseOfTheDraw(t *testing.T) {
	const draws = 50_000
	for name, scores := range map[string][]float64{
		"by score":                   {4, 3, 2, 1},
		"one of the best has none":   {4, 1, 0},
		"none has any":               {-1, -1, -2},
		"so large that they are one": {math.MaxFloat64, math.MaxFloat64, 1},
		"one":                        {0.1},
		"nobody":                     {},
	} {
		for _, keep := range []int{0, 1, 3} {
			var r Ranking
			for i, s := range scores {
				r.Passed = append(r.Passed, Evaluation{Score: s, Candidate: Candidate{Record: capacity.Record{Seq: uint64(i)}}})
			}
			drawn := make([]float64, len(scores))
			rnd := rand.New(rand.NewPCG(1, 2))
			for range draws {
				for _, v := range r.Draw(1, keep, rnd) {
					drawn[v.Record.Seq]++
				}
			}
			for i, chance := range r.Chances(keep) {
				if got := drawn[i] / draws; math.Abs(got-chance) > 0.01 {
					t.Errorf("%s, keep %d: number %d was drawn in %.3f of all, its chance is %.3f", name, keep, i+1, got, chance)
				}
			}
		}
	}
}
