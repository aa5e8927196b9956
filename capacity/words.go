package capacity

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes text chosen by another node or a client safe to show, log and
// store: it returns at most most bytes of UTF-8, with a question mark for every
// character that is not printable, such as terminal escape sequences and line
// breaks.
func Printable(s string, most int) string {
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most]
	}
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}
