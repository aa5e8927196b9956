package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/multiformats/go-multiaddr"

	"weir/capacity/durable"
)

const (
	// portTries is how many ports are tried before any free one is taken. It
	// applies to addresses that were not set explicitly.
	portTries = 32
	// portStep keeps the ports of one node together: 8090, 8091 and 8092 belong
	// to the second node on a machine.
	portStep = 10
	// portFile keeps the libp2p port of the last start, in the data directory:
	// other nodes remember this node's address.
	portFile = "port"
)

// given says which addresses were set explicitly. An address that was not may
// get another port if its own is taken.
type given struct{ listen, http, admin, media bool }

// bindFree binds addr. If its port is taken and addr was not set explicitly, it
// binds the same host with the next free port.
func bindFree[T any](log *slog.Logger, flag, addr string, asked bool, bind func(addr string) (T, error)) (T, error) {
	bound, err := bind(addr)
	if asked || !errors.Is(err, syscall.EADDRINUSE) {
		return bound, err
	}
	host, port, _ := net.SplitHostPort(addr) // addr is valid: only its port was taken
	first, parseErr := strconv.Atoi(port)
	if parseErr != nil {
		return bound, err
	}
	for _, p := range nextPorts(first+portStep, portStep) {
		next := net.JoinHostPort(host, strconv.Itoa(p))
		if bound, err = bind(next); err == nil {
			log.Info("port taken, another one used", "flag", flag, "taken", addr, "used", next)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return bound, err
		}
	}
	return bound, err
}

// nextPorts returns the ports from first on, and 0 for any free port at the end.
func nextPorts(first, step int) []int {
	var all []int
	for p := first; len(all) < portTries && p < 1<<16; p += step {
		all = append(all, p)
	}
	return append(all, 0)
}

// listenOn returns the default of --listen with another port.
func listenOn(port int) []multiaddr.Multiaddr {
	return []multiaddr.Multiaddr{
		multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)),
		multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)),
	}
}

// listenFree binds libp2p by bind: to cfg.listen if that was set explicitly;
// otherwise to the port of the last start in this data directory, to the
// default one, or to the next free one.
func listenFree[T any](cfg nodeConfig, bind func([]multiaddr.Multiaddr) (T, error)) (T, error) {
	if cfg.given.listen {
		return bind(cfg.listen)
	}
	path := filepath.Join(cfg.dataDir, portFile)
	ports := nextPorts(defaultListenPort, 1)
	last := 0
	if b, err := os.ReadFile(path); err == nil {
		if last, err = strconv.Atoi(strings.TrimSpace(string(b))); err == nil && last > 0 && last < 1<<16 {
			ports = append([]int{last}, ports...)
		}
	}
	for i, p := range ports {
		bound, err := bind(listenOn(p))
		if errors.Is(err, syscall.EADDRINUSE) && p != 0 {
			continue
		}
		if err != nil {
			return bound, err
		}
		if i > 0 {
			cfg.log.Info("port taken, another one used", "flag", "--listen", "taken", ports[0], "used", p)
		}
		if p != last && p != 0 {
			if err := durable.Replace(path, fmt.Appendln(nil, p), 0o600); err != nil {
				cfg.log.Debug("port not remembered", "err", err) // an unwritable directory is reported elsewhere
			}
		}
		return bound, nil
	}
	panic("unreachable: port 0 is never taken")
}

// lockDataDir makes dir and keeps other processes from using it until unlock:
// two nodes with one identity would replace each other in the network. The
// kernel unlocks when the process ends. The error wraps errDirInUse if another
// process has the lock.
//
// The lock is on the directory itself, so that a directory that cannot be
// written to is locked too.
func lockDataDir(dir string, log *slog.Logger) (unlock func() error, err error) {
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
		return nil, fmt.Errorf("--data-dir %s %w by %s: a directory is one node's identity; give each node its own", dir, errDirInUse, holder)
	case err != nil:
		log.Warn("data directory not locked: start no second node on it", "dir", dir, "err", err) // some network file systems
	}
	_ = os.WriteFile(pidFile, fmt.Appendln(nil, os.Getpid()), 0o644) // used only by the message above
	return f.Close, nil
}

var errDirInUse = errors.New("is in use")

// lockOwnDir is lockDataDir for weir node --dev without --data-dir: if dir is
// another node's, it takes the next one that is free, dir-2 and so on.
func lockOwnDir(dir string, log *slog.Logger) (_ string, unlock func() error, err error) {
	for i := 1; ; i++ {
		try := dir
		if i > 1 {
			try = fmt.Sprintf("%s-%d", dir, i)
		}
		unlock, err = lockDataDir(try, log)
		if errors.Is(err, errDirInUse) && i < portTries {
			continue
		}
		if err == nil && i > 1 {
			log.Info("data directory in use, another one used", "taken", dir, "used", try)
		}
		return try, unlock, err
	}
}

// machineAddrs are the addresses of this machine that others may reach, IPv4
// before IPv6. Loopback and link-local addresses are left out.
func machineAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		prefix, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(prefix.IP)
		if ip = ip.Unmap(); !ok || !ip.IsGlobalUnicast() {
			continue
		}
		if ip.Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	return append(v4, v6...), nil
}

// onlyAddr returns the address to give to clients when a wildcard binds all of
// addrs. Several IPv4 addresses are ambiguous: the error names them. IPv6
// addresses count only if there is no IPv4 one.
func onlyAddr(addrs []netip.Addr) (netip.Addr, error) {
	if len(addrs) == 0 {
		return netip.Addr{}, errors.New("this machine has no address that others can reach")
	}
	same := []string{addrs[0].String()}
	for _, a := range addrs[1:] {
		if a.Is4() == addrs[0].Is4() {
			same = append(same, a.String())
		}
	}
	if len(same) > 1 {
		return netip.Addr{}, fmt.Errorf("this machine has several addresses (%s)", strings.Join(same, ", "))
	}
	return addrs[0], nil
}
