// Package repair bounds the retransmissions of one stream, and makes packets of
// them (RFC 4588). It keeps no media, sends nothing and looks at no clock.
//
// Whoever sends a packet lets the [Stream] earn from it, spends an ask on each
// packet that the far end requests, and sends it again if that is allowed.
package repair

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/pion/rtp"
)

// Repair is bounded by the media it repairs: whatever the far end requests, a
// stream's retransmissions are at most a share of the stream.
const (
	// Share limits retransmissions to 1/Share of the bytes sent: enough for a
	// loss of a fifth of the packets and a fifth of the repairs.
	Share = 2
	// Start is what may be sent again before anything is earned, and burst the
	// most that can be saved up for a time of loss, in bytes.
	Start = 8 << 10
	burst = 256 << 10
	// askShare bounds the packets requested by those sent, as looking for each
	// costs time; askBurst of them can be saved up.
	askShare = 4
	askBurst = 2048
	// Times is how often one packet is sent again, each time at least half a
	// round trip after the last.
	Times = 8
	// pauseLeast and pauseMost bound that half; the least applies while no
	// round trip is known.
	pauseLeast = 10 * time.Millisecond
	pauseMost  = 200 * time.Millisecond
	// remembered is how many packets apart repairs of one stream are
	// remembered: some seconds of video.
	remembered = 512
)

// RTX is the stream of retransmissions (RFC 4588) beside a media stream.
type RTX struct {
	SSRC        uint32
	PayloadType uint8
}

// A Stream keeps the bounds of the retransmissions of one stream, and their
// numbers.
//
// It is not safe for concurrent use.
type Stream struct {
	budget int      // bytes
	asks   int      // packets that may be requested
	seq    uint16   // of the next retransmission packet
	last   []repair // by packet number, modulo remembered; nil: no repair yet
	buffer []byte   // payload of the retransmission packet that is being sent
}

// A repair is when and how often a packet was sent again.
type repair struct {
	index uint64 // the packet's number
	at    time.Time
	times int
}

// New makes a Stream that may spend Start at once.
func New() Stream {
	return Stream{budget: Start, asks: askBurst, seq: uint16(rand.Uint32())}
}

// Earn adds the share of a packet that was sent, in bytes, to the budget.
func (r *Stream) Earn(size int) {
	r.budget = min(burst, r.budget+size/Share)
	r.asks = min(askBurst, r.asks+askShare)
}

// Ask takes one packet from those that may be requested. It reports false if there
// is none left, until more is earned.
func (r *Stream) Ask() bool {
	if r.asks == 0 {
		return false
	}
	r.asks--
	return true
}

// Allow takes a repair of packet index, of size bytes, from the budget, unless
// a bound forbids it. One packet is not repaired twice within half of rtt, the
// round trip; 0: unknown.
func (r *Stream) Allow(index uint64, size int, now time.Time, rtt time.Duration) bool {
	if r.budget < size {
		return false
	}
	if r.last == nil {
		r.last = make([]repair, remembered)
	}
	last := &r.last[index%remembered]
	switch {
	case index > last.index || last.times == 0:
		*last = repair{index: index}
	case index < last.index || last.times >= Times || now.Sub(last.at) < pauseOf(rtt):
		return false
	}
	r.budget -= size
	last.times++
	last.at = now
	return true
}

// Wrap makes h and payload a retransmission packet: its payload begins with the
// original sequence number (RFC 4588, section 4). The payload returned is valid
// until the next call.
func (r *Stream) Wrap(rtx RTX, h *rtp.Header, payload []byte) []byte {
	r.buffer = append(binary.BigEndian.AppendUint16(r.buffer[:0], h.SequenceNumber), payload...)
	h.SSRC, h.PayloadType, h.SequenceNumber = rtx.SSRC, rtx.PayloadType, r.seq
	h.Padding, h.PaddingSize = false, 0
	r.seq++
	return r.buffer
}

// pauseOf returns the least time between two retransmissions of one packet:
// half of rtt, within bounds.
func pauseOf(rtt time.Duration) time.Duration {
	return min(max(rtt/2, pauseLeast), pauseMost)
}
