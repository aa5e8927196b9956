package cmdline

import "testing"

func TestShellWords(t *testing.T) {
	for in, want := range map[string]string{"dev": "dev", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := ShellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
}
