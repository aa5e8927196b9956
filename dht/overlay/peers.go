package overlay

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"weir/capacity/event"
	"weir/dht/liveness"
	"weir/dht/pb"
)

// LocateTime bounds the search for a peer's addresses.
const LocateTime = 1500 * time.Millisecond

// Peers are the known other nodes. They are safe for concurrent use.
type Peers struct {
	Live *liveness.Detector

	host   host.Host
	kad    *kaddht.IpfsDHT
	member protocol.ID
	cfg    *Config
	start  func(func()) bool
}

// Connected reports whether there is a connection to p.
func (s *Peers) Connected(p peer.ID) bool {
	return s.host.Network().Connectedness(p) == network.Connected
}

// Member reports whether p has announced that it is a node of this network.
func (s *Peers) Member(p peer.ID) bool {
	ok, err := s.host.Peerstore().SupportsProtocols(p, s.member)
	return err == nil && len(ok) > 0
}

// Members are the connected nodes of this network, with the addresses at which
// they can be dialled, in a fixed order.
func (s *Peers) Members() []peer.AddrInfo {
	var list []peer.AddrInfo
	for _, p := range s.host.Network().Peers() {
		if !s.Member(p) {
			continue
		}
		if ai := s.host.Peerstore().PeerInfo(p); len(ai.Addrs) > 0 {
			slices.SortFunc(ai.Addrs, multiaddr.Multiaddr.Compare)
			list = append(list, ai)
		}
	}
	slices.SortFunc(list, func(a, b peer.AddrInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Alone reports whether no other node of this network is connected.
func (s *Peers) Alone() bool { return len(s.Members()) == 0 && s.kad.RoutingTable().Size() == 0 }

// Learn stores addresses at which id may be dialled.
func (s *Peers) Learn(id peer.ID, addrs []multiaddr.Multiaddr) {
	if len(addrs) > 0 && id != s.host.ID() {
		s.host.Peerstore().AddAddrs(id, addrs, peerstore.TempAddrTTL)
	}
}

// Introduce encodes id with its known addresses, for another node.
func (s *Peers) Introduce(id peer.ID) *pb.Peer { return pb.PeerOf(s.host.Peerstore().PeerInfo(id)) }

// Introduced learns the addresses of a node that another one named. It is not ok
// if w is invalid.
func (s *Peers) Introduced(w *pb.Peer) (id peer.ID, ok bool) {
	ai, err := w.AddrInfo()
	if err != nil {
		return "", false
	}
	if !s.Connected(ai.ID) {
		s.Learn(ai.ID, ai.Addrs)
	}
	return ai.ID, true
}

// Locate prepares a dial to id: it looks for addresses in the network if there
// are none, and makes libp2p forget past failures, because its caller has a
// reason to try now.
func (s *Peers) Locate(ctx context.Context, id peer.ID) {
	if s.Connected(id) {
		return
	}
	s.ClearBackoff(id)
	if len(s.host.Peerstore().Addrs(id)) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, LocateTime)
	defer cancel()
	ai, err := s.kad.FindPeer(ctx, id)
	if err != nil {
		s.cfg.Log.Debug("peer not located", "peer", id, "err", err)
		return
	}
	s.Learn(id, ai.Addrs)
}

// Ping measures round trips to id by libp2p's ping protocol, connecting first
// if need be, and passes each to told until told returns false, ctx is done or
// a ping fails, which is the error.
func (s *Peers) Ping(ctx context.Context, id peer.ID, told func(rtt time.Duration) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.Locate(ctx, id)
	for r := range ping.Ping(ctx, s.host, id) {
		if r.Error != nil {
			return DialError(r.Error)
		}
		if !told(r.RTT) {
			return nil
		}
	}
	return ctx.Err()
}

// ClearBackoff makes libp2p dial id at once, despite past failures.
func (s *Peers) ClearBackoff(id peer.ID) {
	if net, ok := s.host.Network().(*swarm.Swarm); ok {
		net.Backoff().Clear(id)
	}
}

// Connect dials ai with a deadline, even if libp2p would rather wait after
// failures: the caller limits how often.
func (s *Peers) Connect(ctx context.Context, ai peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	s.ClearBackoff(ai.ID)
	return s.host.Connect(ctx, ai)
}

// Verify connects to ai and returns why it is no node of this network:
// [ErrNotMember] if it speaks other protocols.
func (s *Peers) Verify(ctx context.Context, ai peer.AddrInfo) error {
	if err := s.host.Connect(ctx, ai); err != nil {
		return err
	}
	ok, err := s.host.Peerstore().SupportsProtocols(ai.ID, s.member)
	if err != nil {
		return err
	}
	if len(ok) == 0 {
		return ErrNotMember
	}
	return nil
}

// Deadline is how long id may take to answer a request.
func (s *Peers) Deadline(id peer.ID) time.Duration {
	least := 300 * time.Millisecond
	if !s.Connected(id) {
		least = time.Second // beside three or four round trips
	}
	return min(max(least, 4*s.Live.RTT(id)), 2*time.Second)
}

// Answered notes that id has answered, after rtt if that is a measurement at
// all (0: it is not).
func (s *Peers) Answered(id peer.ID, rtt time.Duration) {
	if lost := s.Live.Answered(time.Now(), id, rtt); lost > 0 {
		s.event(event.Event{Kind: event.PeerBack, Peer: id, Elapsed: float64(lost.Microseconds()) / 1000})
	}
}

// Failed notes that a request to id has ended in err, and calls Config.Down if
// id is to be left alone from now on.
func (s *Peers) Failed(id peer.ID, err error) {
	how := liveness.BadAnswer
	switch {
	case errors.Is(err, network.ErrResourceLimitExceeded), errors.Is(err, context.Canceled):
		return // this node cancelled it
	case errors.Is(err, ErrUnreachable):
		how = liveness.NoConnection
	case errors.Is(err, ErrLate):
		how = liveness.Late
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		how = liveness.NoAnswer
	}
	if !s.Live.Failed(time.Now(), id, how) {
		return
	}
	if how == liveness.NoConnection {
		s.kad.RoutingTable().RemovePeer(id)
	}
	s.dropStale(id)
	if s.cfg.Down != nil {
		s.cfg.Down(id, err)
	}
}

// dropStale closes all connections to id but the newest, if there are several:
// a restarted node has opened a new one, while messages over the old one are
// lost until it times out.
func (s *Peers) dropStale(id peer.ID) {
	conns := s.host.Network().ConnsToPeer(id)
	if len(conns) < 2 {
		return
	}
	newest := slices.MaxFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
	for _, c := range conns {
		if c != newest {
			s.start(func() { _ = c.Close() })
		}
	}
}

func (s *Peers) event(e event.Event) {
	if s.cfg.Event != nil {
		e.Time = time.Now()
		s.cfg.Event(e)
	}
}

// Elsewhere are the bootstrap addresses with this node's own ID at an address
// that is not its own: an old one, or that of a copy of it.
func Elsewhere(self peer.ID, bootstrap []peer.AddrInfo, own []multiaddr.Multiaddr) (list []multiaddr.Multiaddr) {
	for _, ai := range bootstrap {
		for _, a := range ai.Addrs {
			if _, err := manet.ToIP(a); ai.ID != self || err != nil { // a name may well resolve to this node
				continue
			}
			if !slices.ContainsFunc(own, a.Equal) {
				list = append(list, a)
			}
		}
	}
	return list
}
