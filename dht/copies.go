package dht

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/event"
	"weir/dht/inspect"
	"weir/dht/overlay"
)

const (
	// copyEvery is how far apart a node looks for a copy of itself that it has a
	// sign of. It looks copyTries times, copyPause apart: each of the two takes
	// the other's record away from the holders.
	copyEvery = time.Minute
	copyTries = 5
	copyPause = 2 * time.Second
	// copyTime bounds one look.
	copyTime = 3 * time.Second
	// copyFresh is how long a copy that was seen is told of.
	copyFresh = 5 * time.Minute
)

// copies is what is known of another process with this node's identity.
type copies struct {
	suspected chan struct{}

	mu   sync.Mutex
	last capacity.Record // the zero one: none was seen
	at   time.Time
	said overlay.SayAgain
}

// suspectCopy takes in that a holder had a record of this node that this process
// has not published: it is a copy's.
func (n *Node) suspectCopy() {
	select {
	case n.copies.suspected <- struct{}{}:
	default:
	}
}

// watchForCopies finds out about another process with this node's identity once
// there is a sign of it, once a minute at most.
func (n *Node) watchForCopies(ctx context.Context) error {
	for {
		select {
		case <-n.copies.suspected:
		case <-ctx.Done():
			return ctx.Err()
		}
		found := false
		for try := 0; try < copyTries && !found; try++ {
			if found = n.lookForCopy(ctx); !found {
				select {
				case <-time.After(copyPause):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		if !found { // nothing is known of it but that it is there
			n.noteCopy(capacity.Record{})
		}
		select {
		case <-time.After(copyEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookForCopy reads what holders have of this node, and reports whether another
// process's is among it.
func (n *Node) lookForCopy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	changes, _ := n.Reader.Snapshot(ctx, n.sharding.Home()) // what has come by then
	return n.noteCopies(changes)
}

// noteCopies takes note of records of this node that it has not published, and
// reports whether there are any.
func (n *Node) noteCopies(changes []inspect.Change) bool {
	var found capacity.Record
	for _, c := range changes {
		if c.Err == nil && c.Node == n.ID() && c.Holder != n.ID() && c.Record.Seq > found.Seq && n.publisher.Foreign(c.Record.Seq) {
			found = c.Record
		}
	}
	if found.Seq == 0 {
		return false
	}
	n.noteCopy(found)
	return true
}

// noteCopy tells of another process with this node's identity, of which r is the
// record if it is known.
func (n *Node) noteCopy(r capacity.Record) {
	now := time.Now()
	s := &n.copies
	s.mu.Lock()
	if r.Seq > 0 || now.Sub(s.at) >= copyFresh {
		s.last = r
	}
	s.at = now
	say := s.said.Due(now)
	s.mu.Unlock()
	if !say {
		return
	}
	n.log.Warn("this node's identity is used by another process too: one of the two must get an identity of its own",
		"name", r.Name, "url", r.URL, "addrs", joinAddrs(r.Addrs))
	n.event(event.Event{Kind: event.NodeCopied, Detail: fmt.Sprintf("%s at %s", cmp.Or(r.URL, "no URL"), joinAddrs(r.Addrs))})
}

// copied is the other process's record, if one was noticed lately.
func (n *Node) copied() (capacity.Record, bool) {
	s := &n.copies
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, !s.at.IsZero() && time.Since(s.at) < copyFresh
}

func joinAddrs(addrs []multiaddr.Multiaddr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	all := make([]string, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}
