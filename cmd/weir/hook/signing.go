package hook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxKeyFile bounds a file of keys, in bytes, and maxKeys the number of
	// keys: each makes a signature.
	maxKeyFile = 4 << 10
	maxKeys    = 4
	// minKey is the minimum length of a key, in bytes: a key that can be
	// guessed protects nothing.
	minKey = 16
	// keyPrefix marks a key written in base64.
	keyPrefix = "whsec_"
)

// SigningKeys sign webhooks by the Standard Webhooks specification: HMAC-SHA256
// over ID, time and body, so that receivers can verify the sender, and reject
// replays.
//
// The file has a key on each line, and is read again when it has changed. While
// keys are being rotated both are in it, and everything is signed with both.
type SigningKeys struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	changed time.Time // of the file, when last read
	size    int64
	broken  bool // the file could not be read again; logged once
	keys    [][]byte
}

// NewSigningKeys reads the file. Its errors never contain any of the file's text.
func NewSigningKeys(path string, log *slog.Logger) (*SigningKeys, error) {
	k := &SigningKeys{path: path, log: log}
	return k, k.read()
}

// read reads the file if it has changed. On an error the keys stay.
func (k *SigningKeys) read() error {
	f, err := os.Open(k.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.ModTime().Equal(k.changed) && info.Size() == k.size {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return err
	}
	keys, err := parseKeys(b)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.keys, k.changed, k.size = keys, info.ModTime(), info.Size()
	return nil
}

func parseKeys(b []byte) ([][]byte, error) {
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("more than %d bytes: want a key on each line", maxKeyFile)
	}
	var keys [][]byte
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key := []byte(text)
		if encoded, ok := strings.CutPrefix(text, keyPrefix); ok {
			var err error
			if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("line %d: what follows %s is not base64", n, keyPrefix)
			}
		}
		if len(key) < minKey {
			return nil, fmt.Errorf("line %d: a key of %d bytes, want at least %d: openssl rand -base64 32", n, len(key), minKey)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("there is no key in it: openssl rand -base64 32 makes one")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("%d keys: at most %d", len(keys), maxKeys)
	}
	return keys, nil
}

// current are the keys as of now.
func (k *SigningKeys) current() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.read()
	if err != nil && !k.broken {
		k.log.Warn("keys of webhooks not read again; those before stay in force", "err", err)
	}
	k.broken = err != nil
	return k.keys
}

// sign adds the signature headers for a body sent at now.
func (k *SigningKeys) sign(h http.Header, id string, body []byte, now time.Time) {
	at := strconv.FormatInt(now.Unix(), 10)
	var all []string
	for _, key := range k.current() {
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.", id, at)
		_, _ = mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", at)
	h.Set("Webhook-Signature", strings.Join(all, " "))
}
