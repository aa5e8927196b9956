package main

import "testing"

// Every flag has an environment variable or is about output, and every command
// has a description.
func TestCommandsAreDocumented(t *testing.T) {
	for _, c := range commands() {
		if c.Usage == "" {
			t.Errorf("weir %s does not say what it is for", c.Name)
		}
		if len(c.Flags) == 0 && len(c.Subcommands) == 0 && !c.Hidden {
			t.Errorf("weir %s has neither flags nor subcommands", c.Name)
		}
	}
}
