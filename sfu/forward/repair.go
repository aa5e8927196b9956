package forward

import (
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
)

// Repairs counts retransmissions. The zero value is ready.
type Repairs struct {
	sent     atomic.Int64
	withheld atomic.Int64 // requested beyond the bounds
}

// Totals returns how many packets were sent again, and how many were requested
// beyond the bounds of repair.
func (r *Repairs) Totals() (sent, withheld int64) { return r.sent.Load(), r.withheld.Load() }

func (r *Repairs) count(what outcome) {
	switch {
	case r == nil:
	case what == repaired:
		r.sent.Add(1)
	case what == withheld, what == overasked:
		r.withheld.Add(1)
	}
}

// An outcome is that of a request for one packet.
type outcome int

const (
	unknown   outcome = iota // not kept: too old, or never sent
	repaired                 //
	withheld                 // withheld by a bound
	overasked                // as are all that come with it
)

// repair sends the packets of nacks again, within the bounds of repair.
func (d *DownTrack) repair(b *Binding, nacks []rtcp.NackPair, now time.Time) {
	if !b.Repair {
		return
	}
	rtt := d.rtt.Last()
	for i := 0; i < len(nacks); i++ {
		nacks[i].Range(func(seq uint16) bool {
			what := d.repeat(b, seq, now, rtt)
			d.Repairs.count(what)
			if what == overasked {
				i = len(nacks)
			}
			return what != overasked
		})
	}
}

// repeat sends one packet again: as a retransmission packet where these were
// negotiated, else unchanged.
func (d *DownTrack) repeat(b *Binding, seq uint16, now time.Time, rtt time.Duration) outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.repairs.Ask() {
		return overasked
	}
	behind := uint64(uint16(d.index) - seq)
	if behind >= 1<<15 || behind > d.index {
		return unknown // it was not sent yet
	}
	index := d.index - behind
	s := spanOf(d.spans, index)
	if s == nil {
		return unknown
	}
	k, ok := s.ring.get(s.source, index-s.shift)
	if !ok {
		return unknown
	}
	h, payload := d.packetOf(b, s, &k)
	if !d.repairs.Allow(index, h.MarshalSize()+len(payload), now, rtt) {
		return withheld
	}
	if b.RTX.SSRC != 0 && b.RTX.PayloadType != 0 {
		payload = d.repairs.Wrap(b.RTX, h, payload)
	}
	_, _ = b.Sender.WriteRTP(h, payload) // it fails when the transport closes
	return repaired
}
