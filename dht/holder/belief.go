package holder

import (
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// beliefHalfLife is how long it takes until a refusal counts half.
	beliefHalfLife = 10 * time.Second
	// refusalWeight is what one refusal takes off the belief in a peer.
	refusalWeight = 0.5
	maxBeliefs    = 4_096
)

// Beliefs remember how far a peer's claims were borne out: 1 by default, less
// after each refusal, and back up as time passes. Time is passed in.
type Beliefs struct {
	mu    sync.Mutex
	peers map[peer.ID]doubt
}

type doubt struct {
	weight float64
	at     time.Time
}

// NewBeliefs returns beliefs of one who has no experience.
func NewBeliefs() *Beliefs { return &Beliefs{peers: make(map[peer.ID]doubt)} }

// Refused notes that p's record promised room that p then did not give.
func (b *Beliefs) Refused(now time.Time, p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.peers) >= maxBeliefs {
		b.prune(now)
	}
	b.peers[p] = doubt{math.Min(1, b.peers[p].left(now)+refusalWeight), now}
}

// Of returns the belief in p, 0…1.
func (b *Beliefs) Of(now time.Time, p peer.ID) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return 1 - b.peers[p].left(now)
}

func (d doubt) left(now time.Time) float64 {
	if d.weight == 0 {
		return 0
	}
	return d.weight * math.Exp2(-now.Sub(d.at).Seconds()/beliefHalfLife.Seconds())
}

// prune forgets doubts that have faded, or all if that frees nothing.
func (b *Beliefs) prune(now time.Time) {
	for p, d := range b.peers {
		if d.left(now) < 0.05 {
			delete(b.peers, p)
		}
	}
	if len(b.peers) >= maxBeliefs {
		clear(b.peers)
	}
}
