package holder

import (
	"time"

	"weir/capacity"
)

const (
	// driftMemory is over about how many records drift is averaged, and
	// driftDoubt the session-seconds it takes to be half sure of it.
	driftMemory = 256
	driftDoubt  = 600
	driftMost   = 0.2 // per second
)

// A drift is the share of a topic's sessions that end per second, by how much
// less than expected was used when records came in anew. Without it, nodes
// whose records are old would look fuller than others, as what comes to them is
// counted and what goes is not, and all would choose those that published last.
// What shadows count too much or too little, the drift makes up for as well.
//
// The zero value is ready for use.
type drift struct{ gone, seen float64 }

// learn compares what was expected at the end of h with what is.
func (d *drift) learn(h *Held, now time.Time, r *capacity.Record) {
	age := now.Sub(h.Received).Seconds()
	if h.Record.Carries != nil || !(age > 0 && age <= capacity.MaxTTL.Seconds()) {
		return
	}
	const keep = 1 - 1.0/driftMemory
	// What came unasked, all at once perhaps, is not held against what goes.
	d.gone = max(0, keep*d.gone+h.shadow.sessions-float64(r.Sessions.Used-h.Record.Sessions.Used))
	d.seen = keep*d.seen + age*float64(h.Record.Sessions.Used)
}

func (d *drift) rate() float64 {
	return min(driftMost, d.gone/(d.seen+driftDoubt))
}

// left is the share of what a record says is used that is still, age later.
func left(rate float64, age time.Duration) float64 { return max(0, 1-rate*max(0, age.Seconds())) }
