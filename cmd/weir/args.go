package main

import (
	"fmt"
	"os"
	"path/filepath"

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

func defaultDataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "weir")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "weir")
	}
	return "weir-data"
}
