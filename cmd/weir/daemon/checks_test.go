package daemon

import (
	"bytes"
	"strings"
	"testing"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/cmd/weir/doctor"
	"weir/dht/inspect"
)

func TestDiagnosisInWords(t *testing.T) {
	fine := doctor.Check{Name: "dht", Outcome: inspect.Fine, Seen: "server"}
	warned := doctor.Check{Name: "clock", Outcome: inspect.Warning, Seen: "3s behind", Do: "set it"}
	failed := doctor.Check{Name: "bootstrap", Outcome: inspect.Failure, Seen: "refused", Do: "start it"}
	skipped := doctor.Check{Name: "udp", Outcome: inspect.Skipped, Seen: "not tried"}
	for name, c := range map[string]struct {
		checks []doctor.Check
		last   string
		says   []string
	}{
		"all fine":       {[]doctor.Check{fine, skipped}, "all checks passed", []string{"ok    dht", "-     udp"}},
		"a warning":      {[]doctor.Check{fine, warned}, "nothing is broken; have a look at clock", []string{"WARN  clock  3s behind", "→ set it"}},
		"problems":       {[]doctor.Check{failed, failed, fine}, "2 problems: bootstrap", []string{"FAIL  bootstrap  refused", "→ start it"}},
		"and a warning":  {[]doctor.Check{failed, warned}, "1 problem: bootstrap; have a look at clock too", nil},
		"nothing at all": {nil, "all checks passed", nil},
	} {
		var out bytes.Buffer
		doctor.Print(&out, doctor.Diagnosis{Node: "n", Network: "open", Checks: c.checks})
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
	for state, want := range map[capacity.State]inspect.Outcome{capacity.Active: inspect.Fine, capacity.Full: inspect.Warning, capacity.Draining: inspect.Warning} {
		c := checkState(ledger.Totals{State: state})
		if c.Outcome != want || !strings.Contains(c.Seen, state.String()) || (c.Do == "") != (want == inspect.Fine) {
			t.Errorf("%s: %+v", state, c)
		}
	}
	if c := checkState(ledger.Totals{State: capacity.Full, Late: true}); !strings.Contains(c.Seen, "late") || !strings.Contains(c.Do, "CPU") {
		t.Errorf("a late node: %+v", c)
	}
}

func TestCheckURLs(t *testing.T) {
	for _, c := range []struct {
		base, media string
		open        bool
		want        inspect.Outcome
		says        string
	}{
		{"http://127.0.0.1:8080", "127.0.0.1:8082", false, inspect.Fine, "127.0.0.1:8082"},
		{"https://sfu.example.org", "192.0.2.7:8082", true, inspect.Fine, "sfu.example.org"},
		{"http://[2001:db8::1]:8080", "[2001:db8::1]:8082", true, inspect.Fine, ""},
		{"http://[::]:8080", "192.0.2.7:8082", true, inspect.Failure, "no machine in particular"},
		{"http://192.0.2.7:8080", "0.0.0.0:8082", true, inspect.Failure, "no machine in particular"},
		{"http://127.0.0.1:8080", "127.0.0.1:8082", true, inspect.Failure, "only clients on this machine"},
	} {
		got := checkURLs(c.base, c.media, c.open)
		if got.Outcome != c.want || !strings.Contains(got.Seen, c.says) || (got.Do == "") != (c.want == inspect.Fine) {
			t.Errorf("%s, %s: %+v", c.base, c.media, got)
		}
	}
}

// Refused addresses are reported, with how to allow them.
func TestDoctorTellsOfRefusedAddresses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused map[scope.Refusal]uint64
		outcome inspect.Outcome
		seen    string
	}{
		{"none", nil, inspect.Fine, "all were used"},
		{"what nobody may use", map[scope.Refusal]uint64{{Use: scope.Redirect, Kind: scope.Metadata}: 3}, inspect.Fine, "3 metadata for a redirect"},
		{"private ones", map[scope.Refusal]uint64{{Use: scope.Dial, Kind: scope.Private}: 2, {Use: scope.Candidate, Kind: scope.Shared}: 1}, inspect.Warning, "1 shared for a candidate, 2 private for a dial"},
	} {
		c := checkRefused(tt.refused)
		if c.Outcome != tt.outcome || !strings.Contains(c.Seen, tt.seen) || c.Outcome == inspect.Warning && !strings.Contains(c.Do, "--allow-private") {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
}
