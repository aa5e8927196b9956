package term

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPlainLines(t *testing.T) {
	said := "rule x:\n\tr.uplink > \x1b[2J\n\t        ^\r"
	if got, want := PrintableLines(said), "rule x:\n\tr.uplink > \ufffd[2J\n\t        ^\ufffd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Secrets are masked in any context, and nothing else is.
func TestWithoutSecrets(t *testing.T) {
	const jwt = "eyJhbGciOiJFZERTQSJ9.eyJhdWQiOiJvcGVuIn0.c2lnbmF0dXJl"
	for said, want := range map[string]string{
		`Post "http://n/whep/a?wait=1s&ticket=CkUK.eyJl.x&b=c": EOF`: `Post "http://n/whep/a?wait=1s&ticket=…&b=c": EOF`,
		"GET /play/demo?token=" + jwt + "&x=1":                       "GET /play/demo?token=…&x=1",
		"https://keys.example.org/?id_token=abc&secret=def":          "https://keys.example.org/?id_token=…&secret=…",
		"Authorization: Bearer " + jwt:                               "Authorization: Bearer …",
		"authorization: bearer s3cr3t-of-a-hook":                     "authorization: bearer …",
		"Basic dXNlcjpwYXNz":                                         "Basic …",
		"it said " + jwt + ", and more":                              "it said …, and more",
		"two parts " + jwt[:40]:                                      "two parts …",
		"weir node --join eyJ2IjoxLCJuZXR3b3JrIjoib3BlbiJ9":          "weir node --join eyJ2IjoxLCJuZXR3b3JrIjoib3BlbiJ9", // an invitation is no secret
		"bearer of bad news":                                         "bearer of bad news",
		"keys=3 monkey=x":                                            "keys=3 monkey=x",
	} {
		if got := WithoutSecrets(said); got != want {
			t.Errorf("%q is masked as %q, want %q", said, got, want)
		}
	}
}

// Text of peers stays on one line and has no control characters; printable text
// is unchanged.
func FuzzPlainText(f *testing.F) {
	for _, s := range []string{"", "n1", "日本", "x\x1b[2J\r\n\t\u202e\u009b", "\xff\xfe", "a\u200bb", "Bearer eyJhbGciOiJFZERTQSJ9.e30.c2ln", "a?token=eyJh.b.c&key=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if strings.ContainsFunc(got, func(c rune) bool { return unprintable(c) && c != utf8.RuneError }) {
			t.Errorf("Printable(%q) = %q", s, got)
		}
		if Printable(got) != got {
			t.Errorf("Printable is not done with %q", got)
		}
		if masked := WithoutSecrets(s); WithoutSecrets(masked) != masked {
			t.Errorf("WithoutSecrets is not done with %q", masked)
		}
	})
}
