package holder

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// beliefHalfLife is the half-life of a refusal.
	beliefHalfLife = 10 * time.Second
	// refusalWeight is how much one refusal reduces the trust in a peer.
	refusalWeight = 0.5
	// shortHalfLife is the half-life of a shortfall. A node that has overrated
	// itself once will claim the same again.
	shortHalfLife = 15 * time.Minute
	maxBeliefs    = 4_096

	// MaxDoubts is how many doubts a seeker sends to a holder at once.
	MaxDoubts = 8
	// worthTelling is the trust from which on a node is not reported.
	worthTelling = 0.9
)

// Beliefs remember how far to trust each peer's claims, by experience: 1 by
// default, less after each refusal or shortfall, and back up as time passes.
// Time is passed in. They are safe for concurrent use.
type Beliefs struct {
	mu    sync.Mutex
	peers map[peer.ID]experience
}

type experience struct {
	refusals  doubt
	shortfall doubt
}

type doubt struct {
	weight float64
	at     time.Time
}

// NewBeliefs returns Beliefs without any experience: every peer is trusted.
func NewBeliefs() *Beliefs { return &Beliefs{peers: make(map[peer.ID]experience)} }

// Refused notes that p's record promised room that p then refused.
func (b *Beliefs) Refused(now time.Time, p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	e.refusals = doubt{math.Min(1, e.refusals.left(now, beliefHalfLife)+refusalWeight), now}
	b.put(now, p, e)
}

// FellShort notes the share of its claims that p bore out, 0…1; see [ClaimAccuracy].
// The latest report replaces earlier ones.
func (b *Beliefs) FellShort(now time.Time, p peer.ID, delivered float64) {
	if math.IsNaN(delivered) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	e.shortfall = doubt{1 - min(1, max(0, delivered)), now}
	b.put(now, p, e)
}

// ClaimAccuracy is the share of its claims that a node bears out, given its stress by
// its own record and the share that it delivers of what it should. A node that
// delivers less than it should is at its limit, so its true limit lies where it
// claimed that only stress of it was used. A node that delivers everything may
// have room or not; that proves nothing.
func ClaimAccuracy(stress, delivered float64) float64 {
	return max(0, stress) * min(1, max(0, delivered))
}

// Of returns the trust in p, 0…1.
func (b *Beliefs) Of(now time.Time, p peer.ID) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[p].belief(now)
}

// A Doubt is one peer's reduced trust in another.
type Doubt struct {
	Node   peer.ID
	Belief float64 // 0…1
}

// Doubts are the peers that fell short the most, up to [MaxDoubts], to report
// to a holder. Refusals are left out: the next record shows those.
func (b *Beliefs) Doubts(now time.Time) []Doubt {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Doubt
	for p, e := range b.peers {
		if x := 1 - e.shortfall.left(now, shortHalfLife); x < worthTelling {
			list = append(list, Doubt{p, x})
		}
	}
	slices.SortFunc(list, func(a, b Doubt) int {
		return cmp.Or(cmp.Compare(a.Belief, b.Belief), cmp.Compare(a.Node, b.Node))
	})
	return list[:min(len(list), MaxDoubts)]
}

func (b *Beliefs) put(now time.Time, p peer.ID, e experience) {
	if len(b.peers) >= maxBeliefs {
		b.prune(now)
	}
	b.peers[p] = e
}

func (e experience) belief(now time.Time) float64 {
	return (1 - e.refusals.left(now, beliefHalfLife)) * (1 - e.shortfall.left(now, shortHalfLife))
}

func (d doubt) left(now time.Time, halfLife time.Duration) float64 {
	if d.weight == 0 {
		return 0
	}
	return d.weight * math.Exp2(-now.Sub(d.at).Seconds()/halfLife.Seconds())
}

// prune forgets doubts that have faded, or all if that frees nothing.
func (b *Beliefs) prune(now time.Time) {
	for p, e := range b.peers {
		if e.belief(now) > 0.95 {
			delete(b.peers, p)
		}
	}
	if len(b.peers) >= maxBeliefs {
		clear(b.peers)
	}
}
