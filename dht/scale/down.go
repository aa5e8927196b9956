package scale

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
)

// leaveTime is how long a node that may leave has to end: until then it does
// not count as staying.
const leaveTime = time.Minute

// Down decides which nodes of a region may end: one per cooldown, as long as
// enough stay and have room. It has no clock and is not safe for concurrent
// use.
type Down struct {
	last    time.Time
	granted map[peer.ID]time.Time
}

// Ask answers node, which is idle and wants to end, given the records of its
// region. Nil: it may. If it asks again soon it gets the same answer.
func (r *Down) Ask(now time.Time, p policy.Provision, node peer.ID, region []capacity.Record) *capacity.Refusal {
	p = p.OrDefault()
	for id, at := range r.granted {
		if now.Sub(at) >= leaveTime {
			delete(r.granted, id)
		}
	}
	if _, again := r.granted[node]; again {
		return nil
	}
	if wait := r.last.Add(p.Cooldown).Sub(now); !r.last.IsZero() && wait > 0 {
		return &capacity.Refusal{Reason: "release-cooldown", Detail: "another node was released a short while ago", RetryAfter: wait}
	}
	stay, stress := 0, 0.0
	for i := range region {
		rec := &region[i]
		if _, leaves := r.granted[rec.Node]; leaves || rec.Node == node || rec.State == capacity.Draining {
			continue
		}
		stay++
		stress += rec.Stress()
	}
	switch {
	case stay < p.MinNodes:
		return &capacity.Refusal{Reason: "release-min-nodes", Detail: fmt.Sprintf("%d other nodes would stay in the region, at least %d must", stay, p.MinNodes), RetryAfter: p.Cooldown}
	case stress/float64(stay) >= policy.BinPackTarget:
		return &capacity.Refusal{Reason: "release-room", Detail: fmt.Sprintf("the others' stress is %.2f on average: they need the room", stress/float64(stay)), RetryAfter: p.Cooldown}
	}
	if r.granted == nil {
		r.granted = make(map[peer.ID]time.Time)
	}
	r.granted[node], r.last = now, now
	return nil
}

// Idle measures how long a node has been idle. The zero Idle has just begun.
type Idle struct{ since time.Time }

// Next takes whether the node is empty now, and returns how long it has been
// empty without a break.
func (i *Idle) Next(now time.Time, empty bool) time.Duration {
	if !empty || i.since.IsZero() {
		i.since = now
	}
	return now.Sub(i.since)
}
