package cmdline

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// MovedToLab tells a user of a former command its new name in weir-lab.
func MovedToLab(name, now string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: "see " + now, Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			return BadInput(fmt.Errorf("%s is %s now, a program of its own: make lab builds bin/weir-lab", c.Command.HelpName, now))
		},
	}
}
