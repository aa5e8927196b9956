package holder

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxReported  = 1_024 // nodes with reports
	maxReporters = 32    // per node: the latest
	maxSeekers   = 4_096 // counted

	// seekerAge is how long a seeker counts after its last query.
	seekerAge = 2 * time.Minute
	// trustLeast votes always count for trusting a node, or one per trustPart
	// recent seekers if that is more.
	trustLeast = 2
	trustPart  = 16
)

// Reports are those of seekers to a holder about nodes that fell short of
// their claims. No single report counts for much: the trust in a node is the
// median of all reports about it, together with some silent seekers, who count
// as trusting it. So it takes more than two reporters, and more than one in 16
// of all seekers, to reduce the trust in a node; how low their reports are does
// not matter. Reports fade. Time is passed in. They are safe for concurrent
// use.
type Reports struct {
	mu      sync.Mutex
	said    map[peer.ID]map[peer.ID]report // by node and reporter
	seekers map[peer.ID]time.Time          // when each seeker asked last
}

// NewReports returns Reports without any report.
func NewReports() *Reports {
	return &Reports{said: make(map[peer.ID]map[peer.ID]report), seekers: make(map[peer.ID]time.Time)}
}

// Heard takes in the list in reporter's query. Of several reports by one
// reporter about a node the last counts.
func (d *Reports) Heard(now time.Time, reporter peer.ID, list []Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.seekers) >= maxSeekers {
		maps.DeleteFunc(d.seekers, func(_ peer.ID, at time.Time) bool { return now.Sub(at) > seekerAge })
	}
	if len(d.seekers) < maxSeekers {
		d.seekers[reporter] = now
	}
	for _, x := range list[:min(len(list), MaxReports)] {
		if x.Node == reporter || !(x.Trust >= 0 && x.Trust <= 1) {
			continue
		}
		words := d.said[x.Node]
		if words == nil {
			if len(d.said) >= maxReported {
				d.prune(now)
			}
			if len(d.said) >= maxReported {
				continue
			}
			words = make(map[peer.ID]report)
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
		words[reporter] = report{1 - x.Trust, now}
	}
}

// Of returns the trust in node, 0…1.
func (d *Reports) Of(now time.Time, node peer.ID) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	words := d.said[node]
	if len(words) <= trustLeast {
		return 1
	}
	trusts := make([]float64, 0, len(words))
	for _, w := range words {
		if left := w.left(now, shortHalfLife); left > 1-worthTelling {
			trusts = append(trusts, 1-left)
		}
	}
	trust := trustLeast
	if len(trusts) > trustLeast {
		asked := 0
		for _, at := range d.seekers {
			if now.Sub(at) <= seekerAge {
				asked++
			}
		}
		trust = max(trust, min(asked/trustPart, maxReporters/2))
	}
	for range trust {
		trusts = append(trusts, 1)
	}
	slices.Sort(trusts)
	return trusts[len(trusts)/2] // of two in the middle the higher
}

// prune forgets experience that has faded.
func (d *Reports) prune(now time.Time) {
	maps.DeleteFunc(d.said, func(_ peer.ID, words map[peer.ID]report) bool {
		maps.DeleteFunc(words, func(_ peer.ID, w report) bool { return w.left(now, shortHalfLife) <= 1-worthTelling })
		return len(words) == 0
	})
}
