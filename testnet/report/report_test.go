package report

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for it")
	say := func(text string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}
	}
	if err := Write(dir, map[string]func(io.Writer) error{"a.md": say("one"), "b.svg": say("two")}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no figures")
	err := Write(dir, map[string]func(io.Writer) error{"a.md": func(w io.Writer) error {
		_ = say("half")(w)
		return broken
	}})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "a.md") {
		t.Errorf("got %v", err)
	}
	for name, want := range map[string]string{"a.md": "one", "b.svg": "two"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestHead(t *testing.T) {
	var b strings.Builder
	Head(&b, "nodes", "mode", "p50 / p99")
	if want := "| nodes | mode | p50 / p99 |\n| --- | --- | --- |\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}
