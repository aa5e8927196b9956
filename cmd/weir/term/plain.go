package term

import (
	"regexp"
	"strings"
	"unicode"
)

// Printable is s, which may be another node's or a client's, on one line and
// fit for a terminal: what cannot be printed is shown as U+FFFD, so that it is
// seen that there was something.
func Printable(s string) string {
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

// PrintableLines is Printable for text of several lines, such as an error with a
// caret below what is wrong.
func PrintableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		words := strings.Split(l, "\t")
		for j, w := range words {
			words[j] = Printable(w)
		}
		lines[i] = strings.Join(words, "\t")
	}
	return strings.Join(lines, "\n")
}

// unprintable reports whether c steers a terminal or the direction of writing
// rather than being seen.
func unprintable(c rune) bool { return !unicode.IsPrint(c) }

var (
	secretParameter = regexp.MustCompile(`(?i)\b((?:ticket|(?:[a-z]+_)?token|key|password|secret|jwt)=)[^&\s"'\\]+`)
	// credential is what a header Authorization has.
	credential = regexp.MustCompile(`(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}`)
	// webToken is a JWT: its header begins with {" in base64url.
	webToken = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*`)
)

// WithoutSecrets masks what lets somebody in: parameters of URLs, which errors of
// net/http carry whole, credentials of headers, and tokens wherever they stand.
func WithoutSecrets(s string) string {
	if strings.Contains(s, "=") {
		s = secretParameter.ReplaceAllString(s, "${1}…")
	}
	if strings.Contains(s, "eyJ") {
		s = webToken.ReplaceAllString(s, "…")
	}
	return credential.ReplaceAllString(s, "${1}…")
}
