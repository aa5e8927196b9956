package term

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"

	"weir/capacity"
)

func tableText(t Terminal, head string, rows ...[]any) string {
	var b bytes.Buffer
	t.Writer = &b
	Table(t, head, func(row func(...any)) {
		for _, r := range rows {
			row(r...)
		}
	})
	return b.String()
}

func TestTableFitsTheTerminal(t *testing.T) {
	head := "NODE\tSTATE\t…WHY\tREGION\tURL"
	row := []any{"n1", capacity.Full, "9 of 10 sessions are in use, and none of them is about to end", "eu", "http://192.0.2.1:8080"}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "NODE  STATE  WHY                                                            REGION  URL\n" +
			"n1    full   9 of 10 sessions are in use, and none of them is about to end  eu      http://192.0.2.1:8080\n"},
		{80, "NODE  STATE  WHY                                   REGION  URL\n" +
			"n1    full   9 of 10 sessions are in use, and no…  eu      http://192.0.2.1:8080\n"},
		{50, "NODE  STATE  WHY                            REGION\n" +
			"n1    full   9 of 10 sessions are in use,…  eu\n" +
			"(1 column left out: --wide shows all)\n"},
		{10, "NODE  WHY\n" +
			"n1    9 of 10…\n" +
			"(3 columns left out: --wide shows all)\n"},
	} {
		if got := tableText(Terminal{Width: c.width}, head, row); got != c.want {
			t.Errorf("at %d columns:\n%s\nwant:\n%s", c.width, got, c.want)
		}
	}
}

// No table is wider than the terminal, whatever its contents, as long as the
// first column and some of the free text fit.
func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	for width := 40; width < 130; width++ {
		for _, head := range []string{"A\tB\tC\tD", "A\t…B\tC\tD", "A\tB\tC\t…D"} {
			text := tableText(Terminal{Width: width}, head,
				[]any{"n1", strings.Repeat("long ", 9), "日本語の名前", strings.Repeat("x", 40)},
				[]any{"a-node-of-some-length", 1, 2, "y"})
			for line := range strings.Lines(text) {
				if w := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); w > width {
					t.Fatalf("%q has %d columns, at most %d", line, w, width)
				}
			}
		}
	}
}

func TestColoursOnATerminalOnly(t *testing.T) {
	if got := tableText(Terminal{}, "STATE", []any{StateOf(capacity.Full)}); strings.Contains(got, "\x1b") {
		t.Errorf("a file gets %q", got)
	}
	if got := tableText(Terminal{Color: true}, "STATE", []any{StateOf(capacity.Full)}); !strings.Contains(got, "\x1b[31mfull\x1b[0m") {
		t.Errorf("a terminal gets %q", got)
	}
}
