package cmdline

import "testing"

func TestTypos(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"node", "node", 0}, {"nod", "node", 1}, {"stauts", "status", 1}, {"lsit", "list", 1}, {"abc", "", 3}, {"kitten", "sitting", 3}} {
		if got := typos(c.a, c.b); got != c.want {
			t.Errorf("typos(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
