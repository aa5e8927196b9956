package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A file is replaced atomically, with the requested mode, and nothing else is
// left behind.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for i, text := range []string{"first", "second"} {
		if err := Replace(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("write %d left %q, mode %v", i, got, info.Mode())
		}
	}
	if err := Replace(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("written where there is no directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
}

// An existing file stays as it is.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Create(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created again: %v", err)
	}
	got, err := os.ReadFile(path)
	if info, statErr := os.Stat(path); err != nil || statErr != nil || string(got) != "first" || info.Mode().Perm() != 0o600 {
		t.Errorf("it has %q, %v", got, err)
	}
}
