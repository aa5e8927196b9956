package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "why a running node is alone, cut off or not chosen, and what to do",
		Description: "Asks the node to look at its addresses, at the nodes it should reach, at what holders\n" +
			"have of it, at clocks and settings. Exits with 1 if something is wrong, and with 2\n" +
			"if no node answers at --admin.",
		Flags: ask.Flags(),
		Action: func(c *cli.Context) error {
			var (
				d doctor.Diagnosis
				b []byte // as it came
			)
			err := ask.Node(c, func(ctx context.Context, client api.Client) (err error) {
				if b, err = client.Raw(ctx, "/doctor"); err != nil {
					return err
				}
				if err := json.Unmarshal(b, &d); err != nil {
					return fmt.Errorf("%s/api/v1/doctor: not the answer of a weir node: %w", client.URL, err)
				}
				return nil
			})
			if exit, ok := err.(cli.ExitCoder); ok && exit.ExitCode() == cmdline.ExitConnection {
				return cli.Exit(err.Error()+" To start one: weir node --dev; to start several: weir testnet up", cmdline.ExitConnection)
			}
			if err != nil {
				return err
			}
			if c.Bool("json") {
				if _, err := c.App.Writer.Write(b); err != nil {
					return err
				}
			} else {
				doctor.Print(c.App.Writer, d)
			}
			if !d.OK {
				return cli.Exit("", cmdline.ExitFailure)
			}
			return nil
		},
	}
}
