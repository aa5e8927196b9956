// Command weir runs and inspects weir nodes: discovery and cascading for
// WebRTC servers.
package main

import (
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/auth"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/daemon"
	"weir/cmd/weir/logs"
	"weir/cmd/weir/media"
	"weir/cmd/weir/show"
	"weir/cmd/weir/testnets"
)

func main() {
	logs.Quiet()
	cmdline.Main(app)
}

func app() *cli.App {
	return cmdline.Prepare(&cli.App{
		Name:  "weir",
		Usage: "find a WebRTC server with room, and cascade to it",
		Description: "weir nodes publish signed records of their capacity under a shared Kademlia\n" +
			"key. A node that needs another's help finds one there, reserves, and opens a\n" +
			"cascade link to it. Media comes in by WHIP and goes out by WHEP.\n\n" +
			"Start with:\n\n" +
			"  weir node --dev",
		Commands: commands(),
	})
}

// Categories of commands, in the alphabetical order of --help.
const (
	inspectCategory = "Inspect"
	manageCategory  = "Manage"
	mediaCategory   = "Media"
	runCategory     = "Run"
	shellCategory   = "This program"
)

// commands lists the subcommands, each in a file of its own.
func commands() []*cli.Command {
	var all []*cli.Command
	add := func(category string, list ...*cli.Command) {
		for _, c := range list {
			c.Category = category
		}
		all = append(all, list...)
	}
	add(runCategory,
		daemon.Command(),
		healthcheckCommand(),
		configCommand(),
		testnets.Command(),
	)
	add(inspectCategory,
		show.StatusCommand(),
		show.PeersCommand(),
		show.PingCommand(),
		show.TopCommand(),
		show.RecordsCommand(),
		show.StreamsCommand(),
		show.SessionsCommand(),
		show.EventsCommand(),
		show.SelectCommand(),
		show.DecisionsCommand(),
		doctorCommand(),
	)
	add(manageCategory,
		policyCommand(),
		reloadCommand(),
		drainCommand(),
		undrainCommand(),
		networkCommand(),
		auth.TokenCommand(),
	)
	add(mediaCategory,
		media.PublishCommand(),
		media.ViewCommand(),
	)
	add(shellCategory,
		cmdline.VersionCommand(),
		cmdline.CompletionCommand("weir"),
		cmdline.MovedToLab("bench", "weir-lab bench"),
		cmdline.DocsCommand(app),
	)
	return all
}
