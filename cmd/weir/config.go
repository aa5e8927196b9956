package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/config"
	"weir/cmd/weir/daemon"
	"weir/cmd/weir/term"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "the configuration file of weir node: check, show, example",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "read a configuration file and point at everything that is wrong with it", ArgsUsage: "FILE [-- FLAGS]",
				Description: "FILE is YAML; - is standard input. It is judged as weir node --config FILE would, with\n" +
					"the environment of this shell and the FLAGS given. Exits with 3 if it has a mistake.\n" +
					"What is deprecated, has no effect, or lets others change the node is warned of.",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				Action: checkConfig,
			},
			{
				Name: "show", Usage: "the settings in effect at a running node, or those that FILE would give", ArgsUsage: "[FILE [-- FLAGS]]",
				Description: "Each with where it comes from: default, file and line, environment or flag, of which\n" +
					"the later is the stronger. Secrets are hidden. With FILE no node is asked.",
				Flags:  ask.Flags(&cli.BoolFlag{Name: "set", Usage: "leave out what has its default"}),
				Action: showConfig,
			},
			{
				Name: "example", Usage: "print a file with every setting and its default, all commented out",
				Action: func(c *cli.Context) error {
					if err := cmdline.NoArguments(c); err != nil {
						return err
					}
					_, err := io.WriteString(c.App.Writer, config.Example(daemon.Command().Flags, daemon.LiveSettings))
					return err
				},
			},
		},
	}
}

// configArgs reads FILE [-- FLAGS].
func configArgs(c *cli.Context) (daemon.Sources, error) {
	args := c.Args().Slice()
	s := daemon.Sources{File: args[0], Args: args[1:]}
	if len(s.Args) > 0 && s.Args[0] == "--" {
		s.Args = s.Args[1:]
	} else if len(s.Args) > 0 {
		return s, fmt.Errorf("want one FILE, but got %q too; flags of weir node follow --", s.Args[0])
	}
	if s.File == "-" && c.App.Reader != nil {
		text, err := io.ReadAll(io.LimitReader(c.App.Reader, config.MaxFile+1))
		if err != nil {
			return s, err
		}
		s.File, s.Text = "stdin", append([]byte{}, text...)
	}
	return s, nil
}

// A configVerdict is the --json output of weir config check.
type configVerdict struct {
	File     string         `json:"file"`
	Settings int            `json:"settings"`
	Errors   []config.Fault `json:"errors"`
	Warnings []config.Fault `json:"warnings"`
}

func checkConfig(c *cli.Context) error {
	if c.NArg() == 0 {
		return cmdline.BadInput(errors.New("weir config check wants one FILE"))
	}
	s, err := configArgs(c)
	if err != nil {
		return cmdline.BadInput(err)
	}
	l, err := s.Load()
	v := configVerdict{File: l.File, Settings: len(l.Entries), Errors: []config.Fault{}, Warnings: []config.Fault{}}
	var faults *config.Faults
	if err != nil {
		faults = daemon.FaultsOf(l.File, err)
		v.Errors = append(v.Errors, faults.Faults...)
	} else {
		v.Warnings = append(v.Warnings, warnings(s, l)...)
	}
	if c.Bool("json") {
		if err := term.PrintJSON(c, v); err != nil {
			return err
		}
		if faults != nil {
			return cli.Exit("", cmdline.ExitInput)
		}
		return nil
	}
	if faults != nil {
		return cmdline.BadInput(faults)
	}
	w := term.Of(c)
	for _, f := range v.Warnings {
		fmt.Fprintf(w, "warning: %s\n", term.Printable(f.At(v.File)))
	}
	_, err = fmt.Fprintf(w, "%s: %s, no mistake\n", v.File, term.Count(v.Settings, "setting", "settings"))
	return err
}

// needed are, for a flag, the flags of which one must be set for it to have an
// effect.
var needed = map[string][]string{
	"hook-timeout":     {"provision-command", "provision-url", "release-command", "release-url"},
	"provision-region": {"provision-command", "provision-url"},
}

// useless are flags that have no effect when another flag is set, and the reason.
var useless = []struct{ name, where, why string }{
	{"release-command", "provision-command", "a node that has servers started stays"},
	{"release-command", "provision-url", "a node that has servers started stays"},
	{"release-url", "provision-command", "a node that has servers started stays"},
	{"release-url", "provision-url", "a node that has servers started stays"},
}

// warnings are entries of a valid file that have no effect, or an effect that
// its owner would probably not want.
func warnings(s daemon.Sources, l daemon.Loaded) []config.Fault {
	var all []config.Fault
	warn := func(e config.Entry, format string, args ...any) {
		all = append(all, config.Fault{Line: e.Line, Column: e.Column, Message: config.MaskSecrets(fmt.Sprintf(format, args...))})
	}
	of := func(name string) api.Setting {
		i := slices.IndexFunc(l.Settings, func(s api.Setting) bool { return s.Name == name })
		if i < 0 {
			return api.Setting{Source: api.FromDefault}
		}
		return l.Settings[i]
	}
	given := func(name string) bool { return of(name).Source != api.FromDefault }
	if len(l.Entries) == 0 {
		all = append(all, config.Fault{Message: "it sets nothing"})
	}
	for _, e := range l.Entries {
		if e.Alias != "" {
			warn(e, "%s is deprecated: its name is %s now", e.Alias, e.Name)
		}
		if now := of(e.Name); now.Source != api.FromFile {
			warn(e, "%s has no effect: %s is stronger", e.Name, now.Where)
			continue
		}
		if list := needed[e.Name]; list != nil && !slices.ContainsFunc(list, given) {
			warn(e, "%s has no effect without one of %s", e.Name, strings.Join(list, ", "))
		}
		for _, u := range useless {
			if u.name == e.Name && given(u.where) {
				warn(e, "%s has no effect beside %s: %s", e.Name, u.where, u.why)
			}
		}
		for _, v := range e.Values {
			if masked := config.MaskSecrets(v); masked != v {
				warn(e, "%s holds a secret, which all readers of this file know; keep secrets in files of their own, and name those", e.Name)
			}
		}
	}
	if info, err := os.Stat(l.File); err == nil && s.Text == nil && info.Mode().Perm()&0o022 != 0 {
		all = append(all, config.Fault{Message: fmt.Sprintf("users other than its owner may write to it (mode %v), and so run commands as the node: chmod go-w %s", info.Mode().Perm(), l.File)})
	}
	return all
}

func showConfig(c *cli.Context) error {
	reply := api.Config{}
	if c.NArg() > 0 {
		s, err := configArgs(c)
		if err != nil {
			return cmdline.BadInput(err)
		}
		l, err := s.Load()
		if err != nil {
			return cmdline.BadInput(daemon.FaultsOf(l.File, err))
		}
		reply.File, reply.Settings = l.File, l.Settings
		if c.Bool("json") {
			return term.PrintJSON(c, reply)
		}
	} else if done, err := ask.Get(c, "/config", &reply); done {
		return err
	}
	w := term.Of(c)
	term.Table(w, "SETTING\tVALUE\tFROM", func(row func(...any)) {
		for _, s := range reply.Settings {
			if c.Bool("set") && s.Source == api.FromDefault {
				continue
			}
			text := cmp.Or(strings.Join(s.Values, ", "), "-")
			if s.Pending != nil {
				text += fmt.Sprintf(" (after a restart: %s)", cmp.Or(strings.Join(s.Pending, ", "), "the default"))
			}
			row(s.Name, term.Printable(text), cmp.Or(s.Where, s.Source))
		}
	})
	if r := reply.Reload; r != nil {
		fmt.Fprintf(w, "\nread again at %s, %s: %s\n", r.At.Local().Format(time.DateTime), r.Outcome, term.Printable(r.String()))
	}
	return nil
}
