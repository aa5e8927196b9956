package bind

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/multiformats/go-multiaddr"

	"weir/capacity/durable"
)

const (
	// DefaultPort is the port of --listen, if it was not set explicitly.
	DefaultPort = 4001
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

// Free binds addr. If its port is taken and addr was not set explicitly, it
// binds the same host with the next free port.
func Free[T any](log *slog.Logger, flag, addr string, asked bool, bind func(addr string) (T, error)) (T, error) {
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

// Loopback returns the default of --listen with another port.
func Loopback(port int) []multiaddr.Multiaddr {
	return []multiaddr.Multiaddr{
		multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)),
		multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)),
	}
}

// Libp2p binds libp2p by bind: to asked if that was set explicitly;
// otherwise to the port of the last start in this data directory, to the
// default one, or to the next free one.
func Libp2p[T any](asked []multiaddr.Multiaddr, dataDir string, log *slog.Logger, bind func([]multiaddr.Multiaddr) (T, error)) (T, error) {
	if asked != nil {
		return bind(asked)
	}
	path := filepath.Join(dataDir, portFile)
	ports := nextPorts(DefaultPort, 1)
	last := 0
	if b, err := os.ReadFile(path); err == nil {
		if last, err = strconv.Atoi(strings.TrimSpace(string(b))); err == nil && last > 0 && last < 1<<16 {
			ports = append([]int{last}, ports...)
		}
	}
	for i, p := range ports {
		bound, err := bind(Loopback(p))
		if errors.Is(err, syscall.EADDRINUSE) && p != 0 {
			continue
		}
		if err != nil {
			return bound, err
		}
		if i > 0 {
			log.Info("port taken, another one used", "flag", "--listen", "taken", ports[0], "used", p)
		}
		if p != last && p != 0 {
			if err := durable.Replace(path, fmt.Appendln(nil, p), 0o600); err != nil {
				log.Debug("port not remembered", "err", err) // an unwritable directory is reported elsewhere
			}
		}
		return bound, nil
	}
	panic("unreachable: port 0 is never taken")
}
