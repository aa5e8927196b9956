package capacity

import (
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		most       int
		want       string
	}{
		{"plain words stay", "4 of 4 sessions in use", 100, "4 of 4 sessions in use"},
		{"other scripts too", "Köln 東京", 100, "Köln 東京"},
		{"no escape sequence", "\x1b[2J\x1b]0;owned\x07", 100, "?[2J?]0;owned?"},
		{"nor its one-byte form", "\u009b31m", 100, "?31m"},
		{"no line break", "a\r\nb\tc", 100, "a??b?c"},
		{"nothing that turns the line around", "a\u202eb\u2066c", 100, "a?b?c"},
		{"no bytes that are no text", "a\xffb", 100, "a?b"},
		{"cut to length", "abcdef", 3, "abc"},
		{"but not within a letter", "aé", 2, "a"},
		{"to nothing", "é", 1, ""},
	} {
		if got := Printable(tt.text, tt.most); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31mé\xff", 5)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 0 || most > 1<<20 {
			return
		}
		got := Printable(s, most)
		if len(got) > most || !utf8.ValidString(got) || Printable(got, most) != got {
			t.Errorf("Printable(%q, %d) = %q", s, most, got)
		}
	})
}
