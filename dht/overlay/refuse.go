package overlay

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	refuseTime  = 300 * time.Millisecond // for a machine to report that no process listens
	refuseAddrs = 6                      // addresses tried
)

// Refuses reports whether the machine of id, which has been met before, says
// that no process listens any more on id's addresses: it refuses TCP
// connections, and answers a datagram with "port unreachable" (RFC 1122,
// 4.1.3.1). It never says so of a slow or stopped process; of a crashed one it
// does at once, long before QUIC gives the connection up.
func (s *Peers) Refuses(ctx context.Context, id peer.ID) bool {
	if len(s.cfg.Libp2p) > 0 || !s.Live.Met(id) {
		return false // on a simulated network sockets prove nothing
	}
	ctx, cancel := context.WithTimeout(ctx, refuseTime)
	defer cancel()
	addrs := s.host.Peerstore().Addrs(id)
	addrs = addrs[:min(len(addrs), refuseAddrs)]
	said := make(chan error, len(addrs))
	for _, a := range addrs {
		if !s.start(func() { said <- knock(ctx, a) }) {
			return false
		}
	}
	for range addrs {
		if err := <-said; !errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
	}
	return len(addrs) > 0
}

// knock checks whether a process listens at a, without sending anything it
// would understand. The error is ECONNREFUSED if none does.
func knock(ctx context.Context, a multiaddr.Multiaddr) error {
	proto, addr, err := manet.DialArgs(a)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, proto, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, udp := conn.(*net.UDPConn); !udp {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte{0}); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
