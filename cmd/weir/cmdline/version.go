package cmdline

import (
	"fmt"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/build"
	"weir/cmd/weir/term"
)

// VersionCommand prints the build.
func VersionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "which build this is",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print an object"}},
		Action: func(c *cli.Context) error {
			if err := NoArguments(c); err != nil {
				return err
			}
			info, _ := debug.ReadBuildInfo()
			if b := build.Of(info); c.Bool("json") {
				return term.PrintJSON(c, b)
			} else {
				_, err := fmt.Fprintln(c.App.Writer, b)
				return err
			}
		},
	}
}
