package policy

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/capacitytest"
)

// candidates returns n nodes that pass the default policy, with all fields set.
func candidates(tb testing.TB, n int, carries bool) []Candidate {
	tb.Helper()
	var cands []Candidate
	for i := range n {
		r := capacitytest.Record(tb, fmt.Sprintf("candidate %d", i))
		r.Uplink.Used = int64(i) * 20_000_000
		r.Sessions.Used = int64(i)
		if carries {
			r.Carries = capacitytest.StreamInfo(tb, r.Node)
		}
		cands = append(cands, Candidate{Record: r, RTT: time.Duration(i) * 7 * time.Millisecond, Trust: 1})
	}
	return cands
}

func TestDefaultPolicyFilters(t *testing.T) {
	j := mustCompile(t, Default())
	me := capacitytest.Record(t, "me")
	view := capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 5_000_000, Packets: 600}
	publish := capacity.Need{Purpose: capacity.Publish, Stream: "demo"}
	cascade := capacity.Need{Purpose: capacity.Cascade, Stream: "demo", Uplink: 5_000_000, Packets: 600}
	for _, tt := range []struct {
		name   string
		need   capacity.Need
		change func(*capacity.Record)
		want   string
	}{
		{"a node with room passes", view, func(r *capacity.Record) {}, ""},
		{"for publishers too", publish, func(r *capacity.Record) {}, ""},
		{"as does one without any limits", view, func(r *capacity.Record) {
			r.Uplink.Limit, r.Packets.Limit, r.Sessions.Limit, r.Streams.Limit, r.CPULimit = 0, 0, 0, 0, 0
		}, ""},
		{"ourselves we need not ask", view, func(r *capacity.Record) { r.Node = me.Node }, "self"},
		{"a full node takes no viewers", view, func(r *capacity.Record) { r.State = capacity.Full }, "state"},
		{"a draining node takes no publishers", publish, func(r *capacity.Record) { r.State = capacity.Draining }, "state"},
		{"viewers cannot be sent where there is no URL", view, func(r *capacity.Record) { r.URL = "" }, "url"},
		{"a node near its session limit is spared", view, func(r *capacity.Record) { r.Sessions = capacity.Usage{Used: 499, Limit: 500}; r.CPULimit = 0 }, "overloaded"},
		{"a session too many", view, func(r *capacity.Record) { r.Sessions = capacity.Usage{Used: 4, Limit: 4} }, "sessions"},
		{"exactly what fits below the last tenth", view, func(r *capacity.Record) {
			r.Uplink = capacity.Usage{Used: 895_000_000, Limit: 1_000_000_000}
			r.Reserved = 0
		}, ""},
		{"the last tenth of uplink is for cascades", view, func(r *capacity.Record) {
			r.Uplink = capacity.Usage{Used: 895_000_001, Limit: 1_000_000_000}
			r.Reserved = 0
		}, "uplink"},
		{"what is reserved is not free", view, func(r *capacity.Record) {
			r.Uplink = capacity.Usage{Used: 895_000_000, Limit: 1_000_000_000}
			r.Reserved = 1
		}, "uplink"},
		{"the last tenth of packets is for cascades", view, func(r *capacity.Record) { r.Packets = capacity.Usage{Used: 359_401, Limit: 400_000} }, "packets"},
		{"a hot node takes no viewers", view, func(r *capacity.Record) { r.CPU = 0.84 }, "overloaded"},

		{"a cascade pulls from carriers", cascade, func(r *capacity.Record) { r.Carries = nil }, "carries"},
		{"a carrier passes", cascade, func(r *capacity.Record) {}, ""},
		{"a full carrier still hands on", cascade, func(r *capacity.Record) { r.State = capacity.Full; r.Sessions = capacity.Usage{Used: 500, Limit: 500} }, ""},
		{"a draining origin still hands on", cascade, func(r *capacity.Record) { r.State, r.Carries.Origin = capacity.Draining, true }, ""},
		{"a draining relay does not", cascade, func(r *capacity.Record) { r.State = capacity.Draining }, "draining"},
		{"a carrier needs no URL", cascade, func(r *capacity.Record) { r.URL = "" }, ""},
		{"within the last tenth there is room for cascades", cascade, func(r *capacity.Record) {
			r.Uplink = capacity.Usage{Used: 995_000_000, Limit: 1_000_000_000}
			r.Reserved = 0
		}, ""},
		{"but not beyond", cascade, func(r *capacity.Record) {
			r.Uplink = capacity.Usage{Used: 995_000_001, Limit: 1_000_000_000}
			r.Reserved = 0
		}, "uplink"},
		{"nor in packets", cascade, func(r *capacity.Record) { r.Packets = capacity.Usage{Used: 399_401, Limit: 400_000} }, "packets"},
		{"a carrier at its CPU limit is no help", cascade, func(r *capacity.Record) { r.CPU = 0.85 }, "overloaded"},
		{"nobody pulls from whom it feeds", cascade, func(r *capacity.Record) { r.Carries.Path[1] = me.Node }, "loop"},
		{"but a child of ours takes a viewer", view, func(r *capacity.Record) { r.Carries = capacitytest.StreamInfo(t, r.Node); r.Carries.Path[1] = me.Node }, ""},
		{"a carrier at the deepest level has none below", cascade, func(r *capacity.Record) { r.Carries.Depth = 4 }, "depth"},
		{"one above it has", cascade, func(r *capacity.Record) { r.Carries.Depth = 3 }, ""},
		{"a carrier's fan-out is bounded by itself", cascade, func(r *capacity.Record) { r.Carries.Fanout = 3 }, "fanout"},
		{"an orphan is never pulled from", cascade, func(r *capacity.Record) { r.Carries.State = capacity.Orphan }, "orphan"},
		{"an origin that waits for its publisher may be", cascade, func(r *capacity.Record) { r.Carries.State = capacity.Waiting }, ""},
		{"or by the policy", cascade, func(r *capacity.Record) { r.Carries.Fanout = 0; r.Carries.Children = 16 }, "fanout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := capacitytest.Record(t, "node")
			if tt.need.Purpose == capacity.Cascade {
				r.Carries = capacitytest.StreamInfo(t, r.Node)
			}
			tt.change(&r)
			ranking := j.Rank(tt.need, me, []Candidate{{Record: r, Trust: 1}})
			got := ""
			for rule := range ranking.RejectedBy() {
				got = rule
			}
			if got != tt.want {
				t.Errorf("rejected by %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDefaultPolicyPrefers(t *testing.T) {
	j := mustCompile(t, Default())
	for _, tt := range []struct {
		name   string
		better func(*Candidate)
		worse  func(*Candidate)
	}{
		{"the less stressed", func(c *Candidate) { c.Record.Sessions.Used = 200 }, func(c *Candidate) { c.Record.Sessions.Used = 300 }},
		{"the nearer", func(c *Candidate) { c.RTT = 10 * time.Millisecond }, func(c *Candidate) { c.RTT = 80 * time.Millisecond }},
		{"one known to be near over one unknown", func(c *Candidate) { c.RTT = 80 * time.Millisecond }, func(c *Candidate) { c.RTT = 0 }},
		{"one unknown over one known to be far", func(c *Candidate) { c.RTT = 0 }, func(c *Candidate) { c.RTT = 300 * time.Millisecond }},
		{"the region asked for", func(c *Candidate) { c.Record.Region = "eu" }, func(c *Candidate) { c.Record.Region = "us" }},
		{"one whose claims were borne out", func(c *Candidate) { c.Trust = 1 }, func(c *Candidate) { c.Trust = 0.2 }},
		{"the shallower carrier", func(c *Candidate) { c.Record.Carries.Depth = 0 }, func(c *Candidate) { c.Record.Carries.Depth = 3 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cands := candidates(t, 2, true)
			cands[1].Record.Sessions, cands[1].Record.Uplink, cands[1].RTT = cands[0].Record.Sessions, cands[0].Record.Uplink, cands[0].RTT
			tt.worse(&cands[0])
			tt.better(&cands[1])
			r := j.Rank(capacity.Need{Purpose: capacity.Cascade, Region: "eu"}, capacitytest.Record(t, "me"), cands)
			if len(r.Passed) != 2 || r.Passed[0].Record.Node != cands[1].Record.Node || r.Passed[0].Score <= r.Passed[1].Score {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// Of equally loaded nodes the larger one is better: the viewer fills less of it.
func TestDefaultPolicyPrefersLarger(t *testing.T) {
	cands := candidates(t, 2, false)
	for i, limit := range []int64{20, 80} {
		r := &cands[i].Record
		r.Sessions = capacity.Usage{Used: limit / 2, Limit: limit}
		r.Uplink = capacity.Usage{Used: 1_000_000 * limit / 2, Limit: 1_000_000 * limit}
		r.Packets, r.Reserved, r.CPU, cands[i].RTT = capacity.Usage{}, 0, 0, 10*time.Millisecond
	}
	need := capacity.Need{Purpose: capacity.View, Uplink: 1_000_000}
	r := mustCompile(t, Default()).Rank(need, capacitytest.Record(t, "me"), cands)
	if len(r.Passed) != 2 || r.Passed[0].Record.Node != cands[1].Record.Node || r.Passed[0].Score <= r.Passed[1].Score {
		t.Errorf("got %+v", r)
	}
}

// A score is a finite number, or the candidate is rejected by the rule "score".
func TestScoresAreNumbers(t *testing.T) {
	for _, tt := range []struct {
		name, expr string
		weight     float64
		passes     bool
	}{
		{"a number passes", `rtt`, 1, true},
		{"a negative one too", `-rtt`, 1, true},
		{"0/0 does not", `0 / (rtt - 7)`, 1, false},
		{"1/0 does not", `1 / (rtt - 7)`, 1, false},
		{"not even if its weight is 0", `1 / (rtt - 7)`, 0, false},
		{"a product beyond all numbers does not", `rtt > 6 && rtt < 8 ? 1e308 * (rtt - 6) : 0`, 100, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := mustCompile(t, Policy{Score: []Term{{"term", tt.expr, tt.weight}}})
			r := j.Rank(capacity.Need{}, capacity.Record{}, []Candidate{{RTT: 7 * time.Millisecond}})
			if (len(r.Passed) == 1) != tt.passes || !tt.passes && r.RejectedBy()["score"] != 1 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// Every candidate is in the result once, explained, and the input is unchanged.
func TestRankExplains(t *testing.T) {
	p := Policy{
		Filter: []Rule{{"near", `rtt < 50`}, {"calm", `r.stress < 0.5`}},
		Score:  []Term{{"headroom", `1 - r.stress`, 2}, {"distance", `rtt`, -0.01}},
	}
	cands := []Candidate{
		{RTT: 10 * time.Millisecond, Record: capacity.Record{Sessions: capacity.Usage{Used: 2, Limit: 8}}},
		{RTT: 90 * time.Millisecond, Record: capacity.Record{Sessions: capacity.Usage{Used: 8, Limit: 8}}},
		{RTT: 20 * time.Millisecond, Record: capacity.Record{Sessions: capacity.Usage{Used: 8, Limit: 8}}},
		{RTT: 30 * time.Millisecond, Record: capacity.Record{Sessions: capacity.Usage{Used: 0, Limit: 8}}, Sealed: []byte("sealed")},
		{RTT: 40 * time.Millisecond, Record: capacity.Record{Sessions: capacity.Usage{Used: 6, Limit: 8}}},
	}
	before := slices.Clone(cands)
	r := mustCompile(t, p).Rank(capacity.Need{}, capacity.Record{}, cands)
	if !reflect.DeepEqual(cands, before) {
		t.Error("the candidates were changed")
	}
	want := Ranking{
		Passed: []Evaluation{
			{Candidate: cands[3], Score: 1.7, Terms: []TermScore{{"headroom", 1, 2, 2}, {"distance", 30, -0.01, -0.3}}},
			{Candidate: cands[0], Score: 1.4, Terms: []TermScore{{"headroom", 0.75, 2, 1.5}, {"distance", 10, -0.01, -0.1}}},
		},
		Rejected: []Evaluation{
			{Candidate: cands[1], Rule: "near"},
			{Candidate: cands[2], Rule: "calm"},
			{Candidate: cands[4], Rule: "calm"},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if got, want := r.RejectedBy(), map[string]int{"near": 1, "calm": 2}; !maps.Equal(got, want) {
		t.Errorf("rejected by %v, want %v", got, want)
	}
}

func TestRankOfNobody(t *testing.T) {
	r := mustCompile(t, Default()).Rank(capacity.Need{}, capacity.Record{}, nil)
	if len(r.Passed)+len(r.Rejected)+len(r.RejectedBy()) != 0 || len(r.Draw(2, 4, rand.New(rand.NewPCG(1, 1)))) != 0 {
		t.Errorf("got %+v", r)
	}
}

// One compiled policy serves concurrent placements.
func TestJudgeIsSafeForConcurrentUse(t *testing.T) {
	j := mustCompile(t, Default())
	cands := candidates(t, 8, false)
	me := capacitytest.Record(t, "me")
	want := j.Rank(capacity.Need{}, me, cands)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := j.Rank(capacity.Need{}, me, cands); !reflect.DeepEqual(got, want) {
					t.Error("rankings differ")
				}
			}
		})
	}
	wg.Wait()
}

// ranked returns a ranking of nodes named "0", "1", … with these scores.
func ranked(scores ...float64) Ranking {
	var r Ranking
	for i, s := range scores {
		r.Passed = append(r.Passed, Evaluation{Candidate: Candidate{Record: capacity.Record{Node: peer.ID(fmt.Sprint(i))}}, Score: s})
	}
	return r
}

func TestDraw(t *testing.T) {
	for _, tt := range []struct {
		name    string
		scores  []float64
		n, keep int
		want    int     // how many to draw
		first   []int   // nodes that may come first, by number
		share   float64 // how often node 0 does
	}{
		{"two of the best four, by their scores", []float64{4, 3, 2, 1, 9}, 2, 4, 2, []int{0, 1, 2, 3}, 0.4},
		{"keep 0 means four", []float64{4, 3, 2, 1, 9}, 1, 0, 1, []int{0, 1, 2, 3}, 0.4},
		{"equal scores are drawn alike", []float64{1, 1, 1, 1}, 1, 4, 1, []int{0, 1, 2, 3}, 0.25},
		{"keep 1 always takes the best", []float64{2, 1}, 1, 1, 1, []int{0}, 1},
		{"all, if fewer are left", []float64{1, 1}, 5, 9, 2, []int{0, 1}, 0.5},
		{"none of none", nil, 2, 4, 0, nil, 0},
		{"none if none are wanted", []float64{1}, 0, 4, 0, nil, 0},
		{"none if fewer than none are wanted", []float64{1}, -1, 4, 0, nil, 0},
		{"a score of 0 has no chance among others", []float64{1, 0}, 1, 4, 1, []int{0}, 1},
		{"nor has a negative one", []float64{1, -5}, 1, 4, 1, []int{0}, 1},
		{"without any above 0 all are alike", []float64{0, -1}, 1, 4, 1, []int{0, 1}, 0.5},
		{"scores too large to add up are alike", []float64{math.MaxFloat64, math.MaxFloat64}, 1, 4, 1, []int{0, 1}, 0.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			r := ranked(tt.scores...)
			const draws = 20_000
			first := map[peer.ID]int{}
			for range draws {
				got := r.Draw(tt.n, tt.keep, rnd)
				if len(got) != tt.want {
					t.Fatalf("drew %d, want %d", len(got), tt.want)
				}
				seen := map[peer.ID]bool{}
				for _, v := range got {
					if seen[v.Record.Node] {
						t.Fatalf("drew %s twice", v.Record.Node)
					}
					seen[v.Record.Node] = true
				}
				if len(got) > 0 {
					first[got[0].Record.Node]++
				}
			}
			if !reflect.DeepEqual(r, ranked(tt.scores...)) {
				t.Error("the ranking was changed")
			}
			if len(first) != len(tt.first) {
				t.Errorf("came first: %v, want %v", first, tt.first)
			}
			// Four standard deviations.
			p := tt.share
			if got := float64(first["0"]) / draws; math.Abs(got-p) > 4*math.Sqrt(p*(1-p)/draws) {
				t.Errorf("the best came first in %.3f of the draws, want %.3f", got, p)
			}
		})
	}
}

// A hundred seekers with the same stale records spread over the best ones kept,
// where choosing the best would send all of them to one node.
func TestDrawDoesNotHerd(t *testing.T) {
	j := mustCompile(t, Default())
	r := j.Rank(capacity.Need{}, capacitytest.Record(t, "me"), candidates(t, 16, false))
	chosen := map[peer.ID]int{}
	for seeker := range uint64(100) {
		rnd := rand.New(rand.NewPCG(3, seeker))
		chosen[r.Draw(1, j.Policy().Keep, rnd)[0].Record.Node]++
	}
	if len(chosen) != 4 {
		t.Errorf("%d nodes were chosen, want all 4 kept", len(chosen))
	}
	for node, n := range chosen {
		if n > 45 {
			t.Errorf("%d of 100 chose %s", n, node)
		}
	}
}

func BenchmarkRank(b *testing.B) {
	j := mustCompile(b, Default())
	me := capacitytest.Record(b, "me")
	for _, purpose := range []capacity.Purpose{capacity.View, capacity.Cascade} {
		b.Run(purpose.String()+" 16 candidates", func(b *testing.B) {
			need := capacity.Need{Purpose: purpose, Stream: "show", Uplink: 5_000_000, Packets: 600, Region: "eu"}
			cands := candidates(b, 16, purpose == capacity.Cascade)
			b.ReportAllocs()
			for b.Loop() {
				if r := j.Rank(need, me, cands); len(r.Passed) != 16 {
					b.Fatalf("rejected by %v", r.RejectedBy())
				}
			}
		})
	}
}

// BenchmarkDecision measures one decision: 16 candidates ranked, and two drawn.
// It should take 100 µs at most.
func BenchmarkDecision(b *testing.B) {
	j := mustCompile(b, Default())
	me := capacitytest.Record(b, "me")
	cands := candidates(b, 16, false)
	need := capacity.Need{Purpose: capacity.View, Stream: "show", Uplink: 5_000_000, Packets: 600, Region: "eu"}
	rnd := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		if d := j.Rank(need, me, cands).Draw(2, j.policy.Keep, rnd); len(d) != 2 {
			b.Fatalf("%d drawn", len(d))
		}
	}
}
