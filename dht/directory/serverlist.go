package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	maxServerFile  = 1 << 20 // bytes
	maxServers     = 4_096
	maxServerAddrs = 16 // of one server
	maxServerLine  = 1_024
	// serverFileCheck is how often the file is checked.
	serverFileCheck = time.Second
	// serverFileFresh is how long after a change the file is read at every
	// check: a second change at once may leave its times as they are.
	serverFileFresh = 2 * time.Second
)

// ParseServer parses a listed server's address, which ends in /p2p/ and its
// peer ID.
func ParseServer(s string) (peer.AddrInfo, error) { return ParseAddr("server address", s) }

// ParseServers parses a list of servers: each line is one multiaddr that ends
// in /p2p/ and a peer ID, or empty; # begins a comment. A peer may have several
// lines. The servers are in the order of their first lines. An error begins
// with name and, if it is about one line, the line's number.
func ParseServers(name string, b []byte) ([]peer.AddrInfo, error) {
	if len(b) > maxServerFile {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxServerFile)
	}
	var list serverSet
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if len(line) > maxServerLine {
			return nil, fmt.Errorf("%s:%d: %d bytes: an address has at most %d", name, number, len(line), maxServerLine)
		}
		ai, err := ParseServer(line)
		if err == nil {
			err = list.add(ai)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, number, err)
		}
	}
	return list.servers, nil
}

// serverSet gathers servers, each once.
type serverSet struct {
	servers []peer.AddrInfo
	at      map[peer.ID]int
}

func (s *serverSet) add(ai peer.AddrInfo) error {
	i, known := s.at[ai.ID]
	if !known {
		if len(s.servers) == maxServers {
			return fmt.Errorf("more than %d servers", maxServers)
		}
		if s.at == nil {
			s.at = make(map[peer.ID]int)
		}
		i = len(s.servers)
		s.at[ai.ID] = i
		s.servers = append(s.servers, peer.AddrInfo{ID: ai.ID})
	}
	has := &s.servers[i]
	for _, a := range ai.Addrs {
		if slices.ContainsFunc(has.Addrs, a.Equal) {
			continue
		}
		if len(has.Addrs) == maxServerAddrs {
			return fmt.Errorf("more than %d addresses of %s", maxServerAddrs, ai.ID)
		}
		has.Addrs = append(has.Addrs, a)
	}
	return nil
}

// EachOnce merges the entries of each peer. It keeps a bounded number of
// addresses per peer.
func EachOnce(peers []peer.AddrInfo) []peer.AddrInfo {
	var set serverSet
	for _, ai := range peers {
		_ = set.add(ai)
	}
	return set.servers
}

// A ServerList lists the servers of a mode that is [Mode.Listed]: fixed ones,
// and those of a file, which [ServerList.Run] reads again when it has changed.
type ServerList struct {
	fixed []peer.AddrInfo
	path  string // "": no file
	log   *slog.Logger

	// State of the last read, which belongs to the constructor and then to Run.
	info    fs.FileInfo
	readAt  time.Time
	content []byte
	missing bool

	mu      sync.Mutex
	servers []peer.AddrInfo // replaced as a whole
}

// NewServerList returns the list of fixed and of the servers in the file at
// path; "" means no file. Log may be nil.
func NewServerList(fixed []peer.AddrInfo, path string, log *slog.Logger) (*ServerList, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &ServerList{fixed: fixed, path: path, log: log}
	if path == "" {
		return l, l.set(nil)
	}
	if _, err := l.read(time.Now()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: no such file: create it, empty if the servers are not known yet", path)
		}
		return nil, err
	}
	servers, err := ParseServers(path, l.content)
	if err != nil {
		return nil, err
	}
	return l, l.set(servers)
}

// Servers are the servers currently listed. The caller does not change them.
func (l *ServerList) Servers() []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.servers
}

// Run reads the file again whenever it has changed, until ctx is done, and
// returns ctx.Err(). It calls changed after a change of the list. A faulty or
// missing file leaves the list as it was, and is logged once. Run is called
// once and starts no goroutines.
func (l *ServerList) Run(ctx context.Context, changed func()) error {
	if l.path == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(serverFileCheck)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if l.reread(now) {
				changed()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reread reports whether the list has changed.
func (l *ServerList) reread(now time.Time) bool {
	const kept = "list of servers not read again: what it said before stays in force"
	fresh, err := l.read(now)
	if err != nil {
		if !l.missing {
			l.missing = true
			l.log.Warn(kept, "err", err)
		}
		return false
	}
	if l.missing {
		l.missing = false
		l.log.Info("list of servers can be read again", "file", l.path)
	}
	if !fresh {
		return false
	}
	servers, err := ParseServers(l.path, l.content)
	if err == nil {
		err = l.set(servers)
	}
	if err != nil {
		l.log.Warn(kept, "err", err)
		return false
	}
	l.log.Info("list of servers read again", "file", l.path, "servers", len(l.Servers()))
	return true
}

// read reads the file into l.content and reports whether it has changed.
func (l *ServerList) read(now time.Time) (fresh bool, err error) {
	info, err := os.Stat(l.path)
	if err != nil {
		return false, err
	}
	if l.info != nil && os.SameFile(info, l.info) && info.Size() == l.info.Size() && info.ModTime().Equal(l.info.ModTime()) &&
		l.readAt.Sub(info.ModTime()) > serverFileFresh {
		return false, nil
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: not a regular file", l.path)
	}
	f, err := os.Open(l.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxServerFile+1))
	if err != nil {
		return false, fmt.Errorf("%s: %w", l.path, err)
	}
	fresh = l.info == nil || !bytes.Equal(b, l.content)
	l.info, l.readAt, l.content = info, now, b
	return fresh, nil
}

// set makes the fixed servers and those of the file the list.
func (l *ServerList) set(ofFile []peer.AddrInfo) error {
	var list serverSet
	for _, ai := range slices.Concat(l.fixed, ofFile) {
		if err := list.add(ai); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = list.servers
	return nil
}

// ParseAddr parses an address that ends in /p2p/ and a peer ID. Errors begin
// with what, the purpose of the address.
func ParseAddr(what, s string) (peer.AddrInfo, error) {
	a, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("%s %.200q is not a multiaddr such as /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…: %w", what, s, err)
	}
	if _, err := a.ValueForProtocol(multiaddr.P_P2P); err != nil {
		return peer.AddrInfo{}, fmt.Errorf("%s %.200q lacks the peer ID: append /p2p/ and the ID, which the other node prints at start, keeps in its ready file as peer_id and shows in its status", what, s)
	}
	info, err := peer.AddrInfoFromP2pAddr(a)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("%s %.200q: %w", what, s, err)
	}
	if len(info.Addrs) == 0 {
		return peer.AddrInfo{}, fmt.Errorf("%s %.200q says who but not where: put an address such as /ip4/192.0.2.1/tcp/4001 before /p2p/", what, s)
	}
	return *info, nil
}
