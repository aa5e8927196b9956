package inspect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/dht/directory"
)

const (
	// MaxTime bounds an examination, and contactTime one attempt to reach a
	// peer in it.
	MaxTime     = 6 * time.Second
	contactTime = 2500 * time.Millisecond
	// maxContacts bounds the peers of each kind that are dialled: bootstrap
	// peers, listed servers, connected ones, known ones.
	maxContacts = 32
	// maxQUIC bounds the peers connected by TCP that are tried by QUIC as well.
	maxQUIC = 4
)

// An Examiner gathers a [Report]. All its functions may be called from several
// goroutines, and must return when their context ends.
type Examiner struct {
	Host    host.Host
	Network Network
	Client  bool
	Mode    directory.Mode

	Bootstrap  []peer.AddrInfo        // each peer once
	Servers    func() []peer.AddrInfo // if they are listed
	Remembered func() []peer.AddrInfo // from an earlier run
	MetSince   func(time.Time) []peer.ID
	Met        func(peer.ID) time.Time // when it answered last; zero: never
	Said       func(peer.ID) SelfReport
	Member     func(peer.ID) bool
	Retry      func(peer.ID) // forgets that dials have failed
	Ask        func(context.Context, peer.ID) error
	Policy     func() Policy
	TableSize  func() int
	SelfAt     func() []multiaddr.Multiaddr
	// Record finds out which holders have this node's own record. It also
	// returns the nodes whose records the holders have, and the record of
	// another process with this node's identity, if there is one.
	Record func(context.Context) (own OwnRecord, others []peer.AddrInfo, copied *capacity.Record)
}

// Examine runs all checks, dials concurrently, and takes MaxTime at most; a
// peer not reached by then counts as not answering. Its goroutines have ended
// when it returns.
func (e *Examiner) Examine(ctx context.Context, open bool) *Report {
	ctx, cancel := context.WithTimeout(ctx, MaxTime)
	defer cancel()
	r := &Report{
		Self: e.Host.ID(), Network: e.Network, Open: open, Client: e.Client, Mode: e.Mode,
		Bound: slices.SortedFunc(slices.Values(e.Host.Network().ListenAddresses()), multiaddr.Multiaddr.Compare), Addrs: e.Host.Addrs(),
		Said: make(map[peer.ID]SelfReport), Policy: e.Policy(),
	}
	r.Bootstrap = e.contacts(e.Bootstrap)
	if e.Mode.Listed() {
		e.listServers(r)
	}
	var connected []peer.AddrInfo
	for _, p := range e.Host.Network().Peers() {
		connected = append(connected, e.Host.Peerstore().PeerInfo(p))
	}
	others := e.contacts(connected)
	r.Gone = e.contacts(e.absent())

	var work errgroup.Group
	for _, list := range [][]Contact{r.Bootstrap, r.Servers, others, r.Gone} {
		for i := range list {
			work.Go(func() error { e.try(ctx, &list[i]); return nil })
		}
	}
	var published []peer.AddrInfo
	work.Go(func() error { r.Record, published, r.Copy = e.Record(ctx); return nil })
	_ = work.Wait()
	r.SelfAt = e.SelfAt()
	r.Unmet = e.unmet(published)
	for i := range r.Unmet {
		work.Go(func() error { e.try(ctx, &r.Unmet[i]); return nil })
	}
	r.QUIC = e.tryQUIC(ctx)
	_ = work.Wait()
	e.sort(r, others)
	r.Table = e.TableSize()
	return r
}

func (e *Examiner) contacts(peers []peer.AddrInfo) []Contact {
	var list []Contact
	for _, ai := range peers {
		if ai.ID != e.Host.ID() && len(list) < maxContacts {
			list = append(list, Contact{Peer: ai})
		}
	}
	return list
}

func (e *Examiner) listServers(r *Report) {
	servers := slices.Clone(e.Servers())
	r.Listed = slices.ContainsFunc(servers, func(ai peer.AddrInfo) bool { return ai.ID == e.Host.ID() })
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	r.Servers = e.contacts(servers)
	r.Untried = len(servers) - len(r.Servers)
	if r.Listed {
		r.Untried--
	}
}

// sort classifies the peers that were connected by their state now, and puts
// those reached just now among the members.
func (e *Examiner) sort(r *Report, connected []Contact) {
	member := func(c Contact) {
		r.Members = append(r.Members, c)
		r.Said[c.Peer.ID] = e.Said(c.Peer.ID)
	}
	for _, c := range connected {
		switch {
		case c.Err != nil:
			r.Gone = append(r.Gone, c)
		case c.Member:
			member(c)
		case c.Network != "":
			r.Foreign = append(r.Foreign, c)
		}
	}
	for _, c := range slices.Concat(r.Bootstrap, r.Servers, r.Gone, r.Unmet) {
		if c.Reached() && !slices.ContainsFunc(r.Members, func(m Contact) bool { return m.Peer.ID == c.Peer.ID }) {
			member(c)
		}
	}
}

func (e *Examiner) connected(p peer.ID) bool {
	return e.Host.Network().Connectedness(p) == network.Connected
}

// absent are peers that are not connected but were, in this run or an earlier
// one.
func (e *Examiner) absent() []peer.AddrInfo {
	remembered := e.Remembered()
	var list []peer.AddrInfo
	seen := make(map[peer.ID]bool)
	add := func(ai peer.AddrInfo) {
		if !seen[ai.ID] && !e.connected(ai.ID) {
			seen[ai.ID] = true
			list = append(list, ai)
		}
	}
	for _, p := range e.MetSince(time.Now().Add(-MetTime)) {
		ai := e.Host.Peerstore().PeerInfo(p)
		for _, old := range remembered {
			if old.ID == p {
				ai.Addrs = append(ai.Addrs, old.Addrs...)
			}
		}
		add(ai)
	}
	for _, ai := range remembered {
		add(ai)
	}
	return list
}

// unmet are published nodes that this one has never met, a selection if there
// are many.
func (e *Examiner) unmet(published []peer.AddrInfo) []Contact {
	seen := map[peer.ID]bool{e.Host.ID(): true}
	for _, ai := range e.Remembered() {
		seen[ai.ID] = true
	}
	var list []Contact
	for _, ai := range published {
		if seen[ai.ID] || e.connected(ai.ID) || !e.Met(ai.ID).IsZero() {
			continue
		}
		seen[ai.ID] = true
		list = append(list, Contact{Peer: ai})
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), maxContacts)]
}

// try dials c and finds out its network.
func (e *Examiner) try(whole context.Context, c *Contact) {
	ctx, cancel := context.WithTimeout(whole, contactTime)
	defer cancel()
	id := c.Peer.ID
	c.Met = time.Since(e.Met(id)) < MetTime
	if !e.connected(id) {
		e.Retry(id)
	}
	if c.Err = e.Host.Connect(ctx, c.Peer); c.Err != nil {
		// QUIC does not notice that no process listens; TCP does, and libp2p
		// does not report it while it waits for QUIC.
		if isTimeout(c.Err) && refused(whole, c.Peer.Addrs) {
			c.Err = syscall.ECONNREFUSED
		}
		return
	}
	c.Member = e.Member(id)
	if !c.Member {
		c.Network = e.networkOf(id)
		return
	}
	if e.Ask(ctx, id) != nil {
		c.Silent = true
		// A killed process leaves a QUIC connection behind, which lasts for
		// half a minute.
		if refused(whole, slices.Concat(c.Peer.Addrs, e.Host.Peerstore().Addrs(id))) {
			c.Silent, c.Err = false, syscall.ECONNREFUSED
		}
	}
}

// refused reports whether a connection to any of addrs is refused.
func refused(ctx context.Context, addrs []multiaddr.Multiaddr) bool {
	ctx, cancel := context.WithTimeout(ctx, contactTime/4)
	defer cancel()
	var dialer net.Dialer
	for _, a := range addrs {
		proto, hostPort, err := manet.DialArgs(a)
		if err != nil || !strings.HasPrefix(proto, "tcp") {
			continue
		}
		c, err := dialer.DialContext(ctx, proto, hostPort)
		if err == nil {
			_ = c.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// networkOf is the ID of the network that p serves, "" if it serves none.
func (e *Examiner) networkOf(p peer.ID) string {
	protocols, err := e.Host.Peerstore().GetProtocols(p)
	if err != nil {
		return ""
	}
	for _, proto := range protocols {
		rest, ok := strings.CutPrefix(string(proto), "/weir/")
		if id, is := strings.CutSuffix(rest, "/records/1"); ok && is {
			return capacity.Printable(id, 2*len(e.Network.ID))
		}
	}
	return ""
}

// tryQUIC dials a few of the peers that are connected by TCP only over QUIC.
func (e *Examiner) tryQUIC(ctx context.Context) QUIC {
	q := QUIC{Listens: slices.ContainsFunc(e.Host.Network().ListenAddresses(), isQUIC)}
	type target struct {
		id peer.ID
		at multiaddr.Multiaddr
	}
	var targets []target
	for _, p := range e.Host.Network().Peers() {
		if !e.Member(p) {
			continue
		}
		if slices.ContainsFunc(e.Host.Network().ConnsToPeer(p), func(c network.Conn) bool { return isQUIC(c.RemoteMultiaddr()) }) {
			q.Connected++
			continue
		}
		addrs := e.Host.Peerstore().Addrs(p)
		if i := slices.IndexFunc(addrs, isQUIC); i >= 0 && len(targets) < maxQUIC {
			targets = append(targets, target{p, addrs[i]})
		}
	}
	s, ok := e.Host.Network().(*swarm.Swarm)
	if q.Connected > 0 || !ok {
		return q
	}
	var mu sync.Mutex
	var work errgroup.Group
	for _, t := range targets {
		work.Go(func() error {
			err := dialQUIC(ctx, s, t.id, t.at)
			mu.Lock()
			defer mu.Unlock()
			q.Tried++
			if err == nil {
				q.Reached++
			} else {
				q.Err = fmt.Errorf("%s: %w", t.at, err)
			}
			return nil
		})
	}
	_ = work.Wait()
	return q
}

// dialQUIC dials by the transport: the host would return the connection that it
// has.
func dialQUIC(ctx context.Context, s *swarm.Swarm, id peer.ID, at multiaddr.Multiaddr) error {
	ctx, cancel := context.WithTimeout(ctx, contactTime)
	defer cancel()
	transport := s.TransportForDialing(at)
	if transport == nil {
		return errors.New("no QUIC transport")
	}
	c, err := transport.Dial(ctx, at, id)
	if err == nil {
		_ = c.Close()
	}
	return err
}
