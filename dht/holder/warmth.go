package holder

import (
	"sync/atomic"
	"time"

	"weir/capacity"
)

// Warmth reports whether a node that holds everything has heard from every
// publisher by now. The zero value has not. It is safe for concurrent use. Time
// is passed in.
type Warmth struct {
	noted atomic.Int64 // Unix ns, when Note was called last
	since atomic.Int64 // Unix ns; it holds everything since then; 0: it does not
}

// Note takes in whether the node is one of a few that hold everything. It is
// called by one goroutine, about once a second: a break longer than [Keepalive]
// means that the process was suspended, and that its records are stale.
func (w *Warmth) Note(now time.Time, everything bool) {
	// Use the wall clock: the monotonic one may stand still in a sleep.
	wall := now.UnixNano()
	last := w.noted.Swap(wall)
	switch {
	case !everything:
		w.since.Store(0)
	case w.since.Load() == 0 || time.Duration(wall-last) > Keepalive:
		w.since.Store(wall)
	}
}

// Warm reports whether the node has been one of a few that hold everything for
// a TTL without a break, so that every publisher has had the time to send its
// record. Until then its own memory is no answer.
func (w *Warmth) Warm(now time.Time) bool {
	since := w.since.Load()
	return since != 0 && now.Sub(time.Unix(0, since)) > capacity.DefaultTTL
}
