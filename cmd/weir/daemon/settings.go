package daemon

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/config"
	"weir/cmd/weir/term"
)

// Sources are what makes up a node's configuration. The command line and the
// environment stay as they are; the file is read anew each time.
type Sources struct {
	Args []string // of weir node
	File string   // replaces --config, if not ""
	Text []byte   // the content of file, if not nil
}

// settingsOf are the sources for the weir node command that c runs.
func settingsOf(c *cli.Context) Sources {
	args := cmdline.Arguments(c)
	if i := slices.Index(args, "node"); i >= 0 {
		return Sources{Args: args[i+1:]}
	}
	return Sources{}
}

// A Loaded is the result of one reading of all sources.
type Loaded struct {
	cfg      nodeConfig
	File     string // "": there is none
	Entries  []config.Entry
	Settings []api.Setting // in the order of the flags
}

// Load reads all sources. Its error is a [*config.Faults] with every mistake in
// the file, or one of the command line or the environment.
func (s Sources) Load() (Loaded, error) {
	l := Loaded{File: s.File}
	probe, err := s.flags(nil)
	if err != nil {
		return l, err
	}
	if l.File == "" {
		l.File = probe.ctx.String(config.FlagName)
	}
	if l.File == "" {
		l.cfg, err = nodeConfigOf(probe.ctx)
		l.Settings = probe.settings(l)
		l.cfg.loaded, l.cfg.settings = l.Settings, s
		return l, err
	}
	text := s.Text
	if text == nil {
		if text, err = config.ReadFile(l.File); err != nil {
			return l, err
		}
	}
	r := config.NewReader(l.File, text, Command().Flags)
	l.Entries = r.Read(text)
	l.cfg, err = s.judge(r, l.Entries)
	if len(r.Faults) > 0 {
		return l, r.Err()
	}
	if err != nil {
		return l, err
	}
	set, err := s.flags(l.Entries)
	if err != nil {
		return l, err
	}
	l.Settings = set.settings(l)
	l.cfg.loaded, l.cfg.settings = l.Settings, s
	return l, nil
}

var flagName = regexp.MustCompile(`--([a-z][a-z0-9-]*)`)

// judge makes a configuration of entries, and adds their mistakes to r. Checks
// of flags stop at the first mistake and name the flags: so the named entries
// are left out, and the rest is checked again. The error is one that no entry
// causes.
func (s Sources) judge(r *config.Reader, entries []config.Entry) (nodeConfig, error) {
	left := slices.Clone(entries)
	var dropped []string
	for {
		set, err := s.flags(left)
		if err != nil {
			return nodeConfig{}, err
		}
		cfg, err := nodeConfigOf(set.ctx)
		if err == nil {
			return cfg, nil
		}
		blamed, spurious := -1, false
		for _, m := range flagName.FindAllStringSubmatch(err.Error(), -1) {
			i := slices.IndexFunc(left, func(e config.Entry) bool { return e.Name == m[1] && !set.overridden(e.Name) })
			if blamed < 0 {
				blamed = i
			}
			// The mistake may only be that a dropped entry is missing.
			spurious = spurious || slices.Contains(dropped, m[1])
		}
		if blamed < 0 {
			if len(r.Faults) > 0 {
				return cfg, nil // report the known mistakes first
			}
			return cfg, err
		}
		if e := left[blamed]; !spurious {
			why := err.Error()
			if rest, ok := strings.CutPrefix(why, "--"+e.Name); ok && rest != "" && rest[0] != '-' {
				why = e.Name + ": " + strings.TrimLeft(rest, ": ")
			}
			at := e.At(why)
			r.Fault(at.Line, at.Column, "%s", why)
		}
		dropped = append(dropped, left[blamed].Name)
		left = slices.Delete(left, blamed, blamed+1)
	}
}

// A flagSet is weir node's flags as set by all sources.
type flagSet struct {
	ctx   *cli.Context
	flags []cli.Flag
	set   *flag.FlagSet
	given map[string]bool // on the command line
}

// flags sets the flags of weir node from the environment, entries and the
// command line.
func (s Sources) flags(entries []config.Entry) (flagSet, error) {
	f := flagSet{flags: Command().Flags, set: flag.NewFlagSet("node", flag.ContinueOnError), given: map[string]bool{}}
	f.set.SetOutput(io.Discard)
	for _, one := range f.flags {
		if err := one.Apply(f.set); err != nil {
			return f, err
		}
	}
	if err := f.set.Parse(s.Args); err != nil {
		return f, cmdline.UnknownFlag(err, f.flags)
	}
	f.set.Visit(func(one *flag.Flag) { f.given[one.Name] = true })
	for _, e := range entries {
		if f.overridden(e.Name) {
			continue
		}
		for _, v := range e.Values {
			if err := f.set.Set(e.Name, v); err != nil {
				return f, &config.Faults{File: "configuration", Faults: []config.Fault{{Line: e.Line, Column: e.Column, Message: fmt.Sprintf("%s: %v", e.Name, err)}}}
			}
		}
	}
	f.ctx = cli.NewContext(cli.NewApp(), f.set, nil)
	f.ctx.Context = context.Background()
	f.ctx.Command = &cli.Command{Name: "node", Flags: f.flags}
	return f, nil
}

// overridden reports whether a source of higher precedence than the file sets a
// flag.
func (f flagSet) overridden(name string) bool {
	return f.given[name] || f.environment(name) != ""
}

// environment is the name of the variable that sets a flag, or "".
func (f flagSet) environment(name string) string {
	for _, one := range f.flags {
		if doc, ok := one.(cli.DocGenerationFlag); ok && one.Names()[0] == name {
			for _, v := range doc.GetEnvVars() {
				if os.Getenv(v) != "" {
					return v
				}
			}
		}
	}
	return ""
}

// settings are all flags with their values and sources.
func (f flagSet) settings(l Loaded) []api.Setting {
	var all []api.Setting
	for _, one := range f.flags {
		name := one.Names()[0]
		s := api.Setting{Name: name, Source: api.FromDefault}
		entry := slices.IndexFunc(l.Entries, func(e config.Entry) bool { return e.Name == name })
		switch {
		case f.given[name]:
			s.Source, s.Where = api.FromFlag, "--"+name
		case f.environment(name) != "":
			s.Source, s.Where = api.FromEnvironment, f.environment(name)
		case entry >= 0:
			s.Source, s.Where = api.FromFile, fmt.Sprintf("%s:%d", l.File, l.Entries[entry].Line)
		}
		s.Raw = f.values(one)
		if name == config.FlagName && len(s.Raw) == 0 && l.File != "" {
			s.Raw = []string{l.File}
		}
		if s.Source == api.FromDefault {
			if v, ok := l.cfg.resolved(name); ok {
				s.Raw = []string{v}
			}
		}
		s.Values = shownAll(name, s.Raw)
		all = append(all, s)
	}
	return all
}

func shownAll(name string, raw []string) []string {
	list := []string{}
	for _, v := range raw {
		list = append(list, config.Shown(name, v))
	}
	return list
}

// values are those of one flag; none if it is not set and has no default.
func (f flagSet) values(one cli.Flag) []string {
	name := one.Names()[0]
	if _, ok := one.(*cli.StringSliceFlag); ok {
		return f.ctx.StringSlice(name)
	}
	v := f.set.Lookup(name).Value.String()
	if doc, ok := one.(cli.DocGenerationFlag); v == "" || !f.ctx.IsSet(name) && ok && v == "0" && cmdline.DocumentedDefault(doc) != "" {
		return nil // 0 stands for the documented default
	}
	return []string{v}
}

// resolved returns the value computed at start for a setting that is not set.
func (c nodeConfig) resolved(name string) (string, bool) {
	switch name {
	case "name":
		return c.name, c.name != ""
	case "network":
		return c.network, c.network != ""
	case "data-dir":
		return c.dataDir, c.dataDir != ""
	case "uplink-limit":
		return term.Bitrate(c.live.limits.Uplink), c.live.limits.Uplink > 0
	case "packet-limit":
		return fmt.Sprint(c.live.limits.Packets), true
	case "listen":
		var all []string
		for _, a := range c.listen {
			all = append(all, a.String())
		}
		return strings.Join(all, ", "), len(all) > 0
	}
	return "", false
}

// FaultsOf converts err to faults of file.
func FaultsOf(file string, err error) *config.Faults {
	var f *config.Faults
	if errors.As(err, &f) {
		return f
	}
	return &config.Faults{File: cmp.Or(file, "configuration"), Faults: []config.Fault{{Message: config.MaskSecrets(err.Error())}}}
}
