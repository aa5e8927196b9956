package holder

import (
	"sync/atomic"
	"time"

	"weir/capacity"
)

// Warmth tells whether a holder of everything has heard of everybody by now. The
// zero value has not, and it is safe for concurrent use. Time is passed in.
type Warmth struct {
	noted atomic.Int64 // Unix ns, when Note was called last
	since atomic.Int64 // Unix ns since when it holds everything; 0: it does not
}

// Note takes in whether the node is one of a few that hold everything. It is
// called by one goroutine, once a second or so: a break longer than [Keepalive]
// means that the process was stopped, and that what it holds is stale.
func (w *Warmth) Note(now time.Time, everything bool) {
	// The wall clock: the monotonic one may stand still in a sleep.
	wall := now.UnixNano()
	last := w.noted.Swap(wall)
	switch {
	case !everything:
		w.since.Store(0)
	case w.since.Load() == 0 || time.Duration(wall-last) > Keepalive:
		w.since.Store(wall)
	}
}

// Warm reports whether the node has been one of a few that hold everything
// for a TTL without a break, so that every publisher has had the time to tell
// it. Until then its own memory is no answer.
func (w *Warmth) Warm(now time.Time) bool {
	since := w.since.Load()
	return since != 0 && now.Sub(time.Unix(0, since)) > capacity.DefaultTTL
}
