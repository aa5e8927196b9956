package cmdline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/build"
	"weir/cmd/weir/term"
)

// Main runs a program with the arguments of the process until it is done, or
// interrupted (SIGINT, SIGTERM) a second time, and exits with an error code if
// it fails. It calls program after it has cleaned the environment.
func Main(program func() *cli.App) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process
	UnsetEmpty()
	a := program()
	if len(os.Args) > 1 && os.Args[1] == completeCommand {
		printCompletions(os.Args[2:], a.Commands)
		return
	}
	if err := Run(ctx, a, append([]string{a.Name}, os.Args[min(1, len(os.Args)):]...)); err != nil {
		code := ExitFailure
		var coder cli.ExitCoder
		if errors.As(err, &coder) {
			code = coder.ExitCode()
		}
		if msg := err.Error(); msg != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", a.Name, term.PrintableLines(msg))
		}
		os.Exit(code)
	}
}

// UnsetEmpty unsets every variable of ours that is empty: compose files and
// unit files leave a variable out in that way, and for most flags "" would be a
// wrong value.
func UnsetEmpty() {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "WEIR_") {
			_ = os.Unsetenv(name) // a name from the system is valid
		}
	}
}

// commandLine is the context key of Run's arguments.
type commandLine struct{}

// Run runs the command of a that args select; args begin with the program's name.
func Run(ctx context.Context, a *cli.App, args []string) error {
	if err := UnknownCommand(args, a.Commands); err != nil {
		return err
	}
	args = flagsFirst(args, a.Commands)
	return a.RunContext(context.WithValue(ctx, commandLine{}, args), args)
}

// Arguments are the arguments that Run was given for c, flags first.
func Arguments(c *cli.Context) []string {
	args, _ := c.Context.Value(commandLine{}).([]string)
	return args
}

// Prepare makes a report wrong flags as bad input at every level, and leaves
// the exit of the process to Main.
func Prepare(a *cli.App) *cli.App {
	a.Version = build.Release()
	a.UseShortOptionHandling = true
	a.ExitErrHandler = func(*cli.Context, error) {}
	a.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return BadInput(UnknownFlag(err, []cli.Flag{cli.VersionFlag}))
	}
	for _, c := range a.Commands {
		usageErrors(c)
	}
	return a
}

// usageErrors makes a wrong flag exit as bad input at every level.
func usageErrors(c *cli.Command) {
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return BadInput(UnknownFlag(err, c.Flags)) }
	for _, sub := range c.Subcommands {
		usageErrors(sub)
	}
}

// flagsFirst moves flags after a command's arguments before them, as users type
// them and urfave/cli does not take them. Arguments after "--" stay.
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
		return takesValue(FlagNamed(command.Flags, name))
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
