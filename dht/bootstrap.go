package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
	"weir/dht/directory"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

const (
	dialTimeout  = 3 * time.Second
	retryFirst   = 500 * time.Millisecond
	retryMost    = 30 * time.Second
	memberCheck  = 2 * time.Second // how often a connection that is up is checked
	rememberTime = 10 * time.Second
)

// ParseBootstrap reads a bootstrap peer's address, which ends in /p2p/ and its
// peer ID.
func ParseBootstrap(s string) (peer.AddrInfo, error) {
	return directory.ParseAddr("bootstrap address", s)
}

// A backoff spaces out attempts: twice as long each time, ±25 % by chance so
// that many nodes do not come at once.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// wait returns how long to wait before the next attempt; rnd is within [0, 1).
func (b *backoff) wait(rnd float64) time.Duration {
	b.next = min(max(b.first, 2*b.next), b.most)
	return time.Duration(float64(b.next) * (0.75 + rnd/2))
}

// bootstrap connects to every bootstrap peer, each on its own and for ever,
// and to remembered ones while it knows nobody, announces readiness, and
// remembers peers.
func (n *Node) bootstrap(ctx context.Context) error {
	var peers []peer.AddrInfo
	for _, ai := range n.cfg.Bootstrap {
		if i := slices.IndexFunc(peers, func(known peer.AddrInfo) bool { return known.ID == ai.ID }); i >= 0 {
			peers[i].Addrs = append(slices.Clone(peers[i].Addrs), ai.Addrs...) // its other address
		} else if ai.ID != n.ID() {
			peers = append(peers, ai)
		}
	}
	remembered, err := readPeerFile(n.cfg.PeerFile)
	if err != nil {
		n.log.Warn("remembered peers not read; going on without", "file", n.cfg.PeerFile, "err", err)
	}

	if at := selfElsewhere(n.ID(), n.cfg.Bootstrap, n.ownAddrs()); len(at) > 0 {
		n.log.Warn("bootstrap address names this node's own identity at an address that is not its own: if a node runs there, one of the two is a copy and must get an identity of its own (another --data-dir)", "at", joinAddrs(at))
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.noticeJoining(ctx) })
	var tried sync.WaitGroup
	for _, ai := range peers {
		tried.Add(1)
		g.Go(func() error { return n.keepConnected(ctx, ai, sync.OnceFunc(tried.Done)) })
	}
	tried.Add(1)
	g.Go(func() error { return n.rejoin(ctx, remembered, sync.OnceFunc(tried.Done)) })
	if len(n.cfg.Seeds) > 0 {
		tried.Add(1)
		g.Go(func() error { return n.seek(ctx, newSeeker(n.cfg.Seeds), sync.OnceFunc(tried.Done)) })
	}
	g.Go(func() error {
		tried.Wait() // bounded: each attempt has its own deadline
		return n.announce(ctx)
	})
	if n.cfg.PeerFile != "" {
		g.Go(func() error { return n.remember(ctx, remembered) })
	}
	return g.Wait()
}

// keepConnected connects to ai whenever there is no connection, until ctx
// ends. Tried is called after the first attempt.
func (n *Node) keepConnected(ctx context.Context, ai peer.AddrInfo, tried func()) error {
	defer tried()
	retry := backoff{first: retryFirst, most: retryMost}
	said := sayAgain{}
	for {
		pause := memberCheck
		if n.host.Network().Connectedness(ai.ID) != network.Connected {
			if err := n.connect(ctx, ai); err == nil {
				retry.reset()
				said = sayAgain{}
				if n.member(ai.ID) {
					n.log.Info("bootstrap peer connected", "peer", ai.ID)
				} else {
					n.log.Warn("bootstrap peer is no node of this network: give both the same --network, or name another peer", "peer", ai.ID)
				}
			} else if ctx.Err() == nil {
				pause = retry.wait(rand.Float64())
				level := slog.LevelDebug
				if said.due(time.Now()) {
					level = slog.LevelWarn
				}
				n.log.Log(ctx, level, "bootstrap peer not reached, trying on", "peer", ai.ID, "for", said.since(time.Now()).Round(time.Second), "err", whyNotDialled(err))
			}
		}
		tried()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sayAgain spaces out what is said of a failure that goes on: at once, after a
// minute, and then half as often each time, at least once in an hour. The zero
// value has said nothing.
type sayAgain struct {
	began, next time.Time
	pause       time.Duration
}

func (s *sayAgain) due(now time.Time) bool {
	if s.began.IsZero() {
		s.began = now
	}
	if now.Before(s.next) {
		return false
	}
	s.pause = min(max(time.Minute, 2*s.pause), time.Hour)
	s.next = now.Add(s.pause)
	return true
}

func (s *sayAgain) since(now time.Time) time.Duration { return now.Sub(s.began) }

// whyNotDialled is err in one line: libp2p's has one for each address.
func whyNotDialled(err error) error {
	var d *swarm.DialError
	if !errors.As(err, &d) || len(d.DialErrors) == 0 {
		return err
	}
	cause := d.DialErrors[0].Cause
	for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(inner) {
		cause = inner
	}
	if len(d.DialErrors) == 1 {
		return fmt.Errorf("%s: %w", d.DialErrors[0].Address, cause)
	}
	return fmt.Errorf("%s and %d more: %w", d.DialErrors[0].Address, len(d.DialErrors)-1+d.Skipped, cause)
}

// connect dials ai with a deadline, also if libp2p would rather wait after
// failures: how often is our concern here.
func (n *Node) connect(ctx context.Context, ai peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	n.clearBackoff(ai.ID)
	return n.host.Connect(ctx, ai)
}

func (n *Node) clearBackoff(id peer.ID) {
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id)
	}
}

// rejoin tries the listed servers and the remembered peers whenever the routing table is empty, with
// back-off, and makes kad-dht look at connected peers again. Tried is called
// after the first round.
func (n *Node) rejoin(ctx context.Context, remembered []peer.AddrInfo, tried func()) error {
	defer tried()
	retry := backoff{first: retryFirst, most: retryMost}
	for {
		pause := memberCheck
		if n.kad.RoutingTable().Size() > 0 {
			retry.reset()
		} else {
			remembered = n.recall(remembered)
			n.connectAny(ctx, slices.Concat(n.listed(), remembered), tried)
			_ = n.kad.Bootstrap(ctx) // never fails; adds connected peers
			pause = retry.wait(rand.Float64())
		}
		tried()
		select {
		case <-time.After(pause):
		case <-n.changed:
			// Somebody came or went. Give kad-dht a moment to put them in
			// its table, or to notice the loss.
			select {
			case <-time.After(retryFirst / 2):
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// recall adds peers met since to those remembered, newest first.
func (n *Node) recall(remembered []peer.AddrInfo) []peer.AddrInfo {
	return mergePeers(n.members(), remembered)
}

// listed are some of the listed servers, by which to join where no bootstrap
// peers are given.
func (n *Node) listed() []peer.AddrInfo {
	if !n.cfg.Discovery.Listed() || len(n.cfg.Bootstrap)+len(n.cfg.Seeds) > 0 {
		return nil
	}
	servers := slices.Clone(n.cfg.Servers())
	for _, ai := range servers {
		n.cfg.Gate.Name(ai.Addrs...)
	}
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	return servers[:min(len(servers), maxRemembered)]
}

// Relisted tells the node that Config.Servers returns others than before: if it
// has nobody to talk to, it tries them at once.
func (n *Node) Relisted() { n.wake() }

// connectAny tries all of peers, some at a time, and calls tried as soon as
// one is connected.
func (n *Node) connectAny(ctx context.Context, peers []peer.AddrInfo, tried func()) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(16)
	for _, ai := range peers {
		if ai.ID == n.ID() || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			if err := n.connect(ctx, ai); err != nil {
				n.log.Debug("remembered peer not reached", "peer", ai.ID, "err", err)
				return nil
			}
			tried()
			return nil
		})
	}
	_ = g.Wait()
}

// announce closes ready once a holder has accepted the record, or nobody is
// there to do so. A node without records is ready once it has looked holders
// up.
func (n *Node) announce(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		alone := n.Alone()
		h, looked := n.dir.Holders(time.Now(), CapacityTopic())
		if alone || looked && (n.cfg.Sample == nil || len(h.Remote) == 0) {
			break
		}
		select {
		case <-n.publisher.Accepted():
			close(n.ready)
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	close(n.ready)
	return nil
}

// Alone reports whether no other node of this network is known to be there.
func (n *Node) Alone() bool { return len(n.members()) == 0 && n.kad.RoutingTable().Size() == 0 }

// noticeJoining says so when a node that was told whom to join, and was ready
// without having done so, has company at last.
func (n *Node) noticeJoining(ctx context.Context) error {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	alone := len(n.cfg.Bootstrap)+len(n.cfg.Seeds) > 0 && n.Alone()
	tick := time.NewTicker(memberCheck)
	defer tick.Stop()
	for alone {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if alone = n.Alone(); !alone {
			n.log.Info("network joined", "network", n.cfg.Network, "peers", len(n.members()))
		}
	}
	return nil
}

// member reports whether p has told that it serves records of this network.
func (n *Node) member(p peer.ID) bool {
	ok, err := n.host.Peerstore().SupportsProtocols(p, n.records)
	return err == nil && len(ok) > 0
}

// members are the connected peers that hold records in this network, with the
// addresses at which they can be dialled, in a fixed order.
func (n *Node) members() []peer.AddrInfo {
	var list []peer.AddrInfo
	for _, p := range n.host.Network().Peers() {
		if !n.member(p) {
			continue
		}
		if ai := n.host.Peerstore().PeerInfo(p); len(ai.Addrs) > 0 {
			slices.SortFunc(ai.Addrs, multiaddr.Multiaddr.Compare)
			list = append(list, ai)
		}
	}
	slices.SortFunc(list, func(a, b peer.AddrInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// remember keeps the peer file up to date, and writes it once more at the end.
func (n *Node) remember(ctx context.Context, known []peer.AddrInfo) error {
	tick := time.NewTicker(rememberTime)
	defer tick.Stop()
	soon := time.After(2 * time.Second) // after joining, not ten seconds later
	keeper := peerKeeper{path: n.cfg.PeerFile, log: n.log}
	for {
		select {
		case <-soon:
		case <-tick.C:
		case <-ctx.Done():
		}
		known = mergePeers(n.members(), known)
		keeper.keep(known)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// errNotMember means that a peer is connected but holds no records here.
var errNotMember = errors.New("not a node of this network")

// verifyMember connects to ai and reports why it is not a holder.
func (n *Node) verifyMember(ctx context.Context, ai peer.AddrInfo) error {
	if err := n.host.Connect(ctx, ai); err != nil {
		return err
	}
	ok, err := n.host.Peerstore().SupportsProtocols(ai.ID, n.records)
	if err != nil {
		return err
	}
	if len(ok) == 0 {
		return errNotMember
	}
	return nil
}
