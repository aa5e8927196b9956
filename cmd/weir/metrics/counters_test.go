package metrics

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht"
)

// exposed is c's text in /metrics.
func exposed(t *testing.T, c *Counters) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	c.Register(reg)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// policyOf is a policy of rules with these names.
func policyOf(t *testing.T, names ...string) *policy.Compiled {
	t.Helper()
	var p policy.Policy
	for _, name := range names {
		p.Filter = append(p.Filter, policy.Rule{Name: name, Expr: "true"})
	}
	j, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestCounters(t *testing.T) {
	judge := policyOf(t, "room", "state")
	c := New(func() *policy.Compiled { return judge })
	c.Decided(dht.Decision{
		Topic: dht.CapacityTopic(),
		Need:  dht.DecisionNeed{Purpose: capacity.Publish},
		Answer: dht.Answer{Rejected: map[string]int{
			"room": 3, "state": 1 << 40, "sessions": -5, "made up": 2, "room{by=\"x\"}\n": 1,
		}},
		Verdicts: []dht.Evaluation{{Rule: "room"}, {Rule: "score"}, {}},
		Reservations: []dht.Reservation{
			{Lease: "x"}, {Reason: "sessions"}, {Reason: "abandoned"}, {Reason: "because"}, {Reason: "unreachable"}, {Reason: "room"},
		},
	}, nil)
	c.Decided(dht.Decision{Topic: dht.StreamTopic("demo"), Need: dht.DecisionNeed{Purpose: capacity.Cascade}}, &capacity.Refusal{Reason: "depth"})
	c.Decided(dht.Decision{Topic: dht.StreamTopic("demo")}, fmt.Errorf("find: %w", dht.ErrUnanswered))
	c.Decided(dht.Decision{Topic: dht.StreamTopic("demo")}, context.Canceled)
	for _, reason := range []string{"sessions", "sessions", "room", "a stranger's word"} {
		c.refused(reason)
	}
	text := exposed(t, c)
	for _, line := range []string{
		`weir_placements_total{among="nodes",outcome="placed",purpose="publish"} 1`,
		`weir_placements_total{among="carriers",outcome="refused",purpose="cascade"} 1`,
		`weir_placements_total{among="carriers",outcome="not_known",purpose="view"} 1`,
		`weir_placements_total{among="carriers",outcome="failed",purpose="view"} 1`,
		`weir_candidates_rejected_total{by="seeker",rule="room"} 1`,
		`weir_candidates_rejected_total{by="seeker",rule="score"} 1`,
		`weir_candidates_rejected_total{by="holder",rule="room"} 3`,
		`weir_candidates_rejected_total{by="holder",rule="state"} 4096`,
		`weir_candidates_rejected_total{by="holder",rule="sessions"} 0`,
		`weir_candidates_rejected_total{by="holder",rule="other"} 3`,
		`weir_reservations_total{outcome="granted"} 1`,
		`weir_reservations_total{outcome="sessions"} 1`,
		`weir_reservations_total{outcome="abandoned"} 1`,
		`weir_reservations_total{outcome="unreachable"} 1`,
		`weir_reservations_total{outcome="room"} 1`,
		`weir_reservations_total{outcome="other"} 1`,
		`weir_client_refusals_total{reason="sessions"} 2`,
		`weir_client_refusals_total{reason="room"} 1`,
		`weir_client_refusals_total{reason="other"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not there", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// The number of label values is bounded, however often the policy changes, and
// whatever peers send.
func TestCountersAreBounded(t *testing.T) {
	judge := policyOf(t)
	c := New(func() *policy.Compiled { return judge })
	for change := range 20 {
		var names []string
		for i := range 32 {
			names = append(names, fmt.Sprintf("rule-%d-%d", change, i))
		}
		judge = policyOf(t, names...)
		d := dht.Decision{Answer: dht.Answer{Rejected: map[string]int{}}}
		for i, name := range names {
			d.Answer.Rejected[name] = 1
			d.Answer.Rejected[fmt.Sprintf("lie-%d-%d", change, i)] = 1
			c.refused(name)
			c.refused(fmt.Sprintf("lie-%d-%d", change, i))
		}
		c.Decided(d, nil)
	}
	text := exposed(t, c)
	for _, series := range []string{"weir_candidates_rejected_total{", "weir_client_refusals_total{"} {
		if got := strings.Count(text, series); got != mostRules+1 {
			t.Errorf("%d series of %s…}, want %d", got, series, mostRules+1)
		}
	}
	if strings.Contains(text, "lie-") {
		t.Error("what a peer made up is a label")
	}
	// A rule that was counted by name continues to be, also after the policy
	// with it has gone.
	if got := c.words.word("rule-0-0"); got != "rule-0-0" {
		t.Errorf("it is counted as %s", got)
	}
}
