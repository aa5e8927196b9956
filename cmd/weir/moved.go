package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

// movedToLab tells a user of a former command its new name in weir-lab.
func movedToLab(name, now string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: "see " + now, Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			return cmdline.BadInput(fmt.Errorf("%s is %s now, a program of its own: make lab builds bin/weir-lab", c.Command.HelpName, now))
		},
	}
}
