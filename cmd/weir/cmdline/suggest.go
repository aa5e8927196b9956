package cmdline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// DidYouMean suggests the one of known nearest to word, or is "" if none is
// near. Dashes before flags do not count.
func DidYouMean(word string, known []string) string {
	bare := func(s string) string { return strings.ToLower(strings.TrimLeft(s, "-")) }
	said := bare(word)
	best, least := "", max(1, min(len(said)/3, 3))+1
	for _, k := range known {
		d := typos(said, bare(k))
		if len(said) > 1 && strings.HasPrefix(bare(k), said) {
			d = min(d, 1)
		}
		if d < least && d < len(said) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// typos is the number of typing mistakes by which a and b differ: one letter
// too many, missing or wrong, or two transposed (Damerau, "A technique for
// computer detection and correction of spelling errors", CACM 7(3), 1964).
func typos(a, b string) int {
	s, t := []rune(a), []rune(b)
	if len(s) > 64 || len(t) > 64 {
		return 64
	}
	d := make([][]int, len(s)+1)
	for i := range d {
		d[i] = make([]int, len(t)+1)
		d[i][0] = i
	}
	for j := range t {
		d[0][j+1] = j + 1
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			wrong := 1
			if s[i-1] == t[j-1] {
				wrong = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+wrong)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(s)][len(t)]
}

// namesOfCommands are the names of the visible commands.
func namesOfCommands(list []*cli.Command) []string {
	var all []string
	for _, c := range list {
		if !c.Hidden {
			all = append(all, c.Name)
		}
	}
	return all
}

// namesOfFlags are all names of flags, with their dashes.
func namesOfFlags(list []cli.Flag) []string {
	all := []string{"--help"}
	for _, f := range list {
		for _, name := range f.Names() {
			all = append(all, dashed(name))
		}
	}
	return all
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// UnknownCommand returns an error if args name an unknown command.
func UnknownCommand(args []string, known []*cli.Command) error {
	said := args[:min(1, len(args))]
	for _, word := range args[len(said):] {
		if strings.HasPrefix(word, "-") || word == "help" || word == "h" {
			return nil // flags, and commands built into urfave/cli
		}
		i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 {
			path := strings.Join(said, " ")
			return BadInput(fmt.Errorf("there is no command %q%s; see %s --help", strings.TrimPrefix(path+" "+word, said[0]+" "),
				DidYouMean(word, namesOfCommands(known)), path))
		}
		if known = known[i].Subcommands; len(known) == 0 {
			return nil
		}
		said = append(said[:len(said):len(said)], word)
	}
	return nil
}

// renamed are former names of flags, without their dashes, and what stands for
// them now.
var renamed = map[string]string{
	"holders":     "--discovery kademlia, broker, pull or push, in place of dht, central, none and all",
	"holder":      "--server",
	"holder-list": "--server-list",
}

// UnknownFlag adds a suggestion to the error of an unknown flag: its new name,
// where the command has that, or one that looks alike.
func UnknownFlag(err error, flags []cli.Flag) error {
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return err
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "-"), "=")
	now, _, _ := strings.Cut(renamed[name], " ")
	if slices.Contains(namesOfFlags(flags), now) {
		return fmt.Errorf("--%s has another name now: %s", name, renamed[name])
	}
	return fmt.Errorf("%w%s", err, DidYouMean(dashed(name), namesOfFlags(flags)))
}
