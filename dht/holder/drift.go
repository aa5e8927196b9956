package holder

import (
	"time"

	"weir/capacity"
)

const (
	// driftMemory is the number of records over which drift is averaged, about,
	// and driftWeight the session-seconds that give it half its weight.
	driftMemory = 256
	driftWeight = 600
	driftMost   = 0.2 // per second
)

// A drift is the share of a topic's sessions that end per second. It is
// measured when a new record comes in, as the difference between expected and
// reported use. Without it, nodes with old records would look fuller than
// others, because new sessions are counted and ended ones are not, and all
// seekers would choose the nodes that published last. It also corrects shadows
// that count too much or too little.
//
// The zero value is ready for use.
type drift struct{ gone, seen float64 }

// learn compares the expected use at the end of h with the reported one.
func (d *drift) learn(h *Held, now time.Time, r *capacity.Record) {
	age := now.Sub(h.Received).Seconds()
	if h.Record.Carries != nil || !(age > 0 && age <= capacity.MaxTTL.Seconds()) {
		return
	}
	const keep = 1 - 1.0/driftMemory
	// Unexpected sessions, many at once perhaps, do not reduce the rate.
	d.gone = max(0, keep*d.gone+h.shadow.sessions-float64(r.Sessions.Used-h.Record.Sessions.Used))
	d.seen = keep*d.seen + age*float64(h.Record.Sessions.Used)
}

func (d *drift) rate() float64 {
	return min(driftMost, d.gone/(d.seen+driftWeight))
}

// left is the share of a record's reported use that is still in use age later.
func left(rate float64, age time.Duration) float64 { return max(0, 1-rate*max(0, age.Seconds())) }
