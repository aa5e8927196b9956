package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
)

func networkCommand() *cli.Command {
	return &cli.Command{
		Name: "network", Usage: "the network as a whole: invite",
		Subcommands: []*cli.Command{{
			Name: "invite", Usage: "print a token for weir node --join",
			Description: "The token has the network's name, addresses to join by, and whose policies apply. It\n" +
				"carries no secret and proves nothing: until networks have members, any node that can reach\n" +
				"a node can join.",
			Flags: ask.Flags(),
			Action: func(c *cli.Context) error {
				var reply api.Invitation
				if done, err := ask.Get(c, "/invite", &reply); done {
					return err
				}
				_, err := fmt.Fprintln(c.App.Writer, reply.Token)
				return err
			},
		}},
	}
}
