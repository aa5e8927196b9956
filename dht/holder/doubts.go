package holder

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxDoubted   = 1_024 // nodes of which doubts are kept
	maxReporters = 32    // of doubts in one node: the latest
	maxSeekers   = 4_096 // whose number is counted

	// seekerAge is how long a seeker counts as one who would have told.
	seekerAge = 2 * time.Minute
	// trustLeast of those who say nothing stand for the trust in a node, and
	// beyond that one seeker in trustPart.
	trustLeast = 2
	trustPart  = 16
)

// Doubts are what seekers told a holder of nodes that fell short of their
// claims. Nobody's word counts for much: of all that was said of a node the
// holder takes the median, with some who say nothing on the node's side. So it
// takes more than two reporters, and more than one in 16 of those who ask, to
// make others doubt a node; how low they go does not matter. What was said
// fades. Time is passed in. Doubts are safe for concurrent use.
type Doubts struct {
	mu      sync.Mutex
	said    map[peer.ID]map[peer.ID]doubt // by node and reporter
	seekers map[peer.ID]time.Time         // who asked, and when last
}

// NewDoubts returns Doubts of nobody.
func NewDoubts() *Doubts {
	return &Doubts{said: make(map[peer.ID]map[peer.ID]doubt), seekers: make(map[peer.ID]time.Time)}
}

// Heard takes in what reporter, who asks for candidates, doubts. Of several
// words of one reporter on a node the last counts.
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

// Of returns the belief in node, 0…1.
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

// prune forgets what has faded.
func (d *Doubts) prune(now time.Time) {
	maps.DeleteFunc(d.said, func(_ peer.ID, words map[peer.ID]doubt) bool {
		maps.DeleteFunc(words, func(_ peer.ID, w doubt) bool { return w.left(now, shortHalfLife) <= 1-worthTelling })
		return len(words) == 0
	})
}
