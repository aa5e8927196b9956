package policies

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const versionOne = "name: one\nversion: 1\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\nscore:\n  - {name: headroom, expr: 1 - r.stress}\n"

// A change of a policy's file is applied, and a mistake in it is not.
func TestPolicyFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(versionOne)
	var log strings.Builder
	f, err := Open(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	inForce := func(version uint64, says string) {
		t.Helper()
		log.Reset()
		_ = f.Reload()
		if got := f.Policy().Policy().Version; got != version {
			t.Errorf("version %d is in force, want %d", got, version)
		}
		if !strings.Contains(log.String(), says) || says == "" && log.Len() > 0 {
			t.Errorf("logged %q, want %q", log.String(), says)
		}
	}
	inForce(1, "")
	write(strings.Replace(versionOne, "version: 1", "version: 2", 1))
	inForce(2, "policy applied")
	inForce(2, "")
	write(strings.Replace(versionOne, "sessions_free", "sesions_free", 1))
	inForce(2, "policy.yaml:4:")
	inForce(2, "") // reported once
	write(strings.Replace(versionOne, "version: 1\n", "", 1))
	inForce(2, "it has no version")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	inForce(2, "")
	write(versionOne) // back to an older one: the operator's decision
	inForce(1, "policy applied")
}
