package sfu

import (
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"golang.org/x/time/rate"

	"weir/sfu/keyframe"
)

const (
	// keyframeInterval is the least time between two keyframe requests to one
	// source: however many viewers ask, the encoder hears of one.
	keyframeInterval = 250 * time.Millisecond
	// keyframePatience is how long a new viewer is kept from frames that it
	// could not decode. Past that it gets what there is: the payload may be
	// encrypted end to end, so that no keyframe can be told (RFC 9605).
	keyframePatience = 2 * time.Second
	// keyframeAsks are the keyframe requests that one viewer makes a second, once
	// keyframeAsksBurst are used up: each costs the publisher and all other
	// viewers bits.
	keyframeAsks      = 1
	keyframeAsksBurst = 4
)

// A Track is one RTP stream of a [Stream], and forwards every packet that its
// source feeds it to all of its outs.
//
// Sender reports are carried rather than made: every out repeats the
// publisher's own pairs of NTP and RTP time (RFC 3550, section 6.4.1), moved
// by no more than that out's timestamp offset, so that audio and video stay in
// sync over any number of hops.
type Track struct {
	ID    string // "video0", in the order of the publisher's offer
	Codec webrtc.RTPCodecCapability

	packets, bytes, keyframes atomic.Int64

	// mu is held while a packet is handed to the outs. Their writes end in a
	// UDP socket, which does not block.
	mu     sync.Mutex
	source *source
	outs   []*out
	report senderReport
	sets   *parameterSets // of H264 that come out of band; nil: none
}

// A source is one upstream of a track, from the moment that its first packet
// came until another took over.
type source struct {
	clock uint32
	// ask sends one keyframe request upstream; false if that is not possible yet.
	ask func() bool

	came, lost atomic.Int64 // packets; those that come late are not lost
	report     atomic.Pointer[sourceReport]
	// exts are the header extensions by their ID on this hop. The goroutine
	// that feeds sets them before the first packet.
	exts map[uint8]string

	mu      sync.Mutex
	asked   time.Time
	wanted  bool        // a request could not be sent yet
	waiting *time.Timer // the request that was put off
	closed  bool
}

// senderReport is the last that came, and when, by our clock.
type senderReport struct {
	ntp uint64
	rtp uint32
	at  time.Time
}

// video reports whether the track's packets depend on each other.
func (t *Track) video() bool { return t.kind() == webrtc.RTPCodecTypeVideo }

func (t *Track) kind() webrtc.RTPCodecType { return kindOf(t.Codec.MimeType) }

// attach makes s the track's source from now on. Outs go on with their own
// numbering, and video waits for a keyframe, which is asked for.
func (t *Track) attach(s *source) {
	t.mu.Lock()
	t.source = s
	t.report = senderReport{}
	need := t.video() && len(t.outs) > 0
	now := time.Now()
	for _, o := range t.outs {
		o.since = now
	}
	t.mu.Unlock()
	if need {
		s.requestKeyframe()
	}
}

// goOnAs has t take what another publisher's offer says of the track that goes
// on as t.
func (t *Track) goOnAs(next *Track) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sets = next.sets
}

// add begins forwarding to o and asks for a keyframe.
func (t *Track) add(o *out) {
	t.mu.Lock()
	if slices.Contains(t.outs, o) {
		t.mu.Unlock()
		return
	}
	o.since = time.Now()
	t.outs = append(t.outs, o)
	source := t.source
	t.mu.Unlock()
	if source != nil && t.video() && !o.relay {
		source.requestKeyframe()
	}
}

func (t *Track) remove(o *out) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.outs, o); i >= 0 {
		t.outs = slices.Delete(t.outs, i, i+1)
	}
}

// requestKeyframe asks the source, if there is one yet.
func (t *Track) requestKeyframe() {
	t.mu.Lock()
	source := t.source
	t.mu.Unlock()
	if source != nil && t.video() {
		source.requestKeyframe()
	}
}

// requestKeyframe asks at once, or at the end of keyframeInterval if it was
// asked within it.
func (s *source) requestKeyframe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.waiting != nil {
		return
	}
	if wait := keyframeInterval - time.Since(s.asked); wait > 0 {
		s.waiting = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.waiting = nil
			s.send()
		})
		return
	}
	s.send()
}

// send asks now. Called with mu held: ask writes one datagram, which does not
// block.
func (s *source) send() {
	if s.closed {
		return
	}
	if s.wanted = !s.ask(); !s.wanted {
		s.asked = time.Now()
	}
}

// reachable says that ask may work from now on.
func (s *source) reachable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted {
		s.send()
	}
}

// gotKeyframe cancels a request that was put off: what it would ask for is
// here.
func (s *source) gotKeyframe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != nil && s.waiting.Stop() {
		s.waiting = nil
	}
}

// tally is what has come so far.
func (s *source) tally() tally { return tally{s.came.Load(), s.lost.Load(), s.report.Load()} }

func (s *source) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.waiting != nil {
		s.waiting.Stop()
		s.waiting = nil
	}
}

// feed forwards one packet of s, which may be renumbered, and reports whether it
// begins a keyframe. A source that was replaced is not taken.
func (t *Track) feed(s *source, p *rtp.Packet) (key, taken bool) {
	key = t.video() && keyframe.Is(t.Codec.MimeType, p.Payload)
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))

	now := time.Now()
	served := true
	t.mu.Lock()
	if t.source != s {
		t.mu.Unlock()
		return key, false
	}
	if t.sets != nil {
		for _, set := range t.sets.before(s, p) {
			for _, o := range t.outs {
				o.write(s, &t.report, set, true, now)
			}
		}
	}
	for _, o := range t.outs {
		served = o.write(s, &t.report, p, key, now) && served
	}
	t.mu.Unlock()
	if key {
		t.keyframes.Add(1)
		if served {
			s.gotKeyframe()
		}
	}
	return key, true
}

// feedReport passes a sender report of s on to the outs.
func (t *Track) feedReport(s *source, ntp uint64, rtpTime uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.source != s {
		return
	}
	t.report = senderReport{ntp: ntp, rtp: rtpTime, at: time.Now()}
	for _, o := range t.outs {
		o.report(s, &t.report, t.report.at)
	}
}

// An out is one leg that a track is forwarded to: a viewer's, or a cascade
// link's. It is a [webrtc.TrackLocal].
//
// The leg has an SSRC, sequence numbers and timestamps of its own, which go on
// without a gap when the track's source changes.
type out struct {
	track *Track
	// writeRTCP sends on the leg's PeerConnection.
	writeRTCP func([]rtcp.Packet) error

	packets, octets atomic.Uint32
	bytes           atomic.Int64
	lost            atomic.Int64 // as the far end last reported
	rtt             roundTrip    // to the far end, by its reports

	bound  atomic.Pointer[binding]
	stream string // msid
	// relay outs get every packet: who needs a keyframe is known downstream.
	relay bool
	// begun is told when the first packet is sent, with track.mu held. May be nil.
	begun func(at time.Time)
	codec *offered // a viewer's section's; nil: any of the track's name

	// The rest belongs to track.mu.
	since   time.Time // waiting for a keyframe from then on
	source  *source   // whose numbering the offsets are for; nil before the first packet
	goesOn  bool      // lastSeq, lastTS and lastAt hold
	first   uint16    // source's sequence number of the first packet sent
	sent    int       // packets of source since then
	seqOff  uint16
	timeOff uint32
	lastSeq uint16    // highest sent, in our numbering
	lastTS  uint32    // of lastSeq
	lastAt  time.Time //
}

// binding is what the negotiation settled.
type binding struct {
	id     string
	writer webrtc.TrackLocalWriter
	ssrc   uint32
	pt     uint8
	exts   map[string]uint8
}

func newOut(t *Track, stream string, writeRTCP func([]rtcp.Packet) error) *out {
	return &out{track: t, stream: stream, writeRTCP: writeRTCP}
}

// follow has o go on with the numbering of an out that was sent under the same
// SSRC before. Without that the far end's SRTP would take the packets for old
// ones (RFC 3711, section 3.3.1).
func (o *out) follow(last *out) {
	last.track.mu.Lock()
	goesOn, seq, ts, at := last.goesOn, last.lastSeq, last.lastTS, last.lastAt
	last.track.mu.Unlock()
	o.track.mu.Lock()
	defer o.track.mu.Unlock()
	o.goesOn, o.lastSeq, o.lastTS, o.lastAt = goesOn, seq, ts, at
}

// Bind implements webrtc.TrackLocal.
func (o *out) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, codec := range ctx.CodecParameters() {
		if !strings.EqualFold(codec.MimeType, o.track.Codec.MimeType) || o.codec != nil && codec.PayloadType != o.codec.pt {
			continue
		}
		b := &binding{id: ctx.ID(), writer: ctx.WriteStream(), ssrc: uint32(ctx.SSRC()), pt: uint8(codec.PayloadType), exts: map[string]uint8{}}
		carried := carriedExtensions[o.Kind()]
		for _, ext := range ctx.HeaderExtensions() {
			if slices.Contains(carried, ext.URI) {
				b.exts[ext.URI] = uint8(ext.ID)
			}
		}
		o.bound.Store(b)
		return codec, nil
	}
	return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
}

// Unbind implements webrtc.TrackLocal.
func (o *out) Unbind(webrtc.TrackLocalContext) error {
	o.bound.Store(nil)
	return nil
}

// ID implements webrtc.TrackLocal.
func (o *out) ID() string { return o.track.ID }

// RID implements webrtc.TrackLocal.
func (o *out) RID() string { return "" }

// StreamID implements webrtc.TrackLocal. Tracks that share it are played in
// sync.
func (o *out) StreamID() string { return o.stream }

// Kind implements webrtc.TrackLocal.
func (o *out) Kind() webrtc.RTPCodecType { return kindOf(o.track.Codec.MimeType) }

// write sends p in the leg's numbering, and reports whether the leg is past
// waiting for a keyframe. Called with track.mu held.
func (o *out) write(s *source, sr *senderReport, p *rtp.Packet, key bool, now time.Time) bool {
	b := o.bound.Load()
	if b == nil {
		return false
	}
	begin := o.source != s
	if begin {
		if o.track.video() && !o.relay && !key && now.Sub(o.since) < keyframePatience {
			return false
		}
		o.rebase(s, p, now)
	} else if o.sent < 1<<14 && int16(p.SequenceNumber-o.first) < 0 {
		return true // late, and from before the first packet we sent
	}
	o.sent++

	h := rtp.Header{
		Version:        2,
		Marker:         p.Marker,
		PayloadType:    b.pt,
		SequenceNumber: p.SequenceNumber + o.seqOff,
		Timestamp:      p.Timestamp + o.timeOff,
		SSRC:           b.ssrc,
	}
	if p.Extension {
		for _, id := range p.GetExtensionIDs() {
			if to, ok := b.exts[s.exts[id]]; ok {
				// An extension that does not fit is the publisher's loss alone.
				_ = h.SetExtension(to, p.GetExtension(id))
			}
		}
	}
	// Errors mean the leg is closing, which its owner sees for itself.
	n, _ := b.writer.WriteRTP(&h, p.Payload)
	if o.packets.Add(1) == 1 && o.begun != nil {
		o.begun(now)
	}
	o.octets.Add(uint32(len(p.Payload)))
	o.bytes.Add(int64(n))
	if int16(h.SequenceNumber-o.lastSeq) > 0 || begin {
		o.lastSeq, o.lastTS, o.lastAt = h.SequenceNumber, h.Timestamp, now
	}
	if begin && !sr.at.IsZero() {
		o.report(s, sr, now)
	}
	return true
}

// rebase chooses offsets so that p is the packet after the last one sent.
func (o *out) rebase(s *source, p *rtp.Packet, now time.Time) {
	if o.goesOn {
		elapsed := now.Sub(o.lastAt).Seconds()
		o.seqOff = o.lastSeq + 1 - p.SequenceNumber
		o.timeOff = o.lastTS + max(1, uint32(elapsed*float64(s.clock))) - p.Timestamp
	}
	o.source, o.first, o.sent, o.goesOn = s, p.SequenceNumber, 0, true
}

// report sends sr on the leg, carried forward to now. Called with track.mu
// held.
func (o *out) report(s *source, sr *senderReport, now time.Time) {
	b := o.bound.Load()
	if b == nil || o.source != s {
		return
	}
	elapsed := now.Sub(sr.at)
	// NTP time counts seconds in its upper 32 bits.
	ntp := sr.ntp + uint64(elapsed.Seconds()*(1<<32))
	o.rtt.sent(ntp, now)
	_ = o.writeRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC:        b.ssrc,
		NTPTime:     ntp,
		RTPTime:     sr.rtp + o.timeOff + uint32(elapsed.Seconds()*float64(s.clock)),
		PacketCount: o.packets.Load(),
		OctetCount:  o.octets.Load(),
	}})
}

// lostOf is how many packets a report says are lost. The field is signed, of 24
// bits (RFC 3550, section 6.4.1): what comes twice is counted against it, so that
// GStreamer's is negative after each repair that was not needed.
func lostOf(r rtcp.ReceptionReport) int64 { return int64(max(0, int32(r.TotalLost<<8)>>8)) }

// readRTCP serves the RTCP of the far end, for the out that current returns,
// until r ends: keyframe requests go to the track, reception reports are noted.
// Retransmissions are the responder's.
func readRTCP(r io.Reader, current func() *out) {
	buf := make([]byte, receiveMTU)
	asks := rate.NewLimiter(keyframeAsks, keyframeAsksBurst)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		o := current()
		if err != nil || o == nil {
			continue
		}
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				if o.relay || asks.Allow() { // behind a relay there are many viewers
					o.track.requestKeyframe()
				}
			case *rtcp.ReceiverReport:
				for _, r := range p.Reports {
					if b := o.bound.Load(); b != nil && r.SSRC == b.ssrc {
						o.lost.Store(lostOf(r))
						o.rtt.reported(r.LastSenderReport, r.Delay, time.Now())
					}
				}
			}
		}
	}
}

// senderReader adapts a pion sender's RTCP to io.Reader.
type senderReader struct{ *webrtc.RTPSender }

func (s senderReader) Read(b []byte) (int, error) {
	n, _, err := s.RTPSender.Read(b)
	return n, err
}

// An intake reads one remote track of a cascade link and feeds it to whatever
// track it is assigned to at the moment; none, and the packets are dropped.
type intake struct {
	drops    *unsentCounts
	ssrc     atomic.Uint32 // remote's; 0 until it is there
	remote   *webrtc.TrackRemote
	receiver *webrtc.RTPReceiver

	assigned atomic.Pointer[assignment]
}

type assignment struct {
	track  *Track
	source *source
}

// newSource makes a source whose keyframes ask requests. Its header extensions
// are known only once the remote track is there.
func newSource(codec webrtc.RTPCodecCapability, ask func() bool) *source {
	return &source{clock: codec.ClockRate, ask: ask}
}

// extensionsOf maps the header extension IDs of a receiver to their URIs.
func extensionsOf(r *webrtc.RTPReceiver) map[uint8]string {
	exts := map[uint8]string{}
	for _, e := range r.GetParameters().HeaderExtensions {
		exts[uint8(e.ID)] = e.URI
	}
	return exts
}

// readRTP feeds packets until the remote track ends.
func (in *intake) readRTP() {
	buf := make([]byte, receiveMTU)
	var (
		p       rtp.Packet
		current *assignment
		seen    gaps
	)
	for {
		n, _, err := in.remote.Read(buf)
		if err != nil {
			return
		}
		a := in.assigned.Load()
		if a == nil {
			seen = gaps{}
			in.drops.add(unsentUnassigned)
			continue
		}
		if p.Unmarshal(buf[:n]) != nil {
			seen = gaps{}
			in.drops.add(unsentMalformed)
			continue
		}
		if a != current {
			current, seen = a, gaps{}
			a.source.exts = extensionsOf(in.receiver)
		}
		lost, fresh := seen.take(p.SequenceNumber)
		if !fresh {
			in.drops.add(unsentDuplicate)
			continue
		}
		a.source.came.Add(1)
		a.source.lost.Add(lost)
		if _, taken := a.track.feed(a.source, &p); !taken {
			in.drops.add(unsentReplaced)
		}
	}
}

// readRTCP passes the far end's sender reports on until the track ends.
func (in *intake) readRTCP() {
	buf := make([]byte, receiveMTU)
	for {
		n, _, err := in.receiver.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		a := in.assigned.Load()
		if a == nil {
			continue
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == uint32(in.remote.SSRC()) {
				a.source.report.Store(&sourceReport{sr.PacketCount, a.source.came.Load()})
				a.track.feedReport(a.source, sr.NTPTime, sr.RTPTime)
			}
		}
	}
}

// askKeyframe sends one picture loss indication (RFC 4585, section 6.3.1) for
// each of ssrcs, and reports whether the connection was up to send it.
func askKeyframe(pc *webrtc.PeerConnection, ssrcs ...uint32) bool {
	if pc.ConnectionState() != webrtc.PeerConnectionStateConnected {
		return false
	}
	var ask []rtcp.Packet
	for _, ssrc := range ssrcs {
		ask = append(ask, &rtcp.PictureLossIndication{MediaSSRC: ssrc})
	}
	return pc.WriteRTCP(ask) == nil
}
