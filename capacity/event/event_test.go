package event

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every kind that a node reports must be in the list, from which the log, weir
// events and the console are made.
func TestEveryKindIsListed(t *testing.T) {
	listed := map[Kind]bool{}
	for _, d := range List() {
		if listed[d.Kind] || d.Doc == "" {
			t.Errorf("%s is listed twice, or without a word", d.Kind)
		}
		listed[d.Kind] = true
	}
	consts, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Kind = "([^"]+)"`).FindAllStringSubmatch(string(consts), -1) {
		if !listed[Kind(m[1])] {
			t.Errorf("%s is not listed", m[1])
		}
	}
	spelled := regexp.MustCompile(`\bKind: +"([^"]+)"[,}]`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), "Event{") {
			return err
		}
		for _, m := range spelled.FindAllStringSubmatch(string(b), -1) {
			if !listed[Kind(m[1])] {
				t.Errorf("%s tells of %q, which is not listed", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
