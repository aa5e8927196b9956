package ledger

import (
	"time"

	"weir/capacity"
)

// Totals is a ledger's state at one moment.
type Totals struct {
	Sessions   int            `json:"sessions"` // active and leased, without cascades
	Viewers    int            `json:"viewers"`  // active
	Publishers int            `json:"publishers"`
	Cascades   int            `json:"cascades"`
	Streams    int            `json:"streams"`  // distinct ones, active and leased
	Leases     int            `json:"leases"`   // not claimed yet
	Leased     int            `json:"-"`        // leases that count as sessions
	Reserved   int64          `json:"reserved"` // bit/s promised and not yet measured
	Stress     float64        `json:"stress"`
	State      capacity.State `json:"state"`
	Late       bool           `json:"-"` // it served packets too late within LateTime

	Load   Load   `json:"-"` // as last observed
	Limits Limits `json:"-"`
}

// Totals sums up the promises and the measured load.
func (l *Ledger) Totals(now time.Time) Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	t := Totals{
		Sessions:   l.sessions(),
		Viewers:    l.count[capacity.View],
		Publishers: l.count[capacity.Publish],
		Cascades:   l.count[capacity.Cascade],
		Streams:    len(l.streams),
		Leases:     len(l.leases),
		Leased:     l.leased,
		Reserved:   l.promised.Uplink,
		Load:       l.load,
		Limits:     l.limits,
		Late:       l.isLate(),
	}
	var r capacity.Record
	t.Fill(&r)
	t.Stress = r.Stress()
	judged := r
	if l.idle() {
		judged.CPULimit = 0
	}
	full := l.stress.Next(judged.Stress()) || l.busy() || t.Late
	switch {
	case l.draining:
		t.State = capacity.Draining
	case full:
		t.State = capacity.Full
	}
	return t
}

// Fill sets the fields of r that the ledger knows: the state, CPU, delay,
// uplink, packets, sessions, streams and the reserved uplink.
func (t Totals) Fill(r *capacity.Record) {
	r.State = t.State
	r.CPU, r.CPULimit, r.Delay = t.Load.CPU, t.Load.CPULimit, t.Load.Delay.Round(time.Microsecond)
	r.Uplink = capacity.Usage{Used: t.Load.Uplink, Limit: t.Limits.Uplink}
	r.Packets = capacity.Usage{Used: t.Load.Packets, Limit: t.Limits.Packets}
	r.Sessions = capacity.Usage{Used: int64(t.Sessions), Limit: int64(t.Limits.Sessions)}
	r.Streams = capacity.Usage{Used: int64(t.Streams), Limit: int64(t.Limits.Streams)}
	r.Reserved = min(t.Reserved, capacity.MaxQuantity) // without an uplink limit, any amount can be promised
}
