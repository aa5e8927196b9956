package cascade

import (
	"time"

	"weir/sfu/forward"
)

const (
	// deliveryEvery is between two looks at what has come.
	deliveryEvery = time.Second
	// ownStress is the stress of this node from which on losses may be its own
	// fault.
	ownStress = 0.9
)

// A delivery is a link's, and is owned by its run.
type delivery struct {
	forward.Delivery
	dropped int64 // by this node's socket, up to the last look
}

// judge has a look at what comes over l, and reports what that tells. While
// this node is short of something itself, it may be the one that loses packets,
// and the window begins anew.
func (l *Link) judge(now time.Time, d *delivery) {
	tallies := map[*forward.UpTrack]forward.Tally{}
	l.mu.Lock()
	for _, in := range l.upstreams {
		for _, f := range in.feeds {
			tallies[f.up] = f.up.Tally()
		}
	}
	l.mu.Unlock()
	cfg := &l.links.cfg
	own := cfg.Ledger.Totals(now)
	before := d.dropped
	d.dropped = cfg.Overflowed()
	if max(own.Stress, own.Load.CPU) >= ownStress || d.dropped > before {
		d.Begin(now, tallies)
		return
	}
	if share, ok := d.Observe(now, tallies); ok {
		cfg.Delivered(l.Peer, share)
	}
}
