package identity

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"

	"weir/capacity/durable"
)

// fileName is the name of the private key inside a data directory.
const fileName = "identity.key"

// maxSize bounds the bytes read of it; a key takes 92.
const maxSize = 4 << 10

// Load returns the ed25519 key kept in dir/identity.key, and makes one if there
// is none. The file holds the key as libp2p marshals it, in base64, and only
// its owner may read it.
//
// A file without such a key is an error that says how to fix it; it is never
// overwritten.
func Load(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, fileName)
	key, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, _, err = crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate identity: %w", err)
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	err = durable.Create(path, []byte(base64.StdEncoding.EncodeToString(raw)+"\n"))
	if errors.Is(err, fs.ErrExist) {
		return read(path) // another process was faster
	}
	if err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	return key, nil
}

func read(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	key, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("identity file %s is not a node's private key (%w): restore it from a backup, or move it away to start with a new peer ID", path, err)
	}
	return key, nil
}

func parse(text []byte) (crypto.PrivKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, err
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%s key, want Ed25519", key.Type())
	}
	return key, nil
}
