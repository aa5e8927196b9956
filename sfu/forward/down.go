package forward

import (
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"golang.org/x/time/rate"
)

const (
	// keyframeAsks is the number of keyframe requests a second that are served
	// of one viewer, after a burst of keyframeAsksBurst: each costs the
	// publisher and all other viewers bits.
	keyframeAsks      = 1
	keyframeAsksBurst = 4
)

// A Sender sends the packets of a [DownTrack] to its far end. Both methods are
// called with a lock held: they must not block, and must not keep their
// arguments.
type Sender interface {
	// WriteRTP sends one packet and returns the number of bytes sent.
	WriteRTP(header *rtp.Header, payload []byte) (int, error)
	WriteRTCP(packets []rtcp.Packet) error
}

// A Binding is the negotiated parameters of a DownTrack.
type Binding struct {
	Sender      Sender
	SSRC        uint32
	PayloadType uint8
	Extensions  map[string]uint8 // IDs of the forwarded header extensions, by URI
	Repair      bool             // the far end sends NACKs (RFC 4585, section 6.2.1)
	RTX         RTX              // how packets are sent again; zero: under their own SSRC
}

// RTX is the stream of retransmissions (RFC 4588) beside a media stream.
type RTX struct {
	SSRC        uint32
	PayloadType uint8
}

// A DownTrack sends a track to one far end: a viewer, or the other end of a
// cascade link.
//
// It has its own SSRC, sequence numbers and timestamps, which continue without
// a gap when the track's UpTrack changes. Set its fields before Bind.
type DownTrack struct {
	Track *Track
	// Relay is set on a cascade link. A relay DownTrack gets every packet: the
	// need for a keyframe is known downstream.
	Relay bool
	// Begun is called when the first packet is sent, with a lock held. May be
	// nil.
	Begun func(at time.Time)
	// Repairs counts retransmissions, shared with other DownTracks. May be nil.
	Repairs *Repairs

	packets, octets atomic.Uint32
	bytes           atomic.Int64
	lost            atomic.Int64 // as the far end last reported
	rtt             roundTrip    // to the far end, by its receiver reports

	bound atomic.Pointer[Binding]
	ring  atomic.Pointer[ring] // nil: no retransmission
	asks  *rate.Limiter

	// Track.mu guards the following fields.
	header  rtp.Header // header of the packet that is being sent
	since   time.Time  // start of the wait for a keyframe
	up      *UpTrack   // the UpTrack of the offsets; nil before the first packet
	goesOn  bool       // lastSeq, lastTS and lastAt are valid
	first   uint16     // up's sequence number of the first packet sent
	sent    int        // packets of up sent since then
	seqOff  uint16
	timeOff uint32
	lastSeq uint16    // highest sent, in our numbering
	lastTS  uint32    // of lastSeq
	lastAt  time.Time //
}

// NewDownTrack makes a DownTrack that sends t once it is bound and added to t.
func NewDownTrack(t *Track) *DownTrack {
	return &DownTrack{Track: t, asks: rate.NewLimiter(keyframeAsks, keyframeAsksBurst)}
}

// Bind makes d send as b says, from now on.
func (d *DownTrack) Bind(b Binding) {
	if b.Repair {
		d.ring.Store(newRing(d.Track.Codec.Kind()))
	}
	d.bound.Store(&b)
}

// Unbind stops d.
func (d *DownTrack) Unbind() { d.bound.Store(nil) }

// Bound reports whether d is bound.
func (d *DownTrack) Bound() bool { return d.bound.Load() != nil }

// Follow makes d continue the numbering and the ring of a DownTrack that was
// sent under the same SSRC before. Otherwise the far end's SRTP would take the
// packets for replays (RFC 3711, section 3.3.1).
func (d *DownTrack) Follow(last *DownTrack) {
	last.Track.mu.Lock()
	goesOn, seq, ts, at := last.goesOn, last.lastSeq, last.lastTS, last.lastAt
	last.Track.mu.Unlock()
	if r := last.ring.Load(); r != nil {
		d.ring.Store(r)
	}
	d.Track.mu.Lock()
	defer d.Track.mu.Unlock()
	d.goesOn, d.lastSeq, d.lastTS, d.lastAt = goesOn, seq, ts, at
}

// Traffic is the totals of a connection, in or out: RTP packets, their bytes,
// the packets lost, and the packets that begin a keyframe. Bytes are payload on
// the way in, and all of RTP on the way out.
type Traffic struct{ Packets, Bytes, Lost, Keyframes int64 }

// Sent is the totals of a DownTrack.
type Sent struct {
	Packets, Bytes int64         // of RTP, without retransmissions
	Lost           int64         // as the far end last reported
	RTT            time.Duration // to the far end, by its last report; 0: unknown
}

// Sent returns the totals of d.
func (d *DownTrack) Sent() Sent {
	return Sent{Packets: int64(d.packets.Load()), Bytes: d.bytes.Load(), Lost: d.lost.Load(), RTT: d.rtt.last()}
}

// write sends p with d's numbering, and reports whether d no longer waits for a
// keyframe. Called with Track.mu held.
func (d *DownTrack) write(u *UpTrack, sr *senderReport, p *rtp.Packet, key bool, now time.Time) bool {
	b := d.bound.Load()
	if b == nil {
		return false
	}
	begin := d.up != u
	if begin {
		if d.Track.video() && !d.Relay && !key && now.Sub(d.since) < keyframePatience {
			return false
		}
		d.rebase(u, p, now)
	} else if d.sent < 1<<14 && int16(p.SequenceNumber-d.first) < 0 {
		return true // late, from before the first packet sent
	}
	d.sent++

	h := &d.header
	*h = rtp.Header{
		Version:        2,
		Marker:         p.Marker,
		PayloadType:    b.PayloadType,
		SequenceNumber: p.SequenceNumber + d.seqOff,
		Timestamp:      p.Timestamp + d.timeOff,
		SSRC:           b.SSRC,
		Extensions:     h.Extensions[:0],
	}
	if p.Extension {
		for _, id := range p.GetExtensionIDs() {
			if to, ok := b.Extensions[u.exts[id]]; ok {
				// An extension that does not fit harms only the publisher.
				_ = h.SetExtension(to, p.GetExtension(id))
			}
		}
	}
	if r := d.ring.Load(); r != nil {
		r.keep(h, p.Payload)
	}
	// An error means that the transport is closing, which its owner detects
	// itself.
	n, _ := b.Sender.WriteRTP(h, p.Payload)
	if d.packets.Add(1) == 1 && d.Begun != nil {
		d.Begun(now)
	}
	d.octets.Add(uint32(len(p.Payload)))
	d.bytes.Add(int64(n))
	if int16(h.SequenceNumber-d.lastSeq) > 0 || begin {
		d.lastSeq, d.lastTS, d.lastAt = h.SequenceNumber, h.Timestamp, now
	}
	if begin && !sr.at.IsZero() {
		d.report(u, sr, now)
	}
	return true
}

// rebase sets the offsets so that p follows the last packet sent.
func (d *DownTrack) rebase(u *UpTrack, p *rtp.Packet, now time.Time) {
	if d.goesOn {
		elapsed := now.Sub(d.lastAt).Seconds()
		d.seqOff = d.lastSeq + 1 - p.SequenceNumber
		d.timeOff = d.lastTS + max(1, uint32(elapsed*float64(d.Track.Codec.ClockRate))) - p.Timestamp
	}
	d.up, d.first, d.sent, d.goesOn = u, p.SequenceNumber, 0, true
}

// report sends sr, extrapolated to now. Called with Track.mu held.
func (d *DownTrack) report(u *UpTrack, sr *senderReport, now time.Time) {
	b := d.bound.Load()
	if b == nil || d.up != u {
		return
	}
	elapsed := now.Sub(sr.at)
	// NTP time counts seconds in its upper 32 bits.
	ntp := sr.ntp + uint64(elapsed.Seconds()*(1<<32))
	d.rtt.sent(ntp, now)
	_ = b.Sender.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC:        b.SSRC,
		NTPTime:     ntp,
		RTPTime:     sr.rtp + d.timeOff + uint32(elapsed.Seconds()*float64(d.Track.Codec.ClockRate)),
		PacketCount: d.packets.Load(),
		OctetCount:  d.octets.Load(),
	}})
}

// RTCP processes RTCP from the far end, received at now: it passes keyframe
// requests to the track, records reception reports, and sends missing packets
// again.
func (d *DownTrack) RTCP(packets []rtcp.Packet, now time.Time) {
	b := d.bound.Load()
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			if d.Relay || d.asks.AllowN(now, 1) { // behind a relay there are many viewers
				d.Track.RequestKeyframe()
			}
		case *rtcp.ReceiverReport:
			for _, r := range p.Reports {
				if b != nil && r.SSRC == b.SSRC {
					d.lost.Store(lostOf(r))
					d.rtt.reported(r.LastSenderReport, r.Delay, now)
				}
			}
		case *rtcp.TransportLayerNack:
			if b != nil && p.MediaSSRC == b.SSRC {
				d.repair(b, p.Nacks, now)
			}
		}
	}
}

// repair sends the packets of nacks again, within the bounds of repair.
func (d *DownTrack) repair(b *Binding, nacks []rtcp.NackPair, now time.Time) {
	r := d.ring.Load()
	if r == nil {
		return
	}
	pause := repairPause(d.rtt.last())
	for _, pair := range nacks {
		pair.Range(func(seq uint16) bool {
			d.Repairs.count(r.repeat(seq, b.RTX, now, pause, b.Sender))
			return true
		})
	}
}

// lostOf returns the number of packets lost by a report. The field is signed,
// of 24 bits (RFC 3550, section 6.4.1): a duplicate counts against it, so that
// GStreamer's value is negative after each needless repair.
func lostOf(r rtcp.ReceptionReport) int64 { return int64(max(0, int32(r.TotalLost<<8)>>8)) }
