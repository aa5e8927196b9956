package capacity

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable is s as it may be shown, logged and kept, for text that another
// node or a client chose: at most so many bytes of UTF-8, in which a question
// mark stands for whatever cannot be printed, such as the escape sequences of
// terminals or line breaks.
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
