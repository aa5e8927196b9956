package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/testnet/bench/forward"
)

// Every recipe of the help text names servers that can be measured, once the
// programs are there.
func TestForwardRecipes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"mediamtx", "go2rtc", "broadcast-box", "bin/weir"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	found := map[string]bool{}
	for line := range strings.Lines(forwardText) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "weir-lab ")
		if !ok {
			continue
		}
		line = strings.ReplaceAll(line, "/usr/bin/weir", filepath.Join(dir, "bin/weir"))
		words, err := exec.Command("sh", "-c", `printf '%s\0' `+line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var cfg forward.Config
		a := app()
		bench := a.Command("bench")
		for _, c := range bench.Subcommands {
			if c.Name == "forward" {
				c.Action = func(c *cli.Context) (err error) {
					cfg, err = forwardConfig(c)
					return err
				}
			}
		}
		args := strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")
		if err := a.Run(append([]string{"weir-lab"}, args...)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		for _, s := range cfg.Servers {
			found[s.Name] = true
		}
	}
	for _, want := range []string{"old", "new", "weir", "mediamtx", "broadcast-box", "go2rtc"} {
		if !found[want] {
			t.Errorf("no recipe measures %s: %v", want, found)
		}
	}
}
