package cmdline

import (
	"slices"
	"strings"
	"testing"
)

// Paragraphs are filled, and indented lines stay as they are.
func TestBlocksOfDescriptions(t *testing.T) {
	got := blocksOf("One line\nand another.\n\nThen:\n  weir a\n    deeper\n\n  weir b\nAnd on.")
	want := []textBlock{{"One line and another.", false}, {"Then:", false}, {"weir a\n  deeper", true}, {"weir b", true}, {"And on.", false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// No character of a text is a request, an escape, a cell or an emphasis.
func TestTextIsQuoted(t *testing.T) {
	if got, want := roffText(`.so a\b - 'c'`), `\&.so a\eb \- \(aqc\(aq`; got != want {
		t.Errorf("roff: %s, want %s", got, want)
	}
	long := roffText(strings.Repeat("x", 70) + " end. .PP " + strings.Repeat("y", 90))
	for line := range strings.Lines(long) {
		if strings.HasPrefix(line, ".") {
			t.Errorf("%q begins a request", line)
		}
	}
	if got, want := cell(plainMarkdown("a|b *c* <d> _e_")), `a\|b \*c\* &lt;d> \_e\_`; got != want {
		t.Errorf("Markdown: %s, want %s", got, want)
	}
}
