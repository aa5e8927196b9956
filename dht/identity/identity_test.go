package identity

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"weir/dht/dhttest"

	"github.com/libp2p/go-libp2p/core/crypto"
)

func TestMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Load(dir)
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

func TestCorruptFileIsAnErrorAndStays(t *testing.T) {
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
		"a file of no size": strings.Repeat("A", 2*maxSize),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("error %v, want one that names the file and says what to do", err)
			}
			if after, _ := os.ReadFile(path); string(after) != content {
				t.Error("the file was overwritten")
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	key := dhttest.Key(f)
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(base64.StdEncoding.EncodeToString(raw)))
	f.Add([]byte("aGVsbG8="))
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := parse(b); err == nil && key.Type() != crypto.Ed25519 {
			t.Fatalf("a %s key", key.Type())
		}
	})
}
