package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

var named = regexp.MustCompile(`\bweir ((?:[a-z_]+ ?)+)((?: ?--?[a-z][a-z-]*(?:[ =][A-Z0-9%./:]+)?)*)`)

// Every command that errors, help and the console suggest must exist, with the
// flags given.
func TestCommandsInSentencesExist(t *testing.T) {
	checked := 0
	check := func(where, text string) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			words, flags := strings.Fields(m[1]), strings.Fields(m[2])
			known := commands()
			var command *cli.Command
			for _, w := range words {
				i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(w) })
				if i < 0 {
					if command != nil && len(command.Subcommands) > 0 && command.Action == nil && len(words) > 1 && strings.HasSuffix(strings.TrimSpace(m[0]), w) {
						t.Errorf("%s: there is no %q", where, m[0])
					}
					break
				}
				command, known = known[i], known[i].Subcommands
			}
			if command == nil {
				continue // a sentence about weir
			}
			checked++
			for _, f := range flags {
				name, _, _ := strings.Cut(f, "=")
				if strings.HasPrefix(name, "-") && name != "--help" && cmdline.FlagNamed(command.Flags, name) == nil {
					t.Errorf("%s: %q: weir %s has no flag %s", where, m[0], command.Name, name)
				}
			}
		}
	}
	files := token.NewFileSet()
	for _, dir := range []string{".", "web", "../../dht", "../../sfu", "../../testnet", "../../capacity"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			switch filepath.Ext(path) {
			case ".js", ".html":
				b, err := os.ReadFile(path)
				check(path, string(b))
				return err
			case ".go":
				f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
				if err != nil {
					return err
				}
				ast.Inspect(f, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						if s, err := strconv.Unquote(lit.Value); err == nil {
							check(files.Position(lit.Pos()).String(), s)
						}
					}
					return true
				})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	check("README.md", string(readme))
	if checked < 80 {
		t.Errorf("found %d commands only", checked)
	}
	t.Logf("%d commands are named", checked)
}

// Messages with flags and commands are made in cmd: dht and sfu name neither.
func TestNoFlagIsNamedBelow(t *testing.T) {
	names := make([]string, 0, len(commands()))
	for _, c := range commands() {
		names = append(names, regexp.QuoteMeta(c.Name))
	}
	told := regexp.MustCompile(`(^|\s)--[a-z]|\bweir (` + strings.Join(names, "|") + `)\b`)
	files := token.NewFileSet()
	for _, dir := range []string{"../../dht", "../../sfu"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && told.MatchString(strings.Trim(lit.Value, "`\"")) {
					t.Errorf("%s: %s", files.Position(lit.Pos()), lit.Value)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
