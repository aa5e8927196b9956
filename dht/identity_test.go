package dht

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	first, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equals(second) || first.Type() != crypto.Ed25519 {
		t.Error("the second start has another identity")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v; want the key only", len(entries), err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestCorruptIdentityIsAnErrorAndStays(t *testing.T) {
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaBytes, err := crypto.MarshalPrivateKey(rsa)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"empty":             "",
		"not base64":        "hello, world!",
		"not a key":         "aGVsbG8=",
		"of another kind":   base64.StdEncoding.EncodeToString(rsaBytes),
		"a file of no size": strings.Repeat("A", 2*maxIdentityFile),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, identityFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(dir)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("error %v, want one that names the file and says what to do", err)
			}
			if after, _ := os.ReadFile(path); string(after) != content {
				t.Error("the file was overwritten")
			}
		})
	}
}

func FuzzParseIdentity(f *testing.F) {
	raw, err := crypto.MarshalPrivateKey(newKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(base64.StdEncoding.EncodeToString(raw)))
	f.Add([]byte("aGVsbG8="))
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := parseIdentity(b); err == nil && key.Type() != crypto.Ed25519 {
			t.Fatalf("a %s key", key.Type())
		}
	})
}

// A file is replaced whole, with the mode that was asked for, and leaves
// nothing beside it.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for i, text := range []string{"first", "second"} {
		if err := ReplaceFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("write %d left %q, mode %v", i, got, info.Mode())
		}
	}
	if err := ReplaceFile(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("written where there is no directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
}
