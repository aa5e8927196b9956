package main

import (
	"regexp"
	"strings"
	"unicode"
)

// plainText is s, which may be another node's or a client's, on one line and
// fit for a terminal: what cannot be printed is shown as U+FFFD, so that it is
// seen that there was something.
func plainText(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t' || c == '\n':
			return ' '
		case unprintable(c):
			return unicode.ReplacementChar
		}
		return c
	}, s)
}

// plainLines is plainText for text of several lines, such as an error with a
// caret below what is wrong.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		words := strings.Split(l, "\t")
		for j, w := range words {
			words[j] = plainText(w)
		}
		lines[i] = strings.Join(words, "\t")
	}
	return strings.Join(lines, "\n")
}

// unprintable reports whether c steers a terminal or the direction of writing
// rather than being seen.
func unprintable(c rune) bool { return !unicode.IsPrint(c) }

var secretParameter = regexp.MustCompile(`(?i)\b((?:ticket|token|access_token|key|password)=)[^&\s"'\\]+`)

// withoutSecrets masks the parameters of URLs that let somebody in. Errors of
// net/http carry whole URLs.
func withoutSecrets(s string) string {
	if !strings.Contains(s, "=") {
		return s
	}
	return secretParameter.ReplaceAllString(s, "${1}…")
}
