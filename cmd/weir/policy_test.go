package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/policies"
)

const policyV1 = "name: one\nversion: 1\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\nscore:\n  - {name: headroom, expr: 1 - r.stress}\n"

func TestPolicyCommands(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(good, []byte(policyV1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte(strings.Replace(policyV1, "r.stress", "r.stres", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"policy", "check", good}, 0, `policy "one", version 1: 1 rules and 1 terms`},
		{[]string{"policy", "check", bad}, cmdline.ExitInput, "bad.yaml:6:34: term \"headroom\": r and me have no field stres"},
		{[]string{"policy", "check"}, cmdline.ExitInput, "wants one FILE"},
		{[]string{"policy", "check", filepath.Join(dir, "absent")}, cmdline.ExitInput, "no such file"},
		{[]string{"policy", "show", "--default"}, 0, "name: default"},
		{[]string{"policy", "show", "--admin", "127.0.0.1:1"}, cmdline.ExitConnection, "no node answers"},
		{[]string{"policy", "fields"}, 0, "r.uplink_free"},
		{[]string{"node", "--policy", bad, "--data-dir", dir}, cmdline.ExitInput, "no field stres"},
	} {
		out, code, err := runWeir(t.Context(), c.args...)
		if err != nil {
			out += err.Error()
		}
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("weir %s: exit %d, %s\nwant %d and %q", strings.Join(c.args, " "), code, out, c.code, c.want)
		}
	}
}

// A node's limits on pulls and on the depth of the tree are those of the policy
// in force at the time, and never more pulls than its own flag allows.
func TestBoundsAreThoseOfThePolicyInForce(t *testing.T) {
	f, err := policies.Open("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	force := func(fanout, depth int) {
		t.Helper()
		p := policy.Default()
		p.Fanout, p.Depth = fanout, depth
		judge, err := policy.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		f.Force(judge)
	}
	for _, tt := range []struct {
		name                      string
		flag, fanout, depth       int
		wantedFanout, wantedDepth int
	}{
		{"the policy's", 0, 12, 3, 12, 3},
		{"the node's, if it is the smaller", 5, 12, 3, 5, 3},
		{"the policy's, if it is the smaller", 5, 2, 1, 2, 1},
		{"the node's, where the policy names none", 5, 0, 0, 5, capacity.MaxDepth},
		{"no bound, where nobody names one", 0, 0, 0, 0, capacity.MaxDepth},
	} {
		force(tt.fanout, tt.depth)
		n := &node{policy: f}
		n.tuned.Store(&tunable{fanout: tt.flag})
		if fanout, depth := n.fanout(), n.depth(); fanout != tt.wantedFanout || depth != tt.wantedDepth {
			t.Errorf("%s: fan-out %d and depth %d, want %d and %d", tt.name, fanout, depth, tt.wantedFanout, tt.wantedDepth)
		}
	}
}
