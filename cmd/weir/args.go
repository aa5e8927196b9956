package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// noArguments refuses what a command has no use for.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return badInput(fmt.Errorf("%s takes no argument %q; see %s --help", c.Command.HelpName, c.Args().First(), c.Command.HelpName))
	}
	return nil
}

// env is the environment variable of a flag.
func env(name string) []string { return []string{"WEIR_" + name} }
