package daemon

import (
	"strings"
	"testing"

	"weir/capacity"
)

// Every host name of a machine must give a name that is valid in a record.
func TestNameOfMachine(t *testing.T) {
	for host, want := range map[string]string{
		"sfu7.eu.example.net":   "sfu7",
		"Lenas MacBook":         "Lenas-MacBook",
		"büro":                  "b-ro",
		strings.Repeat("x", 63): strings.Repeat("x", capacity.MaxName),
		"":                      "",
		"日本":                    "",
	} {
		got := nameOf(host)
		if got != want {
			t.Errorf("nameOf(%q) = %q, want %q", host, got, want)
		}
		if got != "" && capacity.ValidName(got) != nil {
			t.Errorf("nameOf(%q) = %q, which no record takes", host, got)
		}
	}
}
