package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPlainLines(t *testing.T) {
	said := "rule x:\n\tr.uplink > \x1b[2J\n\t        ^\r"
	if got, want := plainLines(said), "rule x:\n\tr.uplink > \ufffd[2J\n\t        ^\ufffd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whatever a peer says stays on one line and steers nothing; what can be
// printed is left as it is.
func FuzzPlainText(f *testing.F) {
	for _, s := range []string{"", "n1", "日本", "x\x1b[2J\r\n\t\u202e\u009b", "\xff\xfe", "a\u200bb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plainText(s)
		if strings.ContainsFunc(got, func(c rune) bool { return unprintable(c) && c != utf8.RuneError }) {
			t.Errorf("plainText(%q) = %q", s, got)
		}
		if plainText(got) != got {
			t.Errorf("plainText is not done with %q", got)
		}
		if masked := withoutSecrets(s); withoutSecrets(masked) != masked {
			t.Errorf("withoutSecrets is not done with %q", masked)
		}
	})
}
