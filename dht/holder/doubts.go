package holder

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxDoubted   = 1_024 // nodes with doubts
	maxReporters = 32    // per node: the latest
	maxSeekers   = 4_096 // counted

	// seekerAge is how long a seeker counts after its last query.
	seekerAge = 2 * time.Minute
	// trustLeast votes always count for trusting a node, or one per trustPart
	// recent seekers if that is more.
	trustLeast = 2
	trustPart  = 16
)

// Doubts are the reports of seekers to a holder about nodes that fell short of
// their claims. No single report counts for much: the trust in a node is the
// median of all reports about it, together with some silent seekers, who count
// as trusting it. So it takes more than two reporters, and more than one in 16
// of all seekers, to reduce the trust in a node; how low their reports are does
// not matter. Reports fade. Time is passed in. Doubts are safe for concurrent
// use.
type Doubts struct {
	mu      sync.Mutex
	said    map[peer.ID]map[peer.ID]doubt // by node and reporter
	seekers map[peer.ID]time.Time         // when each seeker asked last
}

// NewDoubts returns Doubts without any report.
func NewDoubts() *Doubts {
	return &Doubts{said: make(map[peer.ID]map[peer.ID]doubt), seekers: make(map[peer.ID]time.Time)}
}

// Heard takes in the doubts in reporter's query. Of several reports by one
// reporter about a node the last counts.
func (d *Doubts) Heard(now time.Time, reporter peer.ID, list []Doubt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.seekers) >= maxSeekers {
		maps.DeleteFunc(d.seekers, func(_ peer.ID, at time.Time) bool { return now.Sub(at) > seekerAge })
	}
	if len(d.seekers) < maxSeekers {
		d.seekers[reporter] = now
	}
	for _, x := range list[:min(len(list), MaxDoubts)] {
		if x.Node == reporter || !(x.Belief >= 0 && x.Belief <= 1) {
			continue
		}
		words := d.said[x.Node]
		if words == nil {
			if len(d.said) >= maxDoubted {
				d.prune(now)
			}
			if len(d.said) >= maxDoubted {
				continue
			}
			words = make(map[peer.ID]doubt)
			d.said[x.Node] = words
		}
		if _, known := words[reporter]; !known && len(words) >= maxReporters {
			oldest := reporter
			for p, w := range words {
				if oldest == reporter || w.at.Before(words[oldest].at) || w.at.Equal(words[oldest].at) && p < oldest {
					oldest = p
				}
			}
			delete(words, oldest)
		}
		words[reporter] = doubt{1 - x.Belief, now}
	}
}

// Of returns the trust in node, 0…1.
func (d *Doubts) Of(now time.Time, node peer.ID) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	words := d.said[node]
	if len(words) <= trustLeast {
		return 1
	}
	beliefs := make([]float64, 0, len(words))
	for _, w := range words {
		if left := w.left(now, shortHalfLife); left > 1-worthTelling {
			beliefs = append(beliefs, 1-left)
		}
	}
	trust := trustLeast
	if len(beliefs) > trustLeast {
		asked := 0
		for _, at := range d.seekers {
			if now.Sub(at) <= seekerAge {
				asked++
			}
		}
		trust = max(trust, min(asked/trustPart, maxReporters/2))
	}
	for range trust {
		beliefs = append(beliefs, 1)
	}
	slices.Sort(beliefs)
	return beliefs[len(beliefs)/2] // of two in the middle the higher
}

// prune forgets reports that have faded.
func (d *Doubts) prune(now time.Time) {
	maps.DeleteFunc(d.said, func(_ peer.ID, words map[peer.ID]doubt) bool {
		maps.DeleteFunc(words, func(_ peer.ID, w doubt) bool { return w.left(now, shortHalfLife) <= 1-worthTelling })
		return len(words) == 0
	})
}
