package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"weir/capacity/durable"
	"weir/dht/directory"
)

const (
	stateFile = "testnet.json"
	// lockFile is locked while the nodes of a directory are started or ended.
	// It stays, and marks the directory as one that Up may clear.
	lockFile     = "testnet.lock"
	stateVersion = 1
)

var nodeDir = regexp.MustCompile(`^n[1-9][0-9]*$`)

// state is the content of testnet.json.
type state struct {
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	Binary  string    `json:"binary"`
	Nodes   []Node    `json:"nodes"`

	// The discovery mode, unless it is the DHT, and the number of nodes, from
	// the first on, in the list of servers; 0: all.
	Discovery directory.Mode `json:"discovery,omitempty"`
	Brokers   int            `json:"brokers,omitempty"`

	TLS bool `json:"tls,omitempty"` // nodes speak https

	AddFlags []string `json:"add_flags,omitempty"` // of nodes added later
}

// listed reports whether the nodes are given a list of servers.
func (s state) listed() bool { return s.Discovery.Listed() }

// serverFile is the list of servers in a testnet's directory.
const serverFile = "servers"

// writeServers replaces the list of servers. Nodes that are not ready yet are
// not in it.
func writeServers(dir string, s state) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# The servers of --discovery %s, for weir node --server-list\n", s.Discovery)
	for i, n := range s.Nodes {
		if s.Brokers > 0 && i >= s.Brokers {
			break
		}
		for _, a := range n.P2P {
			fmt.Fprintf(&b, "%s # %s\n", a, n.Name)
		}
	}
	return durable.Replace(filepath.Join(dir, serverFile), []byte(b.String()), 0o644)
}

// readState returns fs.ErrNotExist if dir has no testnet.
func readState(dir string) (state, error) {
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, syscall.ENOTDIR) {
		return state{}, fmt.Errorf("%w: %s is not a directory", ErrInput, dir)
	}
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, fmt.Errorf("%s is damaged (%w): end its nodes by hand, if any run, and delete it", path, err)
	}
	if s.Version != stateVersion {
		return state{}, fmt.Errorf("%s has version %d, this weir knows %d: use the weir that wrote it", path, s.Version, stateVersion)
	}
	return s, nil
}

// writeState replaces the state so that a reader sees the old or the new one.
func writeState(dir string, s state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, stateFile), append(b, '\n'), 0o644)
}

func removeState(dir string) error {
	for _, name := range []string{serverFile, stateFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lock locks dir and returns the function that unlocks it. The kernel unlocks
// if this process dies.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another process is starting or ending the nodes in %s", ErrBusy, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// claim prepares dir for a new testnet and locks it. Logs and data of an
// earlier one are deleted. A directory with anything else in it is left alone.
func claim(dir string) (unlock func(), err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w: %s is not a directory", ErrInput, dir)
	case err != nil:
		return nil, err
	case len(entries) > 0:
		if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
			return nil, fmt.Errorf("%w: %s has other files in it: name a directory that is empty, new, or an earlier testnet's", ErrInput, dir)
		}
	}
	if unlock, err = lock(dir); err != nil {
		return nil, err
	}
	if err := clearDir(dir, entries); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// clearDir removes what an earlier testnet left in dir, unless it runs.
func clearDir(dir string, entries []fs.DirEntry) error {
	s, err := readState(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	running := 0
	for _, n := range s.Nodes {
		if alive(n.PID, n.Start) {
			running++
		}
	}
	if running > 0 {
		return fmt.Errorf("%w: %d of its %d nodes run in %s: end them first (weir testnet down --dir %s)", ErrBusy, running, len(s.Nodes), dir, dir)
	}
	if err := removeState(dir); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && nodeDir.MatchString(e.Name()) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
