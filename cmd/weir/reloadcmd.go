package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
)

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name: "reload", Usage: "have a running node read its configuration again",
		Description: "As SIGHUP does, but it waits, and says what came of it. Limits, --fanout, --overflow,\n" +
			"--linger, --policy, --stop-timeout and --log-level change at once; of other settings that\n" +
			"have changed it says that they need a restart. If the file has a mistake, nothing changes.\n" +
			"Exits with 3 then.",
		Flags: ask.Flags(),
		Action: func(c *cli.Context) error {
			if err := cmdline.NoArguments(c); err != nil {
				return err
			}
			var r api.Reload
			if err := ask.Post(c, "/reload", nil, &r); err != nil {
				return err
			}
			var err error
			if c.Bool("json") {
				err = term.PrintJSON(c, r)
			} else {
				_, err = fmt.Fprintln(term.Of(c), r)
			}
			if err == nil && r.Outcome != api.ReloadApplied {
				return cli.Exit("", cmdline.ExitFailure)
			}
			return err
		},
	}
}
