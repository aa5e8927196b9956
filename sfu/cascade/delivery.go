package cascade

import (
	"time"

	"weir/sfu/forward"
	"weir/sfu/meter"
)

const (
	// deliveryEvery is the interval of checks of the share of packets received.
	deliveryEvery = time.Second
	// ownStress is the stress of this node from which on losses may be its own
	// fault.
	ownStress = 0.9
)

// A delivery is the state of judge, owned by the link's run.
type delivery struct {
	meter.Delivery[*forward.UpTrack]
	dropped int64 // packets dropped by this node's socket, at the last check
}

// judge checks the share of packets that arrive over l, and reports it. While
// this node itself is overloaded, it may be the one that loses packets, and the
// window starts anew.
func (l *Link) judge(now time.Time, d *delivery) {
	tallies := map[*forward.UpTrack]meter.Tally{}
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
