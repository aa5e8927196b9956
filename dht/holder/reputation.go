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
	// reputationHalfLife is the half-life of a refusal.
	reputationHalfLife = 10 * time.Second
	// refusalWeight is how much one refusal reduces the trust in a peer.
	refusalWeight = 0.5
	// shortHalfLife is the half-life of a shortfall. A node that has overrated
	// itself once will claim the same again.
	shortHalfLife  = 15 * time.Minute
	maxReputations = 4_096

	// MaxReports is how many reports a seeker sends to a holder at once.
	MaxReports = 8
	// worthTelling is the trust from which on a node is not reported.
	worthTelling = 0.9
)

// A Reputation remembers how far to trust each peer's claims, by experience: 1
// by default, less after each refusal or shortfall, and back up as time passes.
// Time is passed in. They are safe for concurrent use.
type Reputation struct {
	mu    sync.Mutex
	peers map[peer.ID]experience
}

type experience struct {
	refusals  report
	shortfall report
}

type report struct {
	weight float64
	at     time.Time
}

// NewReputation returns a Reputation without any experience: every peer is
// trusted.
func NewReputation() *Reputation { return &Reputation{peers: make(map[peer.ID]experience)} }

// Refused notes that p's record promised room that p then refused.
func (b *Reputation) Refused(now time.Time, p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	e.refusals = report{math.Min(1, e.refusals.left(now, reputationHalfLife)+refusalWeight), now}
	b.put(now, p, e)
}

// FellShort notes the share of its claims that p bore out, 0…1; see
// [ClaimAccuracy]. The latest report replaces earlier ones.
func (b *Reputation) FellShort(now time.Time, p peer.ID, delivered float64) {
	if math.IsNaN(delivered) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	e.shortfall = report{1 - min(1, max(0, delivered)), now}
	b.put(now, p, e)
}

// ClaimAccuracy is the share of its claims that a node bears out, given its
// stress by its own record and the share that it delivers of what it should. A
// node that delivers less than it should is at its limit, so its true limit
// lies where it claimed that only stress of it was used. A node that delivers
// everything may have room or not; that proves nothing.
func ClaimAccuracy(stress, delivered float64) float64 {
	return max(0, stress) * min(1, max(0, delivered))
}

// Of returns the trust in p, 0…1.
func (b *Reputation) Of(now time.Time, p peer.ID) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[p].trust(now)
}

// A Report is one peer's reduced trust in another.
type Report struct {
	Node  peer.ID
	Trust float64 // 0…1
}

// Reports are the peers that fell short the most, up to [MaxReports], to report
// to a holder. Refusals are left out: the next record shows those.
func (b *Reputation) Reports(now time.Time) []Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Report
	for p, e := range b.peers {
		if x := 1 - e.shortfall.left(now, shortHalfLife); x < worthTelling {
			list = append(list, Report{p, x})
		}
	}
	slices.SortFunc(list, func(a, b Report) int {
		return cmp.Or(cmp.Compare(a.Trust, b.Trust), cmp.Compare(a.Node, b.Node))
	})
	return list[:min(len(list), MaxReports)]
}

func (b *Reputation) put(now time.Time, p peer.ID, e experience) {
	if len(b.peers) >= maxReputations {
		b.prune(now)
	}
	b.peers[p] = e
}

func (e experience) trust(now time.Time) float64 {
	return (1 - e.refusals.left(now, reputationHalfLife)) * (1 - e.shortfall.left(now, shortHalfLife))
}

func (d report) left(now time.Time, halfLife time.Duration) float64 {
	if d.weight == 0 {
		return 0
	}
	return d.weight * math.Exp2(-now.Sub(d.at).Seconds()/halfLife.Seconds())
}

// prune forgets experience that has faded, or all if that frees nothing.
func (b *Reputation) prune(now time.Time) {
	for p, e := range b.peers {
		if e.trust(now) > 0.95 {
			delete(b.peers, p)
		}
	}
	if len(b.peers) >= maxReputations {
		clear(b.peers)
	}
}
