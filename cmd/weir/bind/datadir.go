package bind

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// DataDir makes dir and keeps other processes from using it until unlock:
// two nodes with one identity would replace each other in the network. The
// kernel unlocks when the process ends. The error wraps ErrInUse if another
// process has the lock.
//
// The lock is on the directory itself, so that a directory that cannot be
// written to is locked too.
func DataDir(dir string, log *slog.Logger) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	pidFile := filepath.Join(dir, "pid")
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		holder := "another process"
		if b, err := os.ReadFile(pidFile); err == nil && len(b) > 0 && len(b) < 20 {
			holder = "process " + strings.TrimSpace(string(b))
		}
		return nil, fmt.Errorf("--data-dir %s %w by %s: a directory is one node's identity; give each node its own", dir, ErrInUse, holder)
	case err != nil:
		log.Warn("data directory not locked: start no second node on it", "dir", dir, "err", err) // some network file systems
	}
	_ = os.WriteFile(pidFile, fmt.Appendln(nil, os.Getpid()), 0o644) // used only by the message above
	return f.Close, nil
}

var ErrInUse = errors.New("is in use")

// OwnDataDir is DataDir for weir node --dev without --data-dir: if dir is
// another node's, it takes the next one that is free, dir-2 and so on.
func OwnDataDir(dir string, log *slog.Logger) (_ string, unlock func() error, err error) {
	for i := 1; ; i++ {
		try := dir
		if i > 1 {
			try = fmt.Sprintf("%s-%d", dir, i)
		}
		unlock, err = DataDir(try, log)
		if errors.Is(err, ErrInUse) && i < portTries {
			continue
		}
		if err == nil && i > 1 {
			log.Info("data directory in use, another one used", "taken", dir, "used", try)
		}
		return try, unlock, err
	}
}
