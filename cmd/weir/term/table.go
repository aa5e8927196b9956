package term

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

// A Terminal is the output of tables: a terminal, or a file.
type Terminal struct {
	io.Writer
	Width int  // columns; 0: any width
	Color bool // it supports colours
	Quiet bool // omitted columns are not mentioned
}

// Of is the terminal of a command: standard output, as wide as the terminal or
// COLUMNS, and of any width with --wide.
func Of(c *cli.Context) Terminal {
	s := Terminal{Writer: c.App.Writer}
	if IsTerminal(c.App.Writer) {
		f := c.App.Writer.(*os.File)
		s.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.Width = width
		}
	}
	if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		s.Width = width
	}
	if c.Bool("wide") {
		s.Width = 0
	}
	return s
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A Style is the style of a cell, as the parameter of ECMA-48's SGR.
type Style string

const (
	Plain  Style = ""
	Strong Style = "1"
	Faint  Style = "2"
	Good   Style = "32"
	Warn   Style = "33"
	Bad    Style = "31"
)

// Styled is a value with a style.
type Styled struct {
	Value any
	Style Style
}

// Of is v in that style.
func (st Style) Of(v any) Styled { return Styled{v, st} }

// Paint is text made printable, in a style if the terminal has colours.
func (s Terminal) Paint(st Style, text string) string {
	text = Printable(text)
	if !s.Color || st == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// Called is a node's name, emphasized.
func Called(name string) Styled { return Strong.Of(name) }

// StateOf is a node's state, in the style of that state.
func StateOf(s capacity.State) Styled {
	return map[capacity.State]Style{capacity.Active: Good, capacity.Full: Bad, capacity.Draining: Warn}[s].Of(s)
}

// StateNamed is StateOf for a state's name.
func StateNamed(word string) Styled {
	for _, s := range []capacity.State{capacity.Active, capacity.Full, capacity.Draining} {
		if s.String() == word {
			return StateOf(s)
		}
	}
	return Plain.Of(word)
}

// WideFlag is the flag --wide of commands with tables.
func WideFlag() cli.Flag {
	return &cli.BoolFlag{Name: "wide", Usage: "print tables with all columns, however narrow the terminal is"}
}

// Flagged is yes or no, with no emphasized.
func Flagged(ok bool) Styled {
	if ok {
		return Plain.Of("yes")
	}
	return Bad.Of("no")
}

const (
	gap       = 2  // between columns
	flexMin   = 24 // a column of free text is not cut below this while others can be left out
	flexLeast = 8  // the minimum in any case
)

// Table prints rows under a header, in columns as wide as their contents. The
// header names the columns, the most important ones first, with tabs between.
// If they do not fit, the last ones are left out. A column whose name begins
// with "…" holds free text: it is cut first, and left out last.
//
// All cells are printed on one line and without control characters: many come
// from other nodes.
func Table(s Terminal, head string, rows func(row func(cells ...any))) {
	names := strings.Split(head, "\t")
	flex := -1
	for i, name := range names {
		if text, ok := strings.CutPrefix(name, "…"); ok {
			names[i], flex = text, i
		}
	}
	lines := [][]Styled{make([]Styled, len(names))}
	for i, name := range names {
		lines[0][i] = Faint.Of(name)
	}
	rows(func(cells ...any) {
		line := make([]Styled, len(names))
		for i := range line {
			line[i].Value = ""
			if i < len(cells) {
				line[i] = cellOf(cells[i])
			}
		}
		lines = append(lines, line)
	})
	widths := make([]int, len(names))
	for _, line := range lines {
		for i, c := range line {
			widths[i] = max(widths[i], runewidth.StringWidth(c.Value.(string)))
		}
	}
	shown, cut := fit(widths, flex, s.Width)
	for _, line := range lines {
		s.line(line, shown, widths, flex, cut)
	}
	var left []string
	for i, name := range names {
		if !shown[i] {
			left = append(left, name)
		}
	}
	if len(left) > 0 && !s.Quiet {
		fmt.Fprintln(s, s.Paint(Faint, fmt.Sprintf("(%s left out: --wide shows all)", Count(len(left), "column", "columns"))))
	}
}

// cellOf is v as text on one line.
func cellOf(v any) Styled {
	c, ok := v.(Styled)
	if !ok {
		c = Styled{Value: v}
	}
	c.Value = Printable(fmt.Sprint(c.Value))
	return c
}

// fit returns which columns are shown within width, and the width of the column
// of free text; 0: its full width.
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

// line prints one line of a table, without trailing blanks.
func (s Terminal) line(cells []Styled, shown []bool, widths []int, flex, cut int) {
	var b strings.Builder
	blank := 0
	for i, c := range cells {
		if !shown[i] {
			continue
		}
		text, w := c.Value.(string), widths[i]
		if i == flex && cut > 0 {
			w = cut
			text = runewidth.Truncate(text, w, "…")
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", blank))
			blank = 0
		}
		b.WriteString(s.Paint(c.Style, text))
		blank += w - runewidth.StringWidth(text) + gap
	}
	fmt.Fprintln(s, b.String())
}

// Pairs prints names with their values.
func Pairs(s Terminal, rows func(row func(name string, value ...any))) {
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
			text = append(text, s.Paint(c.Style, c.Value.(string)))
		}
		all = append(all, pair{name, strings.Join(text, "")})
		wide = max(wide, len(name))
	})
	for _, p := range all {
		fmt.Fprintf(s, "%s%s%s\n", s.Paint(Faint, p.name), strings.Repeat(" ", wide-len(p.name)+gap), p.value)
	}
}
