package daemon

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/metrics"
	"weir/sfu/meter"
	"weir/sfu/whip"
)

// Metrics follow Prometheus' conventions, and their labels never have the name
// of a network, a stream or a peer.
func TestMetrics(t *testing.T) {
	n, _ := startAdmin(t)
	for _, role := range metrics.Roles {
		n.event(event.Event{Kind: event.SessionOpened, Role: role})
		for _, word := range whip.EndWords() {
			n.event(event.Event{Kind: event.SessionClosed, Role: role, Reason: word, Elapsed: 1000, Lost: 3})
		}
	}
	n.counters.Times.Measured(meter.FirstVideo, 20*time.Millisecond)
	n.counters.Times.Measured(meter.RoundTrip, time.Millisecond)
	problems, err := testutil.GatherAndLint(registryOf(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := registryOf(n).Gather()
	if err != nil {
		t.Fatal(err)
	}
	value := regexp.MustCompile(`^[a-z0-9_]+$`)
	seen := map[string]bool{}
	for _, f := range families {
		seen[f.GetName()] = true
		if !strings.HasPrefix(f.GetName(), "weir_") || f.GetName() == "weir_build_info" {
			continue
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !value.MatchString(l.GetValue()) {
					t.Errorf("%s: %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	for _, name := range []string{
		"go_goroutines", "process_resident_memory_bytes", "weir_build_info", "weir_placement_duration_seconds", "weir_record_age_seconds",
		"weir_first_packet_seconds", "weir_link_round_trip_seconds", "weir_session_duration_seconds", "weir_media_lost_packets_total",
		"weir_keyframe_requests_total", "weir_repair_requested_packets_total", "weir_uplink_bytes_per_second", "weir_sessions_closed_total",
	} {
		if !seen[name] {
			t.Errorf("%s is not there", name)
		}
	}
	if got := n.counters.Tallies.Total("viewer", 5); got != float64(3*len(whip.EndWords())+5) {
		t.Errorf("viewers have lost %v", got)
	}
	if got := n.counters.Tallies.Total("viewer", 1); got != float64(3*len(whip.EndWords())+5) {
		t.Errorf("the total falls to %v", got)
	}
}

// The address of --metrics serves metrics under any host name, and nothing
// else; the admin API accepts only its own.
func TestMetricsAddress(t *testing.T) {
	n, _ := startAdmin(t)
	ask := func(h http.Handler, path, host string) int {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for _, c := range []struct {
		h          http.Handler
		path, host string
		status     int
	}{
		{metricsHandler(n), "/metrics", "weir-1.example.org:9100", 200},
		{metricsHandler(n), "/api/v1/status", "127.0.0.1", 404},
		{metricsHandler(n), "/debug/pprof/", "127.0.0.1", 404},
		{n.adminHandler(), "/metrics", "127.0.0.1:8081", 200},
		{n.adminHandler(), "/metrics", "weir-1.example.org", 403},
	} {
		if got := ask(c.h, c.path, c.host); got != c.status {
			t.Errorf("%s at %s: %d, want %d", c.path, c.host, got, c.status)
		}
	}
}

// All counters of the ledger exist from the beginning.
func TestLedgerMetrics(t *testing.T) {
	n, _ := startAdmin(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil)
	n.adminHandler().ServeHTTP(w, r)
	for _, reason := range ledger.Reasons() {
		if line := fmt.Sprintf("weir_ledger_refusals_total{reason=%q} 0\n", metrics.Snake(reason)); !strings.Contains(w.Body.String(), line) {
			t.Errorf("%s is not there", line)
		}
	}
	if line := `weir_ledger_grants_total{kind="lease"} 0`; !strings.Contains(w.Body.String(), line) {
		t.Errorf("%s is not there:\n%s", line, w.Body)
	}
}
