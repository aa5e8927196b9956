package term

import (
	"regexp"
	"strings"
	"unicode"
)

// Printable is s, which may come from another node or a client, on one line and
// safe for a terminal: unprintable characters become U+FFFD, so that they can
// be seen.
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

// PrintableLines is Printable for text of several lines, such as an error with
// a caret below the mistake.
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

// unprintable reports whether c controls a terminal or the writing direction.
func unprintable(c rune) bool { return !unicode.IsPrint(c) }

var (
	secretParameter = regexp.MustCompile(`(?i)\b((?:ticket|(?:[a-z]+_)?token|key|password|secret|jwt)=)[^&\s"'\\]+`)
	// credential matches the value of a header Authorization.
	credential = regexp.MustCompile(`(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}`)
	// webToken matches a JWT: its header begins with {" in base64url.
	webToken = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*`)
)

// WithoutSecrets masks secrets: parameters of URLs, which errors of net/http
// contain whole, credentials of headers, and tokens in any context.
func WithoutSecrets(s string) string {
	if strings.Contains(s, "=") {
		s = secretParameter.ReplaceAllString(s, "${1}…")
	}
	if strings.Contains(s, "eyJ") {
		s = webToken.ReplaceAllString(s, "…")
	}
	return credential.ReplaceAllString(s, "${1}…")
}
