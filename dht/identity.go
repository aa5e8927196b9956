package dht

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
	"syscall"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// identityFile is the name of the private key inside a data directory.
const identityFile = "identity.key"

// maxIdentityFile bounds what is read of it, in bytes; a key takes 92.
const maxIdentityFile = 4 << 10

// LoadIdentity returns the ed25519 key kept in dir/identity.key, and makes one
// if there is none. The file holds the key as libp2p marshals it, in base64,
// and only its owner may read it.
//
// A file that does not hold such a key is an error that says what to do about
// it; it is never overwritten.
func LoadIdentity(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, identityFile)
	key, err := readIdentity(path)
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
	err = writeNew(path, []byte(base64.StdEncoding.EncodeToString(raw)+"\n"))
	if errors.Is(err, fs.ErrExist) {
		return readIdentity(path) // another process was faster
	}
	if err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	return key, nil
}

func readIdentity(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxIdentityFile))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	key, err := parseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("identity file %s is not a node's private key (%w): restore it from a backup, or move it away to start with a new peer ID", path, err)
	}
	return key, nil
}

func parseIdentity(text []byte) (crypto.PrivKey, error) {
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

// writeNew creates path with all of b or not at all, readable by its owner
// only. The error wraps fs.ErrExist if there is such a file already.
func writeNew(path string, b []byte) error {
	temp, err := writeTemp(path, b)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReplaceFile puts b in the place of path's content, whole or not at all, also
// if the machine loses power: file and directory are synced.
func ReplaceFile(path string, b []byte, mode os.FileMode) error {
	temp, err := writeTemp(path, b)
	if err != nil {
		return err
	}
	if err = os.Chmod(temp, mode); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		err = nil // a file system without it
	}
	return errors.Join(err, d.Close())
}

// writeTemp writes b to a new file beside path, synced, with mode 0600.
func writeTemp(path string, b []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}
