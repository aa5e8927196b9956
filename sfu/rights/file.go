package rights

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"weir/capacity/event"
)

// fresh is how long after a change a file is read at every check: a second
// change soon after may leave no trace in its times.
const fresh = 2 * time.Second

// A file is read again when it changes. Its earlier content stays in force
// while it cannot be read or is invalid, which is logged once for each such
// content.
type file struct {
	path  string
	most  int                            // bytes
	take  func(b []byte) (string, error) // applies the content, and describes it in words
	event func(event.Event)

	mu      sync.Mutex // held while the file is read
	info    fs.FileInfo
	readAt  time.Time
	content []byte
	missing bool   // logged that the file is missing
	bad     bool   // content is invalid
	words   string // description of the first content

	good, failed atomic.Uint64
	last         atomic.Int64 // Unix ms of the last good read
	failing      atomic.Bool  // the current content cannot be applied
}

// first reads the file for the first time.
func (f *file) first() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.read(time.Now())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no such file", f.path)
	}
	if err == nil {
		if f.words, err = f.take(f.content); err != nil {
			err = fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if err == nil {
		f.good.Add(1)
		f.last.Store(time.Now().UnixMilli())
	}
	return err
}

// reload reads it again if it has changed.
func (f *file) reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := f.read(time.Now())
	if err != nil {
		if !f.missing {
			f.missing = true
			f.refused(err.Error())
		}
		return
	}
	back := f.missing
	f.missing = false
	if !changed {
		if back {
			f.failing.Store(f.bad)
		}
		return
	}
	what, err := f.take(f.content)
	if f.bad = err != nil; f.bad {
		f.refused(fmt.Sprintf("%s: %v", f.path, err))
		return
	}
	f.failing.Store(false)
	f.good.Add(1)
	f.last.Store(time.Now().UnixMilli())
	f.event(event.Event{Kind: event.KeysApplied, Detail: f.path + ": " + what})
}

func (f *file) refused(why string) {
	f.failed.Add(1)
	f.failing.Store(true)
	f.event(event.Event{Kind: event.KeysRefused, Detail: why + "; what was in force stays in force"})
}

// read reads the file into f.content and reports whether the content has
// changed.
func (f *file) read(now time.Time) (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return false, err
	}
	if f.info != nil && os.SameFile(info, f.info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) &&
		f.readAt.Sub(info.ModTime()) > fresh {
		return false, nil
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: not a regular file", f.path)
	}
	h, err := os.Open(f.path)
	if err != nil {
		return false, err
	}
	defer h.Close()
	b, err := io.ReadAll(io.LimitReader(h, int64(f.most)+1))
	if err != nil {
		return false, err
	}
	changed = f.info == nil || !bytes.Equal(b, f.content)
	f.info, f.readAt, f.content = info, now, b
	return changed, nil
}

// open reports whether other users than the file's owner can read it.
func (f *file) open() bool { return f.info != nil && f.info.Mode().Perm()&0o077 != 0 }

// readable is the warning for a secret that other users can read.
const readable = "it holds a secret, and others than its owner can read it: chmod 600 keeps them from it"

// A keyFile is a JWK set in a file.
type keyFile struct {
	file
	set atomic.Pointer[KeySet]
}

func newKeyFile(path string, tell func(event.Event)) (*keyFile, error) {
	k := &keyFile{file: file{path: path, most: MaxKeySet, event: tell}}
	k.take = func(b []byte) (string, error) {
		set, err := ParseKeys(b, true)
		if err != nil {
			return "", err
		}
		k.set.Store(set)
		if k.open() && set.Secret() {
			return inWords(set) + "; " + readable, nil
		}
		return inWords(set), nil
	}
	return k, k.first()
}

func inWords(set *KeySet) string {
	s := fmt.Sprintf("%d keys are in force", set.Len())
	if set.Len() == 1 {
		s = "1 key is in force"
	}
	if n := len(set.Skipped); n > 0 {
		s += fmt.Sprintf("; %d skipped: %s", n, set.Skipped[0])
	}
	return s
}

func (k *keyFile) status() Source {
	return Source{Name: "file", Keys: k.set.Load().Len(), Read: time.UnixMilli(k.last.Load()), Good: k.good.Load(), Failed: k.failed.Load(), Failing: k.failing.Load()}
}
