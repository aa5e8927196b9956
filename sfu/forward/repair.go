package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

// Repair is bounded by the media it repairs: whatever the far end requests, a
// stream's retransmissions are at most a share of the stream.
const (
	// repairShare limits retransmissions to 1/repairShare of the bytes sent:
	// enough for a loss of a fifth of the packets and a fifth of the repairs.
	repairShare = 2
	// repairBurst is the most that can be saved up for a time of loss, in
	// bytes.
	repairBurst = 256 << 10
	// repairTimes is how often one packet is sent again, each time at least
	// half a round trip after the last.
	repairTimes = 8
	// repairPauseLeast and repairPauseMost bound that half; the least applies
	// while no round trip is known.
	repairPauseLeast = 10 * time.Millisecond
	repairPauseMost  = 200 * time.Millisecond
	// ringVideo and ringAudio are the numbers of packets kept for repair: some
	// seconds.
	ringVideo = 1024
	ringAudio = 128
)

// Repairs counts retransmissions. The zero value is ready.
type Repairs struct {
	sent     atomic.Int64
	withheld atomic.Int64 // requested beyond the bounds
}

// Totals returns how many packets were sent again, and how many were requested
// beyond the bounds of repair.
func (r *Repairs) Totals() (sent, withheld int64) { return r.sent.Load(), r.withheld.Load() }

func (r *Repairs) count(what repair) {
	switch {
	case r == nil:
	case what == repairSent:
		r.sent.Add(1)
	case what == repairWithheld:
		r.withheld.Add(1)
	}
}

// A ring holds the last packets that a DownTrack sent, for retransmission.
type ring struct {
	mu     sync.Mutex
	slots  []kept // by sequence number, modulo their number
	newest uint16
	began  bool
	budget int // bytes
	rtxSeq uint16
}

// kept is a packet as it was sent.
type kept struct {
	packet []byte // empty: none
	seq    uint16
	times  uint8 // times it was sent again
	last   time.Time
}

func newRing(kind Kind) *ring {
	size := ringVideo
	if kind == Audio {
		size = ringAudio
	}
	return &ring{slots: make([]kept, size), budget: repairBurst, rtxSeq: uint16(rand.Uint32())}
}

// keep stores one packet, and adds its share to the repair budget.
func (r *ring) keep(header *rtp.Header, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ahead := int16(header.SequenceNumber - r.newest); !r.began || ahead > 0 {
		r.newest, r.began = header.SequenceNumber, true
	} else if int(-ahead) >= len(r.slots) {
		return
	}
	k := &r.slots[int(header.SequenceNumber)%len(r.slots)]
	size := header.MarshalSize()
	k.packet = slices.Grow(k.packet[:0], size+len(payload))[:size]
	if _, err := header.MarshalTo(k.packet); err != nil {
		k.packet = k.packet[:0]
		return
	}
	k.packet = append(k.packet, payload...)
	k.seq, k.times, k.last = header.SequenceNumber, 0, time.Time{}
	r.budget = min(repairBurst, r.budget+len(k.packet)/repairShare)
}

// A repair is the outcome of a request for one packet.
type repair int

const (
	repairUnknown  repair = iota // not kept: too old, or never sent
	repairSent                   //
	repairWithheld               // withheld by a bound
)

// repeat sends one packet again, as a retransmission packet where rtx is set,
// else unchanged. It does not within pause of the last time. The sender does
// not block, so mu may be held.
func (r *ring) repeat(seq uint16, rtx RTX, now time.Time, pause time.Duration, to Sender) repair {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &r.slots[int(seq)%len(r.slots)]
	if len(k.packet) == 0 || k.seq != seq {
		return repairUnknown
	}
	if r.budget < len(k.packet) || k.times >= repairTimes || k.times > 0 && now.Sub(k.last) < pause {
		return repairWithheld
	}
	var p rtp.Packet
	if p.Unmarshal(k.packet) != nil {
		return repairUnknown
	}
	r.budget -= len(k.packet)
	k.times++
	k.last = now
	if rtx.SSRC != 0 && rtx.PayloadType != 0 {
		// RFC 4588, section 4: the payload begins with the original sequence
		// number.
		p.Payload = append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(p.Payload)), seq), p.Payload...)
		p.SSRC, p.PayloadType, p.SequenceNumber = rtx.SSRC, rtx.PayloadType, r.rtxSeq
		p.Padding, p.PaddingSize = false, 0
		r.rtxSeq++
	}
	_, _ = to.WriteRTP(&p.Header, p.Payload) // it fails when the transport closes
	return repairSent
}

// repairPause returns the least time between two retransmissions of one packet:
// half of the round trip; 0 if that is unknown.
func repairPause(rtt time.Duration) time.Duration {
	return min(max(rtt/2, repairPauseLeast), repairPauseMost)
}
