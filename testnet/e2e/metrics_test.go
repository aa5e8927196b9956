package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"weir/capacity"
)

// metric reads one series of n's metrics, 0 if it does not exist.
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

// Sessions, requests, links and records show in the metrics of their nodes,
// which are served under any host name, and promtool reports nothing.
func TestMetricsOfMedia(t *testing.T) {
	scrapes := "127.0.0.1:" + port(t, freePort(t))
	w := up(t, 2, only(2, "--metrics", scrapes))
	a, b := w.n(1), w.n(2)
	w.see(t)
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	v := view(t, b.whep("demo"))
	flows(t, v)
	b.post(t, b.whep("nothing"), viewerOffer(t))
	eventually(t, "a round trip was taken", func() bool { return b.metric(t, "weir_link_round_trip_seconds_count") > 0 })
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session is over", func() bool {
		return b.metric(t, `weir_sessions_closed_total{reason="deleted",role="viewer"}`) == 1
	})
	for series, want := range map[string]float64{
		`weir_sessions{role="viewer"}`:                                               0,
		`weir_sessions_opened_total{role="viewer"}`:                                  1,
		`weir_session_duration_seconds_count{role="viewer"}`:                         1,
		`weir_request_duration_seconds_count{code="201",role="viewer"}`:              1,
		`weir_request_duration_seconds_count{code="409",role="viewer"}`:              1,
		`weir_first_packet_seconds_count{media="video"}`:                             1,
		`weir_first_packet_seconds_count{media="audio"}`:                             1,
		`weir_pulls_total{outcome="ready"}`:                                          1,
		`weir_pull_duration_seconds_count`:                                           1,
		`weir_pending_requests{state="setting_up"}`:                                  0,
		`weir_placements_total{among="carriers",outcome="placed",purpose="cascade"}`: 1,
		`weir_reservation_duration_seconds_count{outcome="granted"}`:                 1,
		`weir_record_age_seconds_count`:                                              1,
		`weir_media_lost_packets_total{role="viewer"}`:                               0,
	} {
		if got := b.metric(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if got := b.metric(t, `weir_discovery_bytes_total{direction="received",protocol="records"}`); got == 0 {
		t.Error("the bytes of the records' protocol are not counted by its name")
	}

	resp, text := send(t, http.MethodGet, "http://"+scrapes+"/metrics", "", "", nil)
	req, err := http.NewRequest(http.MethodGet, "http://"+scrapes+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "weir-2.example.org"
	named, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	named.Body.Close()
	if resp.StatusCode != http.StatusOK || named.StatusCode != http.StatusOK {
		t.Errorf("by address %s, by name %s", resp.Status, named.Status)
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// Placements, and then a refusal, show in the metrics of the seeker, of the
// granting node, and by the rule in the client's error.
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
	counts(full, `weir_ledger_grants_total{kind="lease"}`, 1) // for the pull
	counts(helper, `weir_ledger_grants_total{kind="lease"}`, 1)

	// Now both are full, and a publisher is refused by a rule.
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
