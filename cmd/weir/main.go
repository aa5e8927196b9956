// Command weir runs and inspects weir nodes: discovery and cascading for
// WebRTC servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"
)

// release is the version of this build.
func release() string {
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := app().RunContext(ctx, os.Args); err != nil {
		code := exitFailure
		var coder cli.ExitCoder
		if errors.As(err, &coder) {
			code = coder.ExitCode()
		}
		if msg := err.Error(); msg != "" {
			fmt.Fprintln(os.Stderr, "weir:", msg)
		}
		os.Exit(code)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:    "weir",
		Usage:   "find a WebRTC server with room, and cascade to it",
		Version: release(),
		Description: "weir nodes publish signed records of their capacity under a shared Kademlia\n" +
			"key. A node that needs another's help finds one there, reserves, and opens a\n" +
			"cascade link to it. Media comes in by WHIP and goes out by WHEP.\n\n" +
			"Start with: weir node --dev",
		EnableBashCompletion:   true,
		UseShortOptionHandling: true,
		ExitErrHandler:         func(*cli.Context, error) {}, // main does it
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return badInput(err) },
		CommandNotFound: func(c *cli.Context, name string) {
			fmt.Fprintf(os.Stderr, "weir: there is no command %q; see weir --help\n", name)
			os.Exit(exitInput)
		},
		Commands: commands(),
	}
}

// commands lists the subcommands, each in a file of its own.
func commands() []*cli.Command {
	all := []*cli.Command{
		nodeCommand(),
		statusCommand(),
		peersCommand(),
		recordsCommand(),
		streamsCommand(),
		selectCommand(),
		publishCommand(),
		viewCommand(),
	}
	for _, c := range all {
		usageErrors(c)
	}
	return all
}

// usageErrors makes a wrong flag exit as bad input at every level.
func usageErrors(c *cli.Command) {
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badInput(err) }
	for _, sub := range c.Subcommands {
		usageErrors(sub)
	}
}

func badInput(err error) error { return cli.Exit(err.Error(), exitInput) }
