package holder

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// RecordRate is how many records a peer may send in a second, and RecordBurst
// how many at once; the signature of each has to be checked. A node with as
// many streams as a table takes sends a third of the rate, and the whole burst
// when it starts.
const RecordRate, RecordBurst = 256, 1_024

// A RateLimit bounds the records that each peer sends to this node, by stream
// or datagram, one by one or many at once, over one connection or more. The
// zero value is ready for use.
type RateLimit struct {
	mu    sync.Mutex
	peers map[peer.ID]*rate.Limiter // recent senders
	over  uint64                    // records refused
}

// Allow counts one record or one datagram of p's, and reports whether it is
// within the limit.
func (l *RateLimit) Allow(now time.Time, p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.peers[p]
	if limit == nil {
		if l.peers == nil {
			l.peers = make(map[peer.ID]*rate.Limiter)
		}
		limit = rate.NewLimiter(RecordRate, RecordBurst)
		l.peers[p] = limit
	}
	ok := limit.AllowN(now, 1)
	if !ok {
		l.over++
	}
	return ok
}

// Refused is how many records and datagrams were over the limit.
func (l *RateLimit) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// Sweep forgets the peers whose allowance is full again.
func (l *RateLimit) Sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, limit := range l.peers {
		if limit.TokensAt(now) >= RecordBurst {
			delete(l.peers, p)
		}
	}
}
