package dht

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"weir/capacity"
	"weir/capacity/event"
)

const (
	// copyFirst is how soon after the start a node looks for a copy of itself,
	// and copyEvery how far apart it does so later on suspicion.
	copyFirst = 10 * time.Second
	copyEvery = time.Minute
	// copyTime bounds one look.
	copyTime = 3 * time.Second
	// copyFresh is how long a copy that was seen is told of.
	copyFresh = 5 * time.Minute
	// seqsKept is how many of the sequence numbers given out are remembered:
	// those of all records of ours that can still be held somewhere.
	seqsKept = 4096
)

// seqLog remembers the sequence numbers that this process has given out.
type seqLog struct {
	list []uint64 // rising; the oldest go
}

func (l *seqLog) add(seq uint64) {
	if len(l.list) == seqsKept {
		l.list = slices.Delete(l.list, 0, seqsKept/2)
	}
	l.list = append(l.list, seq)
}

// foreign reports whether a record of this node that has seq is another
// process's: it is as new as those of this one, and none of them.
func (l *seqLog) foreign(seq uint64) bool {
	if len(l.list) == 0 || seq < l.list[0] {
		return false // of an earlier life, perhaps
	}
	_, ours := slices.BinarySearch(l.list, seq)
	return !ours
}

// copies is what is known of another process with this node's identity.
type copies struct {
	suspected chan struct{}

	mu   sync.Mutex
	last capacity.Record // the zero one: none was seen
	at   time.Time
	said sayAgain
}

// suspectCopy asks for a look: a holder has something else of ours than what we
// sent it.
func (n *Node) suspectCopy() {
	select {
	case n.copies.suspected <- struct{}{}:
	default:
	}
}

// watchForCopies looks whether another process uses this node's identity: once
// soon after the start, and then whenever that is suspected, once a minute at
// most.
func (n *Node) watchForCopies(ctx context.Context) error {
	if n.cfg.Sample == nil || n.cfg.Holding == HoldNone {
		<-ctx.Done()
		return ctx.Err()
	}
	next := time.After(copyFirst)
	for {
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
		n.lookForCopy(ctx)
		for len(n.copies.suspected) > 0 { // by what was seen just now
			<-n.copies.suspected
		}
		select {
		case <-time.After(copyEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-n.copies.suspected:
			next = time.After(0)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookForCopy reads what holders have of this node.
func (n *Node) lookForCopy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	changes, err := n.Snapshot(ctx, n.sharding.home())
	if err != nil && len(changes) == 0 {
		return // told elsewhere
	}
	n.noteCopies(changes)
}

// noteCopies takes note of records of this node that it has not published, and
// returns the newest one seen lately.
func (n *Node) noteCopies(changes []Change) (capacity.Record, bool) {
	var found capacity.Record
	for _, c := range changes {
		if c.Err == nil && c.Node == n.ID() && c.Holder != n.ID() && c.Record.Seq > found.Seq && n.outbox.foreign(c.Record.Seq) {
			found = c.Record
		}
	}
	now := time.Now()
	s := &n.copies
	s.mu.Lock()
	if found.Seq == 0 {
		defer s.mu.Unlock()
		return s.last, !s.at.IsZero() && now.Sub(s.at) < copyFresh
	}
	s.last, s.at = found, now
	say := s.said.due(now)
	s.mu.Unlock()
	if say {
		where := fmt.Sprintf("%s at %s", found.URL, joinAddrs(found.Addrs))
		n.log.Warn("this node's identity is used by another process too: one of the two must get an identity of its own (another --data-dir)", "name", found.Name, "url", found.URL, "addrs", joinAddrs(found.Addrs))
		n.event(event.Event{Kind: event.NodeCopied, Detail: where})
	}
	return found, true
}

func (o *outbox) foreign(seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.given.foreign(seq)
}

// selfElsewhere are the bootstrap addresses that name this node's own ID, but no
// address of its own: an old one, or where a copy of it runs.
func selfElsewhere(self peer.ID, bootstrap []peer.AddrInfo, own []multiaddr.Multiaddr) (list []multiaddr.Multiaddr) {
	for _, ai := range bootstrap {
		for _, a := range ai.Addrs {
			if _, err := manet.ToIP(a); ai.ID != self || err != nil { // a name may well lead here
				continue
			}
			if !slices.ContainsFunc(own, a.Equal) {
				list = append(list, a)
			}
		}
	}
	return list
}

// ownAddrs are all addresses by which this node can be meant.
func (n *Node) ownAddrs() []multiaddr.Multiaddr {
	own := slices.Concat(n.host.Addrs(), n.host.Network().ListenAddresses())
	if all, err := n.host.Network().InterfaceListenAddresses(); err == nil {
		own = append(own, all...)
	}
	return own
}
