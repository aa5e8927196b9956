// Command licences prints the licences of all modules in a Go binary, and of Go
// itself, each text once. It fails if a module has none.
package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

// named matches the files that licences require to be distributed.
var named = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([-._].*)?$`)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: licences BINARY")
		os.Exit(3)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(binary string, w io.Writer) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	env, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	dirs := strings.Split(strings.TrimSpace(string(env)), "\n")
	if len(dirs) != 2 {
		return fmt.Errorf("go env printed %q", env)
	}
	type text struct {
		of   []string
		body []byte
	}
	texts := map[[sha256.Size]byte]*text{}
	add := func(name, dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		found := false
		for _, e := range entries {
			if e.IsDir() || !named.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			body, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			found = true
			sum := sha256.Sum256(body)
			if texts[sum] == nil {
				texts[sum] = &text{body: body}
			}
			texts[sum].of = append(texts[sum].of, fmt.Sprintf("%s (%s)", name, e.Name()))
		}
		if !found {
			return fmt.Errorf("%s has no licence in %s: may it be passed on?", name, dir)
		}
		return nil
	}
	if err := add("Go "+info.GoVersion, dirs[0]); err != nil {
		return err
	}
	for _, m := range info.Deps {
		if err := add(m.Path+" "+m.Version, dirOf(m, dirs[1])); err != nil {
			return err
		}
	}
	all := slices.SortedFunc(maps.Values(texts), func(a, b *text) int { return cmp.Compare(a.of[0], b.of[0]) })
	for _, t := range all {
		if _, err := fmt.Fprintf(w, "%s\n%s\n%s\n%s\n\n", rule, strings.Join(t.of, "\n"), rule, strings.TrimRight(string(t.body), "\n")); err != nil {
			return err
		}
	}
	return nil
}

var rule = strings.Repeat("=", 78)

// dirOf is the directory of m in the module cache.
func dirOf(m *debug.Module, cache string) string {
	if m.Replace != nil {
		m = m.Replace
	}
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return m.Path
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return m.Path
	}
	return filepath.Join(cache, path+"@"+version)
}
