package main

import (
	"bytes"
	"strings"
	"testing"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/dht"
)

func TestDiagnosisInWords(t *testing.T) {
	fine := dht.Check{Name: "dht", Outcome: dht.Fine, Seen: "server"}
	warned := dht.Check{Name: "clock", Outcome: dht.Warning, Seen: "3s behind", Do: "set it"}
	failed := dht.Check{Name: "bootstrap", Outcome: dht.Failure, Seen: "refused", Do: "start it"}
	skipped := dht.Check{Name: "udp", Outcome: dht.Skipped, Seen: "not tried"}
	for name, c := range map[string]struct {
		checks []dht.Check
		last   string
		says   []string
	}{
		"all fine":       {[]dht.Check{fine, skipped}, "all is well", []string{"ok    dht", "-     udp"}},
		"a warning":      {[]dht.Check{fine, warned}, "nothing is broken; have a look at clock", []string{"WARN  clock  3s behind", "→ set it"}},
		"problems":       {[]dht.Check{failed, failed, fine}, "2 problems: bootstrap", []string{"FAIL  bootstrap  refused", "→ start it"}},
		"and a warning":  {[]dht.Check{failed, warned}, "1 problem: bootstrap; have a look at clock too", nil},
		"nothing at all": {nil, "all is well", nil},
	} {
		var out bytes.Buffer
		printDiagnosis(&out, diagnosis{Node: "n", Network: "open", Checks: c.checks})
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if got := lines[len(lines)-1]; got != c.last {
			t.Errorf("%s: ends %q, want %q", name, got, c.last)
		}
		for _, s := range c.says {
			if !strings.Contains(out.String(), s) {
				t.Errorf("%s: does not say %q:\n%s", name, s, &out)
			}
		}
	}
}

func TestCheckState(t *testing.T) {
	for state, want := range map[capacity.State]dht.Outcome{capacity.Active: dht.Fine, capacity.Full: dht.Warning, capacity.Draining: dht.Warning} {
		c := checkState(ledger.Totals{State: state})
		if c.Outcome != want || !strings.Contains(c.Seen, state.String()) || (c.Do == "") != (want == dht.Fine) {
			t.Errorf("%s: %+v", state, c)
		}
	}
}

func TestCheckURLs(t *testing.T) {
	for _, c := range []struct {
		base, media string
		open        bool
		want        dht.Outcome
		says        string
	}{
		{"http://127.0.0.1:8080", "127.0.0.1:8082", false, dht.Fine, "127.0.0.1:8082"},
		{"https://sfu.example.org", "192.0.2.7:8082", true, dht.Fine, "sfu.example.org"},
		{"http://[2001:db8::1]:8080", "[2001:db8::1]:8082", true, dht.Fine, ""},
		{"http://[::]:8080", "192.0.2.7:8082", true, dht.Failure, "no machine in particular"},
		{"http://192.0.2.7:8080", "0.0.0.0:8082", true, dht.Failure, "no machine in particular"},
		{"http://127.0.0.1:8080", "127.0.0.1:8082", true, dht.Failure, "only clients on this machine"},
	} {
		got := checkURLs(c.base, c.media, c.open)
		if got.Outcome != c.want || !strings.Contains(got.Seen, c.says) || (got.Do == "") != (c.want == dht.Fine) {
			t.Errorf("%s, %s: %+v", c.base, c.media, got)
		}
	}
}

// Addresses that were not used are told of, with what to do if they should be.
func TestDoctorTellsOfRefusedAddresses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused map[scope.Refusal]uint64
		outcome dht.Outcome
		seen    string
	}{
		{"none", nil, dht.Fine, "all were used"},
		{"what nobody may use", map[scope.Refusal]uint64{{Use: scope.Redirect, Kind: scope.Metadata}: 3}, dht.Fine, "3 metadata for a redirect"},
		{"private ones", map[scope.Refusal]uint64{{Use: scope.Dial, Kind: scope.Private}: 2, {Use: scope.Candidate, Kind: scope.Shared}: 1}, dht.Warning, "1 shared for a candidate, 2 private for a dial"},
	} {
		c := checkRefused(tt.refused)
		if c.Outcome != tt.outcome || !strings.Contains(c.Seen, tt.seen) || c.Outcome == dht.Warning && !strings.Contains(c.Do, "--allow-private") {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
}
