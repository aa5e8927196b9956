package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The reference that is kept in the repository is what the help texts say now.
func TestCommandReferenceIsUpToDate(t *testing.T) {
	kept, err := os.ReadFile("../../.github/docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(markdownManual(app()), "\n")
	for i, line := range strings.Split(string(kept), "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("line %d of .github/docs/commands.md is not what the help texts say: run make docs\n%s", i+1, line)
		}
	}
	if n := len(strings.Split(string(kept), "\n")); n != len(want) {
		t.Fatalf("commands.md ends at line %d of %d: run make docs", n, len(want))
	}
}

// The manual must not depend on the machine that it is made on.
func TestManualIsTheSameEverywhere(t *testing.T) {
	t.Setenv("HOME", "/home/one")
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("WEIR_HTTP", "")
	one := markdownManual(app())
	t.Setenv("HOME", "/home/another")
	t.Setenv("XDG_DATA_HOME", "/srv/data")
	t.Setenv("WEIR_HTTP", "192.0.2.1:80")
	if another := markdownManual(app()); one != another {
		t.Error("another home directory or environment makes another manual")
	}
	if strings.Contains(one, "/home/") {
		t.Error("the manual names a home directory")
	}
}

// Every command that help lists has a man page of its own, or is in that of the
// command above it; every flag is on it; and mandoc finds nothing to say.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	a := app()
	pages := manPages(a)
	if !strings.Contains(pages["weir.1"], `"2023-11-14"`) {
		t.Error("weir.1 has not the date of SOURCE_DATE_EPOCH")
	}
	var check func(page string, all []manualEntry)
	check = func(page string, all []manualEntry) {
		for _, e := range all {
			text := pages[page]
			if page == "" {
				name := strings.ReplaceAll(e.path, " ", "-")
				text = pages[name+".1"]
				if !strings.Contains(pages["weir.1"], ".BR "+roff(name)+" (1)\n") {
					t.Errorf("weir.1 does not name %s(1)", name)
				}
			}
			if !strings.Contains(text, "\n"+roff(e.synopsis)+"\n") && !strings.Contains(text, ".SS "+roff(e.synopsis)+"\n") && len(e.subs) == 0 {
				t.Errorf("no page has %q", e.synopsis)
			}
			for _, f := range e.flags {
				if !strings.Contains(text, `\fB`+roff(f.names[0])+`\fR`) {
					t.Errorf("the page of %s lacks %s", e.path, f.names[0])
				}
			}
			next := page
			if page == "" {
				next = strings.ReplaceAll(e.path, " ", "-") + ".1"
			}
			check(next, e.subs)
		}
	}
	check("", manualOf("weir", a.Commands))

	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed (testnet/deps.sh mandoc)")
	}
	dir := t.TempDir()
	args := []string{"-Tlint", "-W", "warning"}
	for name, page := range pages {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(mandoc, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
	// What it shows is the text, whatever characters that has.
	shown, err := exec.Command(mandoc, "-Tutf8", "-Owidth=400", filepath.Join(dir, "weir-node.1")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if plain := overstruck(string(shown)); !strings.Contains(plain, "--http HOST:PORT") || strings.Contains(plain, `\`) {
		t.Errorf("weir-node(1) reads %q", plain)
	}
}

// overstruck drops what makes letters bold on a typewriter.
func overstruck(s string) string {
	out := []rune{}
	for _, r := range s {
		if r == '\b' {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return string(out)
}

// Paragraphs are filled, and what is indented stays as it is.
func TestBlocksOfDescriptions(t *testing.T) {
	got := blocksOf("One line\nand another.\n\nThen:\n  weir a\n    deeper\n\n  weir b\nAnd on.")
	want := []textBlock{{"One line and another.", false}, {"Then:", false}, {"weir a\n  deeper", true}, {"weir b", true}, {"And on.", false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// No character of a text is a request, an escape, a cell or an emphasis.
func TestTextIsQuoted(t *testing.T) {
	if got, want := roffText(`.so a\b - 'c'`), `\&.so a\eb \- \(aqc\(aq`; got != want {
		t.Errorf("roff: %s, want %s", got, want)
	}
	long := roffText(strings.Repeat("x", 70) + " end. .PP " + strings.Repeat("y", 90))
	for line := range strings.Lines(long) {
		if strings.HasPrefix(line, ".") {
			t.Errorf("%q begins a request", line)
		}
	}
	if got, want := cell(plainMarkdown("a|b *c* <d> _e_")), `a\|b \*c\* &lt;d> \_e\_`; got != want {
		t.Errorf("Markdown: %s, want %s", got, want)
	}
}
