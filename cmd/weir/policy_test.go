package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/cmd/weir/cmdline"
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
