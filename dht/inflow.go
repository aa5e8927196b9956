package dht

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// An inflow bounds the records that each peer sends here, however they come: by
// stream or datagram, one by one or many at once, over one connection or more.
// The zero value is ready for use.
type inflow struct {
	mu    sync.Mutex
	peers map[peer.ID]*rate.Limiter // those that have sent some lately
	over  uint64                    // too much
}

// allow counts one record of p's, or one datagram, or reports that it is too much.
func (f *inflow) allow(now time.Time, p peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.peers[p]
	if limit == nil {
		if f.peers == nil {
			f.peers = make(map[peer.ID]*rate.Limiter)
		}
		limit = rate.NewLimiter(entryRate, entryBurst)
		f.peers[p] = limit
	}
	ok := limit.AllowN(now, 1)
	if !ok {
		f.over++
	}
	return ok
}

// refused is how many were too much.
func (f *inflow) refused() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}

// Flooded is how many records and datagrams of peers were refused since they sent
// too many.
func (n *Node) Flooded() uint64 { return n.entries.refused() }

// sweep forgets the peers that may send as much as any.
func (f *inflow) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, limit := range f.peers {
		if limit.TokensAt(now) >= entryBurst {
			delete(f.peers, p)
		}
	}
}
