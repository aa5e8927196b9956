package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/term"
)

// stateCheck is how often a node checks whether it is full.
const stateCheck = 500 * time.Millisecond

// watchState reports when the node becomes full, when it has room again, and
// its remaining sessions when it ends, until ctx is done.
func (n *node) watchState(ctx context.Context) error {
	tick := time.NewTicker(stateCheck)
	defer tick.Stop()
	var full fullness
	for {
		select {
		case <-tick.C:
			now := time.Now()
			if e, changed := full.next(now, n.ledger.Totals(now)); changed {
				n.events.Add(e)
			}
		case <-ctx.Done():
			c := n.sfu.Counts()
			n.events.Add(event.Event{Kind: event.NodeEnding, Detail: fmt.Sprintf("with %s, %s and %s",
				term.Count(c.Publishers, "publisher", "publishers"), term.Count(c.Viewers, "viewer", "viewers"), term.Count(c.Links, "cascade link", "cascade links"))})
			return ctx.Err()
		}
	}
}

// fullness is whether a node is full, and since when. The zero value is not full.
type fullness struct{ since time.Time }

// next takes the newest totals and returns the event to report, if fullness has
// changed. A draining node gives no event.
func (f *fullness) next(now time.Time, t ledger.Totals) (event.Event, bool) {
	switch {
	case t.State == capacity.Full && f.since.IsZero():
		f.since = now
		reason, detail := scarcest(t)
		return event.Event{Time: now, Kind: event.NodeFull, Reason: reason, Detail: detail}, true
	case t.State == capacity.Active && !f.since.IsZero():
		e := event.Event{Time: now, Kind: event.NodeFree, Elapsed: capacity.Milliseconds(now.Sub(f.since)), Detail: fmt.Sprintf("stress %.2f", t.Stress)}
		f.since = time.Time{}
		return e, true
	}
	return event.Event{}, false
}

// scarcest returns the resource nearest to its limit, by its name in refusals,
// and its usage; or the delay, if the node is or was too late.
func scarcest(t ledger.Totals) (reason, detail string) {
	if t.Late {
		return "delay", fmt.Sprintf("packets were served too late within the last %v, now %v late, at most %v", ledger.LateTime, t.Load.Delay.Round(time.Millisecond), t.Load.DelayLimit)
	}
	type resource struct {
		word, text string
		share      float64
	}
	share := func(used, limit int64) float64 {
		if limit <= 0 {
			return 0
		}
		return float64(used) / float64(limit)
	}
	list := []resource{
		{"sessions", fmt.Sprintf("%d of %s", t.Sessions, term.Count(t.Limits.Sessions, "session", "sessions")), share(int64(t.Sessions), int64(t.Limits.Sessions))},
		{"uplink", fmt.Sprintf("%s of %s", term.Bitrate(t.Load.Uplink+t.Reserved), term.Bitrate(t.Limits.Uplink)), share(t.Load.Uplink+t.Reserved, t.Limits.Uplink)},
		{"packets", fmt.Sprintf("%d of %d packets/s", t.Load.Packets, t.Limits.Packets), share(t.Load.Packets, t.Limits.Packets)},
		{"streams", fmt.Sprintf("%d of %s", t.Streams, term.Count(t.Limits.Streams, "stream", "streams")), share(int64(t.Streams), int64(t.Limits.Streams))},
	}
	if t.Load.CPULimit > 0 {
		list = append(list, resource{"cpu", fmt.Sprintf("%.0f %% of the CPU, at most %.0f %%", 100*t.Load.CPU, 100*t.Load.CPULimit), t.Load.CPU / t.Load.CPULimit})
	}
	most := slices.MaxFunc(list, func(a, b resource) int { return cmp.Compare(a.share, b.share) })
	return most.word, most.text
}

// empty reports whether the node has no sessions or links, and no reservations.
func (n *node) empty(now time.Time) bool {
	t, c := n.ledger.Totals(now), n.sfu.Counts()
	return drain.Left(t) == 0 && t.Streams == 0 && c.Streams+c.Publishers+c.Viewers == 0
}

// inWords is the node's state for the service manager.
func (n *node) inWords() string {
	c, totals := n.sfu.Counts(), n.ledger.Totals(time.Now())
	return fmt.Sprintf("%s: %s, %s, %s, stress %.2f", totals.State,
		term.Count(c.Publishers, "publisher", "publishers"), term.Count(c.Viewers, "viewer", "viewers"), term.Count(c.Links, "cascade link", "cascade links"), totals.Stress)
}
