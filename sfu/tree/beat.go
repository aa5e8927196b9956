package tree

import "time"

const (
	// beatEvery is the interval at which an origin counts.
	beatEvery = 200 * time.Millisecond
	// orphanAfter is the age of the newest beat from which on a relay is cut off
	// from its origin.
	orphanAfter = 5 * beatEvery
	// DefaultGrace is how long a stream outlives its origin or its publisher.
	DefaultGrace = 10 * time.Second
)

// A Beat is the newest count of a stream's origin, which counts five a second:
// while it rises, the origin is there.
type Beat struct {
	Count uint64
	Age   time.Duration // since the origin counted it
}

// A pulse is what one node knows of the beats of a stream: it counts them
// itself, as the origin does, or it follows those that its parent passes on.
// Time is passed in.
type pulse struct {
	counting bool
	count    uint64
	at       time.Time // when count was counted, by this node's clock
}

// begin makes the node count from now on.
func (p *pulse) begin(now time.Time) {
	if !p.counting {
		p.counting, p.at = true, now
	}
}

// stop makes the node count no longer: now was its last beat.
func (p *pulse) stop(now time.Time) {
	if p.counting {
		p.count, p.at, p.counting = p.newest(now).Count, now, false
	}
}

// follow takes a beat of the parent's. A later one never makes the pulse older.
func (p *pulse) follow(b Beat, now time.Time) {
	at := now.Add(-max(0, b.Age))
	if p.counting || at.After(p.at) {
		p.at = at
	}
	p.counting, p.count = false, b.Count
}

// newest is the newest beat at now.
func (p *pulse) newest(now time.Time) Beat {
	since := max(0, now.Sub(p.at))
	if !p.counting {
		return Beat{p.count, since}
	}
	return Beat{p.count + uint64(since/beatEvery), since % beatEvery}
}
