package forward

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"golang.org/x/time/rate"

	"weir/sfu/congestion"
	"weir/sfu/forward/repair"
	"weir/sfu/layer"
	"weir/sfu/meter"
)

const (
	// keyframeAsks is the number of keyframe requests a second that are served
	// of one viewer, after a burst of keyframeAsksBurst: each costs the
	// publisher and all other viewers bits.
	keyframeAsks      = 1
	keyframeAsksBurst = 4
)

// A Sender sends the packets of a [DownTrack] to its far end. Its methods are
// called with the DownTrack's lock held: they must not block, and must not keep
// their arguments.
type Sender interface {
	// WriteRTP sends one packet and returns the number of bytes sent. If the
	// header says so, padding is added to it.
	WriteRTP(header *rtp.Header, payload []byte) (int, error)
	WriteRTCP(packets []rtcp.Packet) error
}

// A Binding is the negotiated parameters of a DownTrack.
type Binding struct {
	Sender       Sender
	SSRC         uint32
	PayloadType  uint8
	Extensions   map[string]uint8 // IDs of the forwarded header extensions, by URI
	Form         Form             // of header extensions
	MID          []byte           // of the section, for the first packets
	MIDExtension uint8            // its ID; 0: none
	Repair       bool             // the far end sends NACKs (RFC 4585, section 6.2.1)
	RTX          repair.RTX       // how packets are sent again; zero: under their own SSRC
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
	// Repairs counts retransmissions, and Skips what was skipped, shared with
	// other DownTracks. Either may be nil.
	Repairs *Repairs
	Skips   *Skips

	packets, octets atomic.Uint32
	bytes           atomic.Int64
	lost            atomic.Int64     // as the far end last reported
	skipped         atomic.Int64     // packets not sent, as they had waited for too long
	rtt             meter.ReportTrip // to the far end, by its receiver reports

	limit  atomic.Int64           // bit/s; 0: none
	choice atomic.Pointer[Choice] // by hand; nil: none
	pace   congestion.Pace

	bound atomic.Pointer[Binding]
	asks  *rate.Limiter

	// mu is held while packets are sent, and shared with no other DownTrack.
	mu                  sync.Mutex
	added               bool       // to Track
	header              rtp.Header // header of the packet that is being sent
	since               time.Time  // start of the wait for a keyframe
	source              *source    // the source of the last span; nil before the first packet
	to                  *Track     // the encoding to send; nil: not added yet
	filter              layer.Filter
	rewriter            layer.Rewriter
	compact             bool      // pictures that are left out are not counted (VP8)
	omitted             uint32    // the picture left out last, by its ID, and 1; 0: none
	payload, descriptor []byte    // of the packet that is being sent, if rewritten
	skipping            bool      // packets have been skipped since the last one sent
	skips               time.Time // since when, video
	numbering                     // continued by the DownTrack that follows
}

// NewDownTrack makes a DownTrack that sends t once it is bound and added to t.
func NewDownTrack(t *Track) *DownTrack {
	return &DownTrack{
		Track: t, asks: rate.NewLimiter(keyframeAsks, keyframeAsksBurst), numbering: numbering{repairs: repair.New()},
		filter: layer.NewFilter(layer.All), rewriter: layer.NewRewriter(t.Codec.MimeType), compact: strings.EqualFold(t.Codec.MimeType, "video/VP8"),
	}
}

// Bind makes d send as b says, from now on.
func (d *DownTrack) Bind(b Binding) { d.bound.Store(&b) }

// Unbind stops d.
func (d *DownTrack) Unbind() { d.bound.Store(nil) }

// Bound reports whether d is bound.
func (d *DownTrack) Bound() bool { return d.bound.Load() != nil }

// Follow makes d continue the numbering and the repair of a DownTrack that was
// sent under the same SSRC before, and is not any more. Otherwise the far end's
// SRTP would take the packets for replays (RFC 3711, section 3.3.1).
func (d *DownTrack) Follow(last *DownTrack) {
	last.mu.Lock()
	n := last.numbering
	n.spans = slices.Clone(n.spans)
	last.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbering, d.source = n, nil
}

// Traffic is the totals of a connection, in or out: RTP packets, their bytes,
// the packets lost, and the packets that begin a keyframe. Bytes are payload on
// the way in, and all of RTP on the way out. Skipped is of the way out; see
// [Sent].
type Traffic struct{ Packets, Bytes, Lost, Keyframes, Skipped int64 }

// Sent is the totals of a DownTrack.
type Sent struct {
	Packets, Bytes int64         // of RTP, without retransmissions
	Lost           int64         // as the far end last reported
	Skipped        int64         // packets that the node could not send in time, and did not
	RTT            time.Duration // to the far end, by its last report; 0: unknown
}

// Sent returns the totals of d.
func (d *DownTrack) Sent() Sent {
	return Sent{Packets: int64(d.packets.Load()), Bytes: d.bytes.Load(), Lost: d.lost.Load(), Skipped: d.skipped.Load(), RTT: d.rtt.Last()}
}

// join makes d send what it is given, from a keyframe on, and reports whether
// nothing was sent under its numbering before.
func (d *DownTrack) join(now time.Time) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.added {
		d.added, d.since = true, now
	}
	return !d.goesOn
}

// Added reports whether d is a receiver of its track.
func (d *DownTrack) Added() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.added
}

// await restarts the time for which d waits for a keyframe.
func (d *DownTrack) await(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = now
}

// leave makes d send nothing any more. If it is added again, it begins like one
// whose source has changed: video with a keyframe.
func (d *DownTrack) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.added, d.to, d.source = false, nil, nil
}

// fallBehind makes d wait for a keyframe, which it requests.
func (d *DownTrack) fallBehind(now time.Time) {
	d.mu.Lock()
	d.skipping, d.skips = d.goesOn, now
	d.mu.Unlock()
	d.serving().RequestKeyframe()
}

// write sends packets with d's numbering, in batch if the Sender can, and
// reports whether d no longer waits for a keyframe. Those that d catches up with
// may be older than what has waited for it.
func (d *DownTrack) write(batch *Batch, packets []kept, catchUp bool) (served bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.at()
	served = d.writeAll(batch, packets, catchUp)
	if was != nil && was != d.at() {
		was.release(d) // before a review can choose it again, and find d added
	}
	return served
}

// writeAll is write, called with mu held.
func (d *DownTrack) writeAll(batch *Batch, packets []kept, catchUp bool) (served bool) {
	b := d.bound.Load()
	if b == nil || !d.added {
		return false
	}
	now := time.Now()
	for i := range packets {
		switch k := &packets[i]; {
		case k.source != d.source && k.source.up.track != d.to && k.source.up.track != d.at():
			served = true // of an encoding that it has left
		case !catchUp && d.skip(k, now):
			served = false
		default:
			served = d.send(b, batch, k, now)
		}
	}
	return served
}

// begins reports whether d can begin to send k's source with k.
func (d *DownTrack) begins(k *kept) bool {
	switch at, from := d.at(), k.source.up.track; {
	case !d.Track.video() || k.key:
		return true
	case at != nil && at != from: // encodings whose keyframes are not told never have one
		return from.keyframes.Load() == 0 && k.at.Sub(d.since) >= keyframePatience
	default:
		return d.Relay || k.at.Sub(d.since) >= keyframePatience
	}
}

// send sends one packet, unless it is of a layer that is left out, and reports
// whether d no longer waits for a keyframe. Called with mu held.
func (d *DownTrack) send(b *Binding, batch *Batch, k *kept, now time.Time) bool {
	begin := d.source != k.source
	if begin && !d.begins(k) {
		return false
	}
	if begin {
		d.filter.Restart()
	}
	pass := d.filter.Pass(&k.info, k.timestamp)
	switch {
	case begin:
		d.rebase(b, k)
	case d.skipping || d.far(k):
		d.goOn(k)
	}
	d.skipping = false
	if !pass {
		d.omit(k)
		return true
	}
	if !begin && d.newest(k) {
		d.advance(k)
	}
	s := spanFor(d.spans, k)
	if s == nil {
		return true // late: from before the first packet sent, or left out
	}
	h, payload := d.packetOf(b, s, k)
	d.repairs.Earn(h.MarshalSize() + len(payload))
	// An error means that the transport is closing, which its owner detects
	// itself.
	n, _ := emit(b.Sender, batch, h, payload)
	if d.packets.Add(1) == 1 && d.Begun != nil {
		d.Begun(now)
	}
	d.octets.Add(uint32(len(payload)))
	d.bytes.Add(int64(n))
	// Also a late packet may be the highest: those after it were left out.
	if index := k.position + s.shift; begin || int64(index-d.index) > 0 {
		d.index, d.lastTS, d.lastAt, d.last = index, h.Timestamp, k.at, s.numbers.Of(k.info.Number)
	}
	if begin {
		if sr := k.source.up.track.lastReport(); sr.up == k.source.up {
			d.sendReport(b, &sr, now)
		}
	}
	return true
}

// skip reports whether k is skipped because it has waited for too long, or
// another has that it follows. Frames are skipped whole, up to a keyframe.
func (d *DownTrack) skip(k *kept, now time.Time) bool {
	begin, waited := d.source != k.source, now.Sub(k.at)
	video := d.Track.video()
	switch {
	case !video:
		d.skipping = d.skipping || waited > queueAudio
		if waited <= queueAudio {
			return false
		}
	case waited > queueVideo && !d.skipping && (begin || k.timestamp+d.spans[len(d.spans)-1].timeOff != d.lastTS):
		d.skipping, d.skips = true, now
		k.source.up.requestKeyframe()
	case !d.skipping || waited <= queueVideo && (k.key || now.Sub(d.skips) >= keyframePatience):
		return false
	}
	d.skipped.Add(1)
	d.Skips.add(video)
	return true
}

// report sends sr, a sender report of u, extrapolated to now.
func (d *DownTrack) report(u *UpTrack, sr *senderReport, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.bound.Load(); b != nil && d.added && d.source != nil && d.source.up == u {
		d.sendReport(b, sr, now)
	}
	// A ring that d has left is of no use for repair any more.
	old := 0
	for old+1 < len(d.spans) && now.Sub(d.spans[old+1].began) > ringTime {
		old++
	}
	d.spans = slices.Delete(d.spans, 0, old)
}

// sendReport sends sr, extrapolated to now. Called with mu held.
func (d *DownTrack) sendReport(b *Binding, sr *senderReport, now time.Time) {
	elapsed := now.Sub(sr.at)
	// NTP time counts seconds in its upper 32 bits.
	ntp := sr.ntp + uint64(elapsed.Seconds()*(1<<32))
	d.rtt.Sent(ntp, now)
	_ = b.Sender.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC:        b.SSRC,
		NTPTime:     ntp,
		RTPTime:     sr.rtp + d.spans[len(d.spans)-1].timeOff + uint32(elapsed.Seconds()*float64(d.Track.Codec.ClockRate)),
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
				d.serving().RequestKeyframe()
			}
		case *rtcp.ReceiverReport:
			for _, r := range p.Reports {
				if b != nil && r.SSRC == b.SSRC {
					d.lost.Store(lostOf(r))
					d.rtt.Reported(r.LastSenderReport, r.Delay, now)
				}
			}
		case *rtcp.TransportLayerNack:
			if b != nil && p.MediaSSRC == b.SSRC {
				d.repair(b, p.Nacks, now)
			}
		}
	}
}

// lostOf returns the number of packets lost by a report. The field is signed,
// of 24 bits (RFC 3550, section 6.4.1): a duplicate counts against it, so that
// GStreamer's value is negative after each needless repair.
func lostOf(r rtcp.ReceptionReport) int64 { return int64(max(0, int32(r.TotalLost<<8)>>8)) }
