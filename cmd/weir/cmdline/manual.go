package cmdline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/build"
)

// DocsCommand writes the manual pages and the reference for packagers and this
// repository. It is hidden: users of weir have --help.
func DocsCommand(program func() *cli.App) *cli.Command {
	return &cli.Command{
		Name: "docs", Usage: "the manual of all commands, made of their help", Hidden: true,
		Subcommands: []*cli.Command{
			{
				Name: "markdown", Usage: "print the command reference",
				Action: func(c *cli.Context) error {
					if err := NoArguments(c); err != nil {
						return err
					}
					_, err := fmt.Fprint(c.App.Writer, Markdown(program()))
					return err
				},
			},
			{
				Name: "man", Usage: "write the man pages, section 1, to DIR", ArgsUsage: "DIR",
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return BadInput(errors.New("docs man takes one directory, such as dist/man"))
					}
					dir := c.Args().First()
					if err := os.MkdirAll(dir, 0o755); err != nil {
						return err
					}
					for name, page := range ManPages(program()) {
						if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
							return err
						}
					}
					return nil
				},
			},
		},
	}
}

// A manualEntry is one command in the manual.
type manualEntry struct {
	path     string // "weir records list"
	usage    string // one line
	synopsis string
	text     []textBlock
	flags    []manualFlag
	subs     []manualEntry
}

// A manualFlag is one flag. All of it is plain text.
type manualFlag struct {
	names    []string // with their dashes
	value    string   // placeholder of its value; empty: it takes none
	text     string
	preset   string // the default; empty: none worth documenting
	variable string // environment variable
}

// A textBlock is a paragraph, or lines that are not filled.
type textBlock struct {
	text     string
	verbatim bool
}

// blocksOf splits text into paragraphs and indented lines, such as examples.
func blocksOf(text string) []textBlock {
	var all []textBlock
	open := false // the last block may go on
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		verbatim := strings.HasPrefix(line, "  ")
		switch {
		case line == "":
			open = false
			continue
		case open && all[len(all)-1].verbatim == verbatim:
			sep := " "
			if verbatim {
				sep = "\n"
			}
			all[len(all)-1].text += sep + strings.TrimPrefix(line, "  ")
		default:
			all = append(all, textBlock{strings.TrimPrefix(line, "  "), verbatim})
		}
		open = true
	}
	return all
}

// manualOf describes commands and those below them, in order.
func manualOf(under string, commands []*cli.Command) []manualEntry {
	var all []manualEntry
	for _, c := range commands {
		if c.Hidden || c.Name == "help" {
			continue
		}
		e := manualEntry{path: under + " " + c.Name, usage: c.Usage, text: blocksOf(c.Description), flags: flagsOf(c.Flags)}
		e.synopsis = e.path
		if len(e.flags) > 0 {
			e.synopsis += " [options]"
		}
		if c.ArgsUsage != "" {
			e.synopsis += " " + c.ArgsUsage
		}
		e.subs = manualOf(e.path, c.Subcommands)
		all = append(all, e)
	}
	return all
}

// homeless is the data directory in the manual, in place of the default for the
// user who runs it.
const homeless = "~/.local/share/weir"

func flagsOf(flags []cli.Flag) []manualFlag {
	var all []manualFlag
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		m := manualFlag{text: d.GetUsage()}
		for _, name := range f.Names() {
			m.names = append(m.names, dashed(name))
		}
		if takesValue(f) {
			m.value = "VALUE"
			if _, after, ok := strings.Cut(m.text, "`"); ok {
				if name, _, ok := strings.Cut(after, "`"); ok {
					m.value = name
				}
			}
		}
		m.text = strings.ReplaceAll(m.text, "`", "")
		m.preset = strings.ReplaceAll(strings.ReplaceAll(d.GetDefaultText(), `"`, ""), DefaultDataDir(), homeless)
		if !takesValue(f) && m.preset == "false" {
			m.preset = ""
		}
		m.variable = strings.Join(d.GetEnvVars(), ", ")
		all = append(all, m)
	}
	return all
}

// Markdown is the reference of all commands on one page.
func Markdown(a *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Commands\n\n<!-- Made by %s docs markdown; do not edit: change the help texts, then run make docs. -->\n\n", a.Name)
	b.WriteString("What `" + a.Name + " COMMAND --help` prints, on one page. Flags may stand before and after arguments. Exit codes: 0 ok, 1 failure, 2 no connection, 3 bad input, 4 refused by the server.\n\n")
	all := manualOf(a.Name, a.Commands)
	b.WriteString("| command | what it does |\n| --- | --- |\n")
	for _, e := range all {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", e.path, strings.ReplaceAll(e.path, " ", "-"), cell(e.usage))
	}
	for _, e := range all {
		markdownEntry(&b, e, 2)
	}
	return b.String()
}

func markdownEntry(b *strings.Builder, e manualEntry, depth int) {
	fmt.Fprintf(b, "\n%s %s\n\n%s.\n", strings.Repeat("#", depth), e.path, upperFirst(plainMarkdown(e.usage)))
	if len(e.subs) == 0 {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", e.synopsis)
	}
	for _, t := range e.text {
		if t.verbatim {
			fmt.Fprintf(b, "\n```text\n%s\n```\n", t.text)
		} else {
			fmt.Fprintf(b, "\n%s\n", plainMarkdown(t.text))
		}
	}
	if len(e.flags) > 0 {
		b.WriteString("\n| flag | what it does | default | environment |\n| --- | --- | --- | --- |\n")
	}
	for _, f := range e.flags {
		names := make([]string, len(f.names))
		for i, name := range f.names {
			names[i] = "`" + strings.TrimSpace(name+" "+f.value) + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", cell(strings.Join(names, ", ")), cell(plainMarkdown(f.text)), cell(code(f.preset)), code(f.variable))
	}
	for _, sub := range e.subs {
		markdownEntry(b, sub, depth+1)
	}
}

// code formats s as code, unless it is empty.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// cell escapes s for one cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// plainMarkdown escapes s for Markdown.
func plainMarkdown(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`, "`", "\\`").Replace(s)
}

func upperFirst(s string) string {
	if s == "" || strings.HasPrefix(s, "weir") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// ManPages are weir(1) and one page for each command, with those below it, by
// file name (man(7), as groff and mandoc have it).
func ManPages(a *cli.App) map[string]string {
	all := manualOf(a.Name, a.Commands)
	top := manualEntry{path: a.Name, usage: a.Usage, synopsis: a.Name + " COMMAND [options] [arguments]", text: blocksOf(a.Description)}
	pages := map[string]string{a.Name + ".1": manPage(a, top, func(b *strings.Builder) {
		b.WriteString(".SH COMMANDS\n")
		for _, e := range all {
			fmt.Fprintf(b, ".TP\n.BR %s (1)\n%s\n", roff(strings.ReplaceAll(e.path, " ", "-")), roffText(e.usage))
		}
		b.WriteString(".SH EXIT STATUS\n")
		for _, s := range []struct{ code, text string }{{"0", "ok"}, {"1", "failure"}, {"2", "no connection"}, {"3", "bad input"}, {"4", "refused by the server"}} {
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", s.code, s.text)
		}
	})}
	for _, e := range all {
		pages[strings.ReplaceAll(e.path, " ", "-")+".1"] = manPage(a, e, func(b *strings.Builder) {
			fmt.Fprintf(b, ".SH SEE ALSO\n.BR %s (1)\n", roff(a.Name))
		})
	}
	return pages
}

func manPage(a *cli.App, e manualEntry, last func(*strings.Builder)) string {
	var b strings.Builder
	title := strings.ReplaceAll(e.path, " ", "-")
	fmt.Fprintf(&b, ".TH %s 1 %q %q %q\n", strings.ToUpper(roff(title)), manualDate(), a.Name+" "+a.Version, a.Name+" manual")
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", roff(title), roff(e.usage))
	for i, line := range synopses(e) {
		if i > 0 {
			b.WriteString(".br\n")
		}
		fmt.Fprintf(&b, "%s\n", roffLine(line))
	}
	if len(e.text) > 0 {
		b.WriteString(".SH DESCRIPTION\n")
		roffBlocks(&b, e.text)
	}
	if len(e.flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
		roffFlags(&b, e.flags)
	}
	if len(e.subs) > 0 {
		b.WriteString(".SH SUBCOMMANDS\n")
		roffSubs(&b, e.subs)
	}
	last(&b)
	return b.String()
}

// synopses are the synopsis lines of e, or of all commands below it.
func synopses(e manualEntry) []string {
	if len(e.subs) == 0 {
		return []string{e.synopsis}
	}
	var all []string
	if len(e.flags) > 0 {
		all = append(all, e.synopsis)
	}
	for _, sub := range e.subs {
		all = append(all, synopses(sub)...)
	}
	return all
}

// manualDate is the date of the source of this build, so that the same source
// gives the same bytes: SOURCE_DATE_EPOCH (reproducible-builds.org), else the
// commit's; empty if neither is known.
func manualDate() string {
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		if sec, err := strconv.ParseInt(s, 10, 64); err == nil {
			return time.Unix(sec, 0).UTC().Format(time.DateOnly)
		}
	}
	info, _ := debug.ReadBuildInfo()
	day, _, _ := strings.Cut(build.Of(info).Time, "T")
	return day
}

func roffSubs(b *strings.Builder, subs []manualEntry) {
	for _, e := range subs {
		fmt.Fprintf(b, ".SS %s\n%s\n", roff(e.synopsis), roffText(upperFirst(e.usage)+"."))
		if len(e.text) > 0 {
			b.WriteString(".PP\n")
			roffBlocks(b, e.text)
		}
		roffFlags(b, e.flags)
		roffSubs(b, e.subs)
	}
}

func roffBlocks(b *strings.Builder, blocks []textBlock) {
	for i, t := range blocks {
		if t.verbatim {
			fmt.Fprintf(b, ".PP\n.RS 4\n.nf\n")
			for line := range strings.Lines(t.text) {
				fmt.Fprintf(b, "%s\n", roffLine(strings.TrimSuffix(line, "\n")))
			}
			b.WriteString(".fi\n.RE\n")
			continue
		}
		if i > 0 {
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(b, "%s\n", roffText(t.text))
	}
}

func roffFlags(b *strings.Builder, flags []manualFlag) {
	for _, f := range flags {
		names := make([]string, len(f.names))
		for i, name := range f.names {
			names[i] = `\fB` + roff(name) + `\fR`
			if f.value != "" {
				names[i] += ` \fI` + roff(f.value) + `\fR`
			}
		}
		text := upperFirst(f.text) + "."
		if f.preset != "" {
			text += " Default: " + f.preset + "."
		}
		if f.variable != "" {
			text += " Environment: " + f.variable + "."
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", strings.Join(names, ", "), roffText(text))
	}
}

// roff escapes s for roff.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

// roffText escapes filled text for roff, in lines of moderate length.
func roffText(s string) string {
	var b strings.Builder
	length := 0
	for _, word := range strings.Fields(s) {
		word = roff(word)
		switch {
		case length == 0:
			if strings.HasPrefix(word, ".") {
				word = `\&` + word
			}
		case length+1+len(word) > 78:
			b.WriteString("\n")
			length = 0
			if strings.HasPrefix(word, ".") {
				word = `\&` + word
			}
		default:
			b.WriteString(" ")
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// roffLine escapes the start of a line for roff, where a dot would be a request.
func roffLine(s string) string {
	s = roff(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// DocumentedDefault is the default shown by help in place of the value.
func DocumentedDefault(doc cli.DocGenerationFlag) string {
	if text := doc.GetDefaultText(); text != doc.GetValue() {
		return text
	}
	return ""
}
