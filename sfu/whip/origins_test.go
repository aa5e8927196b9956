package whip

import (
	"strings"
	"testing"
)

func TestParseOrigins(t *testing.T) {
	for in, want := range map[string]string{
		"https://www.example.org":       "https://www.example.org",
		"HTTPS://WWW.Example.org:443":   "https://www.example.org",
		"http://localhost:3000":         "http://localhost:3000",
		"http://[2001:DB8::1]:80":       "http://[2001:db8::1]",
		"https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
	} {
		o, err := ParseOrigins([]string{in})
		if err != nil || len(o.list) != 1 || o.list[0] != want {
			t.Errorf("%q: %q, %v; want %q", in, o.list, err, want)
		}
	}
	for in, want := range map[string]string{
		"www.example.org":          "want an origin such as",
		"":                         "want an origin such as",
		"ftp://example.org":        "want an origin such as",
		"https://":                 "want an origin such as",
		"https://a@example.org":    "want an origin such as",
		"https://example.org/":     "write https://example.org",
		"https://example.org/page": "write https://example.org",
		"https://example.org?":     "write https://example.org",
		"https://*.example.org":    "no patterns",
		"null":                     "sandboxed",
		"https://bücher.example":   "ASCII",
	} {
		if o, err := ParseOrigins([]string{in}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %q", in, o.list, err, want)
		}
	}
	if o, err := ParseOrigins([]string{"*"}); err != nil || o.list != nil {
		t.Errorf("*: %q, %v", o.list, err)
	}
	if _, err := ParseOrigins([]string{"*", "https://example.org"}); err == nil {
		t.Error("* beside another is taken")
	}
}
