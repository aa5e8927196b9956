package main

import (
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	for in, want := range map[string]string{
		"weir streams tree demo --admin x:1":        "weir streams tree --admin x:1 demo",
		"weir streams tree demo --admin=x:1 --json": "weir streams tree --admin=x:1 --json demo",
		"weir view http://a --duration 3s --json":   "weir view --duration 3s --json http://a",
		"weir status --json":                        "weir status --json",
		"weir publish --pattern http://a":           "weir publish --pattern http://a",
		"weir publish http://a -- --odd.ivf":        "weir publish http://a -- --odd.ivf",
		"weir records get PEER --out f --json":      "weir records get --out f --json PEER",
		"weir --version":                            "weir --version",
		"weir nonsense --admin x":                   "weir nonsense --admin x",
		"weir":                                      "weir",
	} {
		if got := strings.Join(flagsFirst(strings.Fields(in), commands()), " "); got != want {
			t.Errorf("%s became\n%s, want\n%s", in, got, want)
		}
	}
}

// Every flag has an environment variable or is about output, and every command
// says what it is for.
func TestCommandsAreDocumented(t *testing.T) {
	for _, c := range commands() {
		if c.Usage == "" {
			t.Errorf("weir %s does not say what it is for", c.Name)
		}
		if len(c.Flags) == 0 && len(c.Subcommands) == 0 {
			t.Errorf("weir %s has neither flags nor subcommands", c.Name)
		}
	}
}
