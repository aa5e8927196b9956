package bind

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"weir/sfu/udp"
)

// Media binds the UDP socket of all media to addr, see [Free].
func Media(log *slog.Logger, addr string, asked bool) (*udp.Socket, error) {
	socket, err := Free(log, "--media-port", addr, asked, udp.Listen)
	if err != nil {
		return nil, fmt.Errorf("--media-port: %w", err)
	}
	return socket, nil
}

// TCP binds addr, the value of flag, see [Free]. Its error says what to do if the
// port is in use or needs a privilege.
func TCP(log *slog.Logger, addr, flag string, asked bool) (net.Listener, error) {
	return Free(log, flag, addr, asked, func(addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s %s is in use by another process (%w): choose another, or port 0 for any free one", flag, addr, syscall.EADDRINUSE)
		}
		if errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("%s %s: %w: ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or take a port above", flag, addr, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
		}
		return l, nil
	})
}
