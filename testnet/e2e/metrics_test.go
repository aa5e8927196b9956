package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"weir/capacity"
)

// metric reads one series of n's metrics, 0 if it is not there.
func (n node) metric(t *testing.T, series string) float64 {
	t.Helper()
	resp, err := http.Get(n.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: metrics: %s, %v", n.Name, resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// Placements, and then a refusal, show in the metrics of who asked, of who
// granted, and by the rule that the client was told.
func TestMetricsCountByRule(t *testing.T) {
	w := up(t, 2, func(i int) []string { return []string{"--session-limit", fmt.Sprint(3 - i)} })
	full, helper := w.n(1), w.n(2)
	stays := fill(t, full, "demo")
	w.see(t)
	counts := func(n node, series string, want float64) {
		t.Helper()
		if got := n.metric(t, series); got != want {
			t.Errorf("%s: %s is %v, want %v", n.Name, series, got, want)
		}
	}
	counts(full, `weir_ledger_grants_total{kind="entry"}`, 2)
	counts(full, `weir_ledger_refusals_total{reason="sessions"}`, 0)

	v := view(t, full.whep("demo"))
	if !helper.serves(v.NodeURL()) {
		t.Fatalf("the viewer is at %s", v.NodeURL())
	}
	counts(full, `weir_placements_total{among="nodes",outcome="placed",purpose="view"}`, 1)
	counts(full, `weir_reservations_total{outcome="granted"}`, 1)
	counts(full, `weir_ledger_refusals_total{reason="sessions"}`, 1)
	counts(full, `weir_ledger_grants_total{kind="lease"}`, 1) // of the pull
	counts(helper, `weir_ledger_grants_total{kind="lease"}`, 1)

	// Now that both are full, a publisher is refused, by a rule.
	eventually(t, "the helper is known to be full", func() bool {
		for _, e := range ask[struct {
			Records []struct{ Record capacity.Record }
		}](t, full, "/records").Records {
			if e.Record.Node == helper.PeerID {
				return e.Record.Sessions.Used == 1
			}
		}
		return false
	})
	r := refusal(t, func() error { _, err := tryPublish(t, full.whip("other")); return err }())
	_, said, _ := strings.Cut(r.Error(), "refused: ")
	rule, _, named := strings.Cut(said, ":")
	if r.Status != http.StatusServiceUnavailable || !named {
		t.Fatalf("refused with %v", r)
	}
	counts(full, fmt.Sprintf(`weir_client_refusals_total{reason=%q}`, rule), 1)
	counts(full, `weir_placements_total{among="nodes",outcome="refused",purpose="publish"}`, 1)
	counts(full, `weir_ledger_refusals_total{reason="sessions"}`, 2)
	if got := full.metric(t, fmt.Sprintf(`weir_candidates_rejected_total{by="holder",rule=%q}`, rule)); got < 1 {
		t.Errorf("rule %q has rejected %v candidates, want 1 or more", rule, got)
	}
	flows(t, stays, v)
}
