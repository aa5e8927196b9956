package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/cmd/weir/cmdline"
)

func TestSim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--scenario", "burst", "--quiet", "--out", dir}, 0, "| burst | none refused | 0.0 % | met |"},
		{[]string{"--scenario", "burst", "--quiet", "--json"}, 0, `"aims"`},
		{[]string{"--scenario", "storm"}, cmdline.ExitInput, `scenario "storm": want all or some of`},
		{[]string{"--nodes", "5"}, cmdline.ExitInput, "5 nodes: want 10 to"},
		{[]string{"--nodes", "0"}, cmdline.ExitInput, "want 10 or more"},
		{[]string{"--nodes", "many"}, cmdline.ExitInput, "many"},
		{[]string{"--seed", "0"}, cmdline.ExitInput, "want 1 or more"},
		{[]string{"burst"}, cmdline.ExitInput, "takes no arguments"},
		{[]string{"--scenario", "burst", "--quiet", "--out", os.DevNull}, cmdline.ExitFailure, os.DevNull},
	} {
		out, code := run(t, append([]string{"sim"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("weir-lab sim %s: exit %d, %.500s\nwant %d and %q", strings.Join(c.args, " "), code, out, c.code, c.want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "sim.json")); err != nil || len(b) == 0 {
		t.Errorf("sim.json: %v", err)
	}
}
