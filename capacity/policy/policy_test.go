package policy

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/capacitytest"
)

func mustCompile(tb testing.TB, p Policy) *Compiled {
	tb.Helper()
	j, err := Compile(p)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// Each expression is about typicalRecord as the candidate, carrying
// typicalStreamInfo, and about me, the origin.
func TestFacts(t *testing.T) {
	r := capacitytest.Record(t, "node")
	r.Carries = capacitytest.StreamInfo(t, r.Node)
	r.State = capacity.Full
	me := capacity.Record{Node: capacitytest.ID(t, "origin"), Region: "us", Uplink: capacity.Usage{Used: 1, Limit: 2}}
	need := capacity.Need{Purpose: capacity.Cascade, Stream: "demo", Uplink: 5_000_000, Packets: 600, Region: "eu"}
	for _, expr := range []string{
		`r.node == "` + r.Node.String() + `" and me.node == "` + me.Node.String() + `"`,
		`r.state == "full" and r.state != "active" and r.state in ["draining", "full"]`,
		`r.region == "eu" and me.region == "us" and r.zone == "eu-1a" and r.zone startsWith r.region`,
		`r.release endsWith ".0" and r.release contains "0.1"`,
		`"cascade/1" in r.features and not ("av1" in r.features)`,
		`!r.self and r.url and !me.url`,
		`r.trust == 0.5 and me.trust == 1`,
		`r.stress > 0.36 and r.stress < 0.37 and me.stress == 0.5`,
		`r.policy == 3`,
		`r.uplink_used == 312000000 and r.uplink_limit == 1e9 and r.uplink_free == 678_000_000`,
		`r.downlink_used == 48000000 and r.downlink_limit == 1e9 and r.downlink_free == 952000000`,
		`r.packets_used == 39000 and r.packets_limit == 400000 and r.packets_free == 361000`,
		`r.sessions_used == 61 and r.sessions_limit == 500 and r.sessions_free == 439`,
		`r.streams_used == 12 and r.streams_limit == 0 and r.streams_free == 1e15`,
		`r.reserved == 1e7 and r.cores == 8`,
		`abs(r.cpu - 0.3127 / 0.85) < 1e-9 and r.cpu_share == 0.3127 and me.cpu == 0`,
		`r.carries and !r.origin and r.loop and !me.carries and !me.loop`,
		`r.depth == 2 and r.parent_rtt == 12.345 and r.viewers == 40 and r.children == 3 and r.fanout_free == 13`,
		`q.purpose == "cascade" and q.stream == "demo" and q.region == "eu"`,
		`q.uplink == 5e6 and q.packets == 600 and q.depth == 8 and q.fanout == 0`,
		`rtt == 7.5`,
		`7 / 2 == 3.5 and 2 ** 3 == 8 and -1 < 0 and (rtt > 7 ? 1 : 0.5) == 1`,
		`min(1, 2, rtt) == 1 and max(1, rtt) == 7.5 and floor(rtt) == 7 and ceil(rtt) == 8 and round(rtt) == 8`,
	} {
		t.Run(expr, func(t *testing.T) {
			j := mustCompile(t, Policy{Filter: []Rule{{"holds", expr}}})
			ranking := j.Rank(need, me, []Candidate{{Record: r, RTT: 7_500_000, Trust: 0.5}})
			if len(ranking.Passed) != 1 {
				t.Error("does not hold")
			}
		})
	}
}

// A policy's error names the mistake and its place; nothing is silently false.
func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		expr string // of a rule called "fits"
		want []string
	}{
		{"a field that is misspelt", `r.uplink_fre > 1`, []string{`rule "fits"`, "uplink_fre", "(1:3)", "..^"}},
		{"an unknown name", `s.region == "eu"`, []string{"unknown name s", "(1:1)"}},
		{"half an expression", `r.stress <`, []string{"unexpected token EOF", "(1:10)", "^"}},
		{"nothing", ``, []string{`rule "fits"`, "unexpected token EOF"}},
		{"a mistake on the second line", "r.url and\n  r.strss < 1", []string{"strss", "(2:5)", "....^"}},
		{"a comparison of a number with a string", `r.stress == "low"`, []string{"(1:10)", "^"}},
		{"a number where a condition is wanted", `r.stress`, []string{"yields a float64, want a condition", "(1:3)"}},
		{"a state that is misspelt", `r.state == "actve"`, []string{`"actve" is none of active, draining, full`, "(1:12)"}},
		{"a state that is misspelt in a list", `r.state in ["active", "ful"]`, []string{`"ful" is none of`, "(1:23)"}},
		{"a purpose that is misspelt", `"cascades" == q.purpose`, []string{`"cascades" is none of view, publish, cascade`, "(1:1)"}},
		{"a list of another type", `r.region in [1, 2]`, []string{"cannot use string as type float64", "(1:10)"}},
		{"a list of mixed types", `rtt in [1, "2"]`, []string{"compares a float64 with a string", "(1:12)"}},
		{"a number among features", `1 in r.features`, []string{"(1:3)"}},
		{"a choice of two types", `(r.url ? 1 : "one") == 1`, []string{"both branches", "^"}},
		{"a whole record", `r == me`, []string{"r is not a value", "(1:1)"}},
		{"a field of a field", `r.region.length > 1`, []string{"^"}},
		{"a field by computation", `r["up" + "link_free"] > 1`, []string{"(1:2)", "^"}},
		{"the whole environment", `$env["rtt"] > 1`, []string{"only fields of r, q and me", "^"}},
		{"a range", `1 in 1..3`, []string{"..", "(1:7)"}},
		{"a loop", `any([1, 2], # > 1)`, []string{"any", "(1:1)"}},
		{"a loop over loops", `all(map(1..1000000, #), all(1..1000000, # > 0))`, []string{"^"}},
		{"a function that builds data", `repeat("a", 1000000) == "a"`, []string{"repeat", "(1:1)"}},
		{"a regular expression", `r.region matches "(a*)*b"`, []string{"operator matches", "^"}},
		{"the clock", `now().Hour() > 7`, []string{"now", "^"}},
		{"a variable", `let x = 1; x > 0`, []string{"cannot be used here", "^"}},
		{"two expressions", `r.url; true`, []string{"^"}},
		{"a map", `{"a": 1}.a == 1`, []string{"^"}},
		{"a slice", `r.region[:] == "e"`, []string{"cannot be used here", "^"}},
		{"nil", `r.region == nil`, []string{"^"}},
		{"a remainder", `rtt % 2 == 0`, []string{"^"}},
		{"too many bytes", strings.Repeat(" ", maxExpr) + "true", []string{"1028 bytes, at most 1024"}},
		{"too many parts", "0" + strings.Repeat("+0", maxExprNodes) + " == 0", []string{"nodes"}},
		{"nested choices that repeat their condition", strings.Repeat("(", 100) + "r.url" + strings.Repeat("?:true)", 100), []string{"too many nodes", "(1:1)"}},
		{"nested chains of comparisons", strings.Repeat("(0<", 25) + "rtt" + strings.Repeat("<1?1:0)", 25) + "==1", []string{"too many nodes"}},
		{"a depth that could exhaust the stack", strings.Repeat("(", maxExpr/2), []string{`rule "fits"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(Policy{Filter: []Rule{{"fits", tt.expr}}})
			if err == nil {
				t.Fatal("compiled")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
		})
	}
}

func TestCompileRefusesPolicies(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Policy
		want string
	}{
		{"a term that is a condition", Policy{Score: []Term{{"near", `rtt < 10`, 1}}}, `term "near": yields a bool, want a number`},
		{"a weight that is NaN", Policy{Score: []Term{{"near", `rtt`, math.NaN()}}}, `term "near": weight`},
		{"a weight beyond reason", Policy{Score: []Term{{"near", `rtt`, math.Inf(1)}}}, `term "near": weight`},
		{"a rule without a name", Policy{Filter: []Rule{{"", `true`}}}, "no name"},
		{"a rule whose name breaks lines", Policy{Filter: []Rule{{"a\nb", `true`}}}, "cannot be printed"},
		{"two rules of one name", Policy{Filter: []Rule{{"a", `true`}, {"a", `true`}}}, `rule "a": the name is taken`},
		{"a rule called as that for scores", Policy{Filter: []Rule{{"score", `true`}}}, "the name is taken"},
		{"two terms of one name", Policy{Score: []Term{{"a", `1`, 1}, {"a", `1`, 1}}}, `term "a": the name is taken`},
		{"too many rules", Policy{Filter: make([]Rule, maxRules+1)}, "33 filter rules, at most 32"},
		{"too many terms", Policy{Score: make([]Term, maxTerms+1)}, "17 score terms, at most 16"},
		{"a negative keep", Policy{Keep: -1}, "keep -1"},
		{"a depth that records do not allow", Policy{Depth: capacity.MaxDepth + 1}, "depth 9"},
		{"a grace of days", Policy{Grace: 48 * time.Hour}, "grace 48h"},
		{"a negative fan-out", Policy{Fanout: -1}, "fanout -1"},
		{"a name too long", Policy{Name: strings.Repeat("n", capacity.MaxLabel+1)}, "policy: name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Compile(tt.p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("all mistakes are told at once", func(t *testing.T) {
		_, err := Compile(Policy{Filter: []Rule{{"a", `r.x`}, {"b", `true`}, {"c", `1`}}, Score: []Term{{"d", `"e"`, 1}}})
		for _, want := range []string{`rule "a"`, `rule "c"`, `term "d"`} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is missing in: %v", want, err)
			}
		}
	})
}

// A compiled policy does not change with the policy it was compiled from.
func TestJudgeKeepsItsPolicy(t *testing.T) {
	p := Default()
	j := mustCompile(t, p)
	p.Filter[0].Name = "changed"
	j.Policy().Score[0].Weight = 99
	if got := j.Policy(); !reflect.DeepEqual(got, Default()) {
		t.Errorf("the policy is now %+v", got)
	}
}

func FuzzCompile(f *testing.F) {
	p := Default()
	for _, r := range p.Filter {
		f.Add(r.Expr)
	}
	for _, t := range p.Score {
		f.Add(t.Expr)
	}
	for _, s := range []string{
		`r.state in ["active", "full"]`, `"a" in r.features`, `1..3`, `r["stress"] < 1`, `-rtt ** 2 / 0`, `$env`, `me?.region`,
		`min()`, `max(r.url, 1)`, `"a" + r.region == "b"`, `let x = 1; x`, "r.url and\nnot r.self", `0 ?: 1`, `r.url ?? true`, `{}`, `#`, `1e999 - 1e999`,
	} {
		f.Add(s)
	}
	cands := candidates(f, 2, true)
	need := capacity.Need{Purpose: capacity.Cascade, Stream: "demo", Region: "eu"}
	f.Fuzz(func(t *testing.T, source string) {
		if j, err := Compile(Policy{Filter: []Rule{{"fuzzed", source}}}); err == nil {
			r := j.Rank(need, cands[0].Record, cands)
			if len(r.Passed)+len(r.Rejected) != len(cands) {
				t.Fatalf("lost a candidate: %+v", r)
			}
		}
		if j, err := Compile(Policy{Score: []Term{{"fuzzed", source, 2}}}); err == nil {
			r := j.Rank(need, cands[0].Record, cands)
			if len(r.Passed)+len(r.Rejected) != len(cands) {
				t.Fatalf("lost a candidate: %+v", r)
			}
			if !slices.IsSortedFunc(r.Passed, func(a, b Evaluation) int {
				if math.IsNaN(a.Score) || math.IsInf(a.Score, 0) {
					t.Fatalf("score %v", a.Score)
				}
				return int(math.Copysign(1, b.Score-a.Score))
			}) {
				t.Fatalf("not best first: %+v", r)
			}
		}
	})
}

// Packing prefers the fullest node below the target, and of idle ones the same
// for all seekers; region and room still decide first.
func TestPackPolicy(t *testing.T) {
	j := mustCompile(t, BinPacking())
	at := func(used int64) Candidate {
		r := capacitytest.Record(t, fmt.Sprint("n", used))
		r.Uplink, r.Packets, r.CPULimit, r.Reserved = capacity.Usage{}, capacity.Usage{}, 0, 0
		r.Sessions = capacity.Usage{Used: used, Limit: 100}
		return Candidate{Record: r, Trust: 1}
	}
	me := capacitytest.Record(t, "me")
	r := j.Rank(capacity.Need{}, me, []Candidate{at(0), at(40), at(85), at(70), at(1)})
	var got []int64
	for _, v := range r.Passed {
		got = append(got, v.Record.Sessions.Used)
	}
	if len(got) != 4 || got[0] != 70 || got[1] != 40 {
		t.Errorf("in the order %v, want 70, 40 and the idle ones", got)
	}
	if by := r.RejectedBy(); by["target"] != 1 {
		t.Errorf("rejected by %v, want the one at 85 by target", by)
	}

	idle := []Candidate{at(0), at(0), at(0)}
	for i := range idle {
		idle[i].Record.Node = capacitytest.Record(t, fmt.Sprint("idle", i)).Node
	}
	first := j.Rank(capacity.Need{}, me, idle).Passed[0].Record.Node
	slices.Reverse(idle)
	if again := j.Rank(capacity.Need{}, me, idle).Passed[0].Record.Node; again != first {
		t.Errorf("of idle nodes %s comes first, or %s by the order they came in", first, again)
	}
}
