// Command weir-lab measures and simulates weir. It is not released: its
// dependencies besides weir's own packages, such as a Redis client, are of no
// use to operators.
package main

import (
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/logs"
)

func main() {
	logs.Quiet()
	cmdline.Main(app)
}

func app() *cli.App {
	return cmdline.Prepare(&cli.App{
		Name:  "weir-lab",
		Usage: "measure weir on this machine, and simulate it in large networks",
		Commands: []*cli.Command{
			{
				Name: "bench", Usage: "measure weir on this machine: forward, cascade, discovery",
				Subcommands: []*cli.Command{forwardCommand(), discoveryCommand(), cascadeCommand()},
			},
			simCommand(),
			cmdline.CompletionCommand("weir-lab"),
			cmdline.DocsCommand(app),
		},
	})
}
