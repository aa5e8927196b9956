package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// Repair is bounded by the media it repairs: whatever the far end requests, a
// stream's retransmissions are at most a share of the stream.
const (
	// repairShare limits retransmissions to 1/repairShare of the bytes sent:
	// enough for a loss of a fifth of the packets and a fifth of the repairs.
	repairShare = 2
	// repairStart is what may be sent again before anything is earned, and
	// repairBurst the most that can be saved up for a time of loss, in bytes.
	repairStart = 8 << 10
	repairBurst = 256 << 10
	// requestShare bounds the packets requested by those sent, as looking for
	// each costs time; requestBurst of them can be saved up.
	requestShare = 4
	requestBurst = 2048
	// repairTimes is how often one packet is sent again, each time at least
	// half a round trip after the last.
	repairTimes = 8
	// repairPauseLeast and repairPauseMost bound that half; the least applies
	// while no round trip is known.
	repairPauseLeast = 10 * time.Millisecond
	repairPauseMost  = 200 * time.Millisecond
	// repairsKept is how many packets apart repairs of one DownTrack are
	// remembered: some seconds of video.
	repairsKept = 512
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

// A repairer keeps the bounds of one DownTrack's retransmissions, and their
// numbers.
type repairer struct {
	budget int      // bytes
	asks   int      // packets that may be requested
	seq    uint16   // of the next retransmission packet
	last   []repair // by packet number, modulo repairsKept; nil: no repair yet
	buffer []byte   // payload of the retransmission packet that is being sent
}

// A repair is when and how often a packet was sent again.
type repair struct {
	index uint64 // the packet's number
	at    time.Time
	times int
}

func newRepairer() repairer {
	return repairer{budget: repairStart, asks: requestBurst, seq: uint16(rand.Uint32())}
}

// earn adds the share of a packet that was sent to the budget.
func (r *repairer) earn(size int) {
	r.budget = min(repairBurst, r.budget+size/repairShare)
	r.asks = min(requestBurst, r.asks+requestShare)
}

// allow takes a repair of packet index, of size bytes, from the budget, unless
// a bound forbids it. One packet is not repaired twice within pause.
func (r *repairer) allow(index uint64, size int, now time.Time, pause time.Duration) bool {
	if r.budget < size {
		return false
	}
	if r.last == nil {
		r.last = make([]repair, repairsKept)
	}
	last := &r.last[index%repairsKept]
	switch {
	case index > last.index || last.times == 0:
		*last = repair{index: index}
	case index < last.index || last.times >= repairTimes || now.Sub(last.at) < pause:
		return false
	}
	r.budget -= size
	last.times++
	last.at = now
	return true
}

// wrap makes h and payload a retransmission packet: its payload begins with the
// original sequence number (RFC 4588, section 4). The payload returned is valid
// until the next call.
func (r *repairer) wrap(rtx RTX, h *rtp.Header, payload []byte) []byte {
	r.buffer = append(binary.BigEndian.AppendUint16(r.buffer[:0], h.SequenceNumber), payload...)
	h.SSRC, h.PayloadType, h.SequenceNumber = rtx.SSRC, rtx.PayloadType, r.seq
	h.Padding, h.PaddingSize = false, 0
	r.seq++
	return r.buffer
}

// repairPause returns the least time between two retransmissions of one packet:
// half of the round trip; 0 if that is unknown.
func repairPause(rtt time.Duration) time.Duration {
	return min(max(rtt/2, repairPauseLeast), repairPauseMost)
}

// repair sends the packets of nacks again, within the bounds of repair.
func (d *DownTrack) repair(b *Binding, nacks []rtcp.NackPair, now time.Time) {
	if !b.Repair {
		return
	}
	pause := repairPause(d.rtt.Last())
	for i := 0; i < len(nacks); i++ {
		nacks[i].Range(func(seq uint16) bool {
			what := d.repeat(b, seq, now, pause)
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
func (d *DownTrack) repeat(b *Binding, seq uint16, now time.Time, pause time.Duration) outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.repairs.asks == 0 {
		return overasked
	}
	d.repairs.asks--
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
	if !d.repairs.allow(index, h.MarshalSize()+len(payload), now, pause) {
		return withheld
	}
	if b.RTX.SSRC != 0 && b.RTX.PayloadType != 0 {
		payload = d.repairs.wrap(b.RTX, h, payload)
	}
	_, _ = b.Sender.WriteRTP(h, payload) // it fails when the transport closes
	return repaired
}
