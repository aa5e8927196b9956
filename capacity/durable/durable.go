// Package durable writes files atomically, even if the machine loses power: a
// reader finds the old content or the new one.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Create makes the file at path atomically with content b, readable by its
// owner only. The error wraps fs.ErrExist if there is such a file already.
func Create(path string, b []byte) error {
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

// Replace replaces path's content by b atomically, even if the machine loses
// power: file and directory are synced.
func Replace(path string, b []byte, mode os.FileMode) error {
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
		err = nil // the file system does not support it
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
