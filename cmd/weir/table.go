package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"weir/capacity"
)

// A terminal is what tables are printed on, or a file in its place.
type terminal struct {
	io.Writer
	width int  // columns; 0: any number
	color bool // it understands colours
	quiet bool // what is left out is not told
}

// terminalOf is that of a command: standard output, as wide as the terminal or as
// COLUMNS says, and of any width with --wide.
func terminalOf(c *cli.Context) terminal {
	s := terminal{Writer: c.App.Writer}
	if isTerminal(c) {
		f := c.App.Writer.(*os.File)
		s.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.width = width
		}
	}
	if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		s.width = width
	}
	if c.Bool("wide") {
		s.width = 0
	}
	return s
}

// isTerminal reports whether a command prints on one.
func isTerminal(c *cli.Context) bool {
	f, ok := c.App.Writer.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A style is how a cell is set off from others, as the parameter of ECMA-48's
// SGR.
type style string

const (
	plain  style = ""
	strong style = "1"
	faint  style = "2"
	good   style = "32"
	warn   style = "33"
	bad    style = "31"
)

// styled is a value with a style.
type styled struct {
	value any
	style style
}

// of is v in that style.
func (st style) of(v any) styled { return styled{v, st} }

// paint is text, fit for a terminal, in a style if it has colours.
func (s terminal) paint(st style, text string) string {
	text = plainText(text)
	if !s.color || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// called is what a node is called, which stands out.
func called(name string) styled { return strong.of(name) }

// stateOf is a node's state, as it is to be seen.
func stateOf(s capacity.State) styled {
	return map[capacity.State]style{capacity.Active: good, capacity.Full: bad, capacity.Draining: warn}[s].of(s)
}

// stateNamed is stateOf for a state's word.
func stateNamed(word string) styled {
	for _, s := range []capacity.State{capacity.Active, capacity.Full, capacity.Draining} {
		if s.String() == word {
			return stateOf(s)
		}
	}
	return plain.of(word)
}

// wideFlag is that of commands with tables.
func wideFlag() cli.Flag {
	return &cli.BoolFlag{Name: "wide", Usage: "print tables with all columns, however narrow the terminal is"}
}

// flagged is yes or no, of which no stands out.
func flagged(ok bool) styled {
	if ok {
		return plain.of("yes")
	}
	return bad.of("no")
}

const (
	gap       = 2  // between columns
	flexMin   = 24 // what a column of free text is not cut below while others can go
	flexLeast = 8  // and at all
)

// table prints rows under a head, in columns as wide as what is in them. The
// head names the columns, the most important ones first, with tabs between. If
// they do not fit, those at the end are left out. A column whose name begins
// with "…" holds free text: it is cut first, and goes last.
//
// Whatever comes into a cell is on one line and without control characters: much
// of it is other nodes' words.
func table(s terminal, head string, rows func(row func(cells ...any))) {
	names := strings.Split(head, "\t")
	flex := -1
	for i, name := range names {
		if text, ok := strings.CutPrefix(name, "…"); ok {
			names[i], flex = text, i
		}
	}
	lines := [][]styled{make([]styled, len(names))}
	for i, name := range names {
		lines[0][i] = faint.of(name)
	}
	rows(func(cells ...any) {
		line := make([]styled, len(names))
		for i := range line {
			line[i].value = ""
			if i < len(cells) {
				line[i] = cellOf(cells[i])
			}
		}
		lines = append(lines, line)
	})
	widths := make([]int, len(names))
	for _, line := range lines {
		for i, c := range line {
			widths[i] = max(widths[i], runewidth.StringWidth(c.value.(string)))
		}
	}
	shown, cut := fit(widths, flex, s.width)
	for _, line := range lines {
		s.line(line, shown, widths, flex, cut)
	}
	var left []string
	for i, name := range names {
		if !shown[i] {
			left = append(left, name)
		}
	}
	if len(left) > 0 && !s.quiet {
		fmt.Fprintln(s, s.paint(faint, fmt.Sprintf("(%s left out: --wide shows all)", count(len(left), "column", "columns"))))
	}
}

// cellOf is v as text on one line.
func cellOf(v any) styled {
	c, ok := v.(styled)
	if !ok {
		c = styled{value: v}
	}
	c.value = plainText(fmt.Sprint(c.value))
	return c
}

// fit says which columns are shown within width, and how wide the one of free
// text is then; 0: as wide as it is.
func fit(widths []int, flex, width int) (shown []bool, cut int) {
	shown = make([]bool, len(widths))
	for i := range shown {
		shown[i] = true
	}
	if width <= 0 {
		return shown, 0
	}
	need := func() int {
		sum := -gap
		for i, w := range widths {
			if !shown[i] {
				continue
			}
			if i == flex {
				w = min(w, flexMin)
			}
			sum += w + gap
		}
		return sum
	}
	for i := len(widths) - 1; i > 0 && need() > width; i-- {
		if i != flex {
			shown[i] = false
		}
	}
	if flex < 0 {
		return shown, 0
	}
	room := width - need() + min(widths[flex], flexMin)
	return shown, max(min(widths[flex], flexLeast), min(widths[flex], room))
}

// line prints one line of a table, without blanks at its end.
func (s terminal) line(cells []styled, shown []bool, widths []int, flex, cut int) {
	var b strings.Builder
	blank := 0
	for i, c := range cells {
		if !shown[i] {
			continue
		}
		text, w := c.value.(string), widths[i]
		if i == flex && cut > 0 {
			w = cut
			text = runewidth.Truncate(text, w, "…")
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", blank))
			blank = 0
		}
		b.WriteString(s.paint(c.style, text))
		blank += w - runewidth.StringWidth(text) + gap
	}
	fmt.Fprintln(s, b.String())
}

// pairs prints names and what they stand for.
func pairs(s terminal, rows func(row func(name string, value ...any))) {
	type pair struct {
		name  string
		value string
	}
	var all []pair
	wide := 0
	rows(func(name string, value ...any) {
		var text []string
		for _, v := range value {
			c := cellOf(v)
			text = append(text, s.paint(c.style, c.value.(string)))
		}
		all = append(all, pair{name, strings.Join(text, "")})
		wide = max(wide, len(name))
	})
	for _, p := range all {
		fmt.Fprintf(s, "%s%s%s\n", s.paint(faint, p.name), strings.Repeat(" ", wide-len(p.name)+gap), p.value)
	}
}
