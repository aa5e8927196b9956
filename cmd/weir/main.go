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
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/term"
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
	context.AfterFunc(ctx, stop) // a second one ends what does not end by itself
	unsetEmpty()
	quietLibraries()
	if len(os.Args) > 1 && os.Args[1] == completeCommand {
		printCompletions(os.Args[2:], commands())
		return
	}
	if err := execute(ctx, append([]string{"weir"}, os.Args[min(1, len(os.Args)):]...)); err != nil {
		code := exitFailure
		var coder cli.ExitCoder
		if errors.As(err, &coder) {
			code = coder.ExitCode()
		}
		if msg := err.Error(); msg != "" {
			fmt.Fprintln(os.Stderr, "weir:", term.PrintableLines(msg))
		}
		os.Exit(code)
	}
}

// unsetEmpty has every variable of ours that is set and empty be as if it were
// not set: that is how compose files and unit files leave one out, and for most
// flags "" would be a wrong value.
func unsetEmpty() {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "WEIR_") {
			_ = os.Unsetenv(name) // it is a name: the system gave it
		}
	}
}

// execute runs the command that args name.
func execute(ctx context.Context, args []string) error {
	if err := unknownCommand(args, commands()); err != nil {
		return err
	}
	args = flagsFirst(args, commands())
	return app().RunContext(context.WithValue(ctx, commandLine{}, args), args)
}

func app() *cli.App {
	return &cli.App{
		Name:    "weir",
		Usage:   "find a WebRTC server with room, and cascade to it",
		Version: release(),
		Description: "weir nodes publish signed records of their capacity under a shared Kademlia\n" +
			"key. A node that needs another's help finds one there, reserves, and opens a\n" +
			"cascade link to it. Media comes in by WHIP and goes out by WHEP.\n\n" +
			"Start with:\n\n" +
			"  weir node --dev",
		UseShortOptionHandling: true,
		ExitErrHandler:         func(*cli.Context, error) {}, // main does it
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return badInput(unknownFlag(err, []cli.Flag{cli.VersionFlag}))
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
		pingCommand(),
		topCommand(),
		recordsCommand(),
		streamsCommand(),
		sessionsCommand(),
		eventsCommand(),
		selectCommand(),
		decisionsCommand(),
		policyCommand(),
		doctorCommand(),
		healthcheckCommand(),
		configCommand(),
		reloadCommand(),
		drainCommand(),
		undrainCommand(),
		networkCommand(),
		tokenCommand(),
		publishCommand(),
		viewCommand(),
		benchCommand(),
		testnetCommand(),
		versionCommand(),
		completionCommand(),
		docsCommand(),
	}
	for _, c := range all {
		usageErrors(c)
	}
	return all
}

// flagsFirst moves flags that come after a command's arguments before them,
// as people type them and urfave/cli does not take them. What follows "--" is
// left alone.
func flagsFirst(args []string, known []*cli.Command) []string {
	var command *cli.Command
	out := args[:0:0]
	rest := args
	for len(rest) > 0 { // up to the innermost command's name
		i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if len(out) > 0 && i < 0 {
			break
		}
		out, rest = append(out, rest[0]), rest[1:]
		if i >= 0 {
			command, known = known[i], known[i].Subcommands
		}
	}
	if command == nil {
		return args
	}
	hasValue := func(arg string) bool {
		name := strings.TrimLeft(arg, "-")
		if strings.Contains(name, "=") {
			return false
		}
		return takesValue(flagNamed(command.Flags, name))
	}
	var plain []string
	for i := 0; i < len(rest); i++ {
		switch a := rest[i]; {
		case a == "--":
			plain = append(plain, rest[i:]...)
			i = len(rest)
		case len(a) > 1 && a[0] == '-':
			out = append(out, a)
			if hasValue(a) && i+1 < len(rest) {
				i++
				out = append(out, rest[i])
			}
		default:
			plain = append(plain, a)
		}
	}
	return append(out, plain...)
}

// usageErrors makes a wrong flag exit as bad input at every level.
func usageErrors(c *cli.Command) {
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badInput(unknownFlag(err, c.Flags)) }
	for _, sub := range c.Subcommands {
		usageErrors(sub)
	}
}
