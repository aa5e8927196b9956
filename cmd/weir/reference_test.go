package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

// The command reference in the repository matches the help texts.
func TestCommandReferenceIsUpToDate(t *testing.T) {
	kept, err := os.ReadFile("../../.github/docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(cmdline.Markdown(app()), "\n")
	for i, line := range strings.Split(string(kept), "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("line %d of .github/docs/commands.md is not what the help texts say: run make docs\n%s", i+1, line)
		}
	}
	if n := len(strings.Split(string(kept), "\n")); n != len(want) {
		t.Fatalf("commands.md ends at line %d of %d: run make docs", n, len(want))
	}
}

// The manual must not depend on the machine that builds it.
func TestManualIsTheSameEverywhere(t *testing.T) {
	t.Setenv("HOME", "/home/one")
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("WEIR_HTTP", "")
	one := cmdline.Markdown(app())
	t.Setenv("HOME", "/home/another")
	t.Setenv("XDG_DATA_HOME", "/srv/data")
	t.Setenv("WEIR_HTTP", "192.0.2.1:80")
	if another := cmdline.Markdown(app()); one != another {
		t.Error("another home directory or environment makes another manual")
	}
	if strings.Contains(one, "/home/") {
		t.Error("the manual names a home directory")
	}
}

// Every command in help has a man page of its own, or is in that of its parent;
// every flag is on it; and mandoc reports nothing.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	a := app()
	pages := cmdline.ManPages(a)
	if !strings.Contains(pages["weir.1"], `"2023-11-14"`) {
		t.Error("weir.1 has not the date of SOURCE_DATE_EPOCH")
	}
	quoted := strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace
	var check func(page, path string, all []*cli.Command)
	check = func(page, path string, all []*cli.Command) {
		for _, c := range all {
			if c.Hidden {
				continue
			}
			under, text := path+" "+c.Name, pages[page]
			next := page
			if page == "" {
				name := strings.ReplaceAll(under, " ", "-")
				next, text = name+".1", pages[name+".1"]
				if !strings.Contains(pages["weir.1"], ".BR "+quoted(name)+" (1)\n") {
					t.Errorf("weir.1 does not name %s(1)", name)
				}
			}
			synopsis := under
			if len(c.Flags) > 0 {
				synopsis += " [options]"
			}
			synopsis = quoted(strings.TrimSpace(synopsis + " " + c.ArgsUsage))
			if !strings.Contains(text, "\n"+synopsis+"\n") && !strings.Contains(text, ".SS "+synopsis+"\n") && len(c.Subcommands) == 0 {
				t.Errorf("no page has %q", synopsis)
			}
			for _, f := range c.Flags {
				name := "--" + f.Names()[0]
				if len(f.Names()[0]) == 1 {
					name = name[1:]
				}
				if !strings.Contains(text, `\fB`+quoted(name)+`\fR`) {
					t.Errorf("the page of %s lacks %s", under, name)
				}
			}
			check(next, under, c.Subcommands)
		}
	}
	check("", "weir", a.Commands)

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
	// The page shows the text exactly, with all its characters.
	shown, err := exec.Command(mandoc, "-Tutf8", "-Owidth=400", filepath.Join(dir, "weir-node.1")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if plain := overstruck(string(shown)); !strings.Contains(plain, "--http HOST:PORT") || strings.Contains(plain, `\`) {
		t.Errorf("weir-node(1) reads %q", plain)
	}
}

// overstruck removes the backspaces that make letters bold.
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
