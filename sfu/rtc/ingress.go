package rtc

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/demux"
	"weir/sfu/forward"
	"weir/sfu/nack"
	"weir/sfu/rtc/arrival"
	"weir/sfu/srtp"
)

const (
	// stallAfter is how long an accepted section may send nothing before that
	// is an event.
	stallAfter = 5 * time.Second
	// maxStreams bounds the SSRCs of one publisher in a session, for RTP and
	// RTCP each: pion keeps state for all of them.
	maxStreams = 1024
)

// An Ingress receives all RTP and RTCP of one publisher, and forwards of each
// media section the source that a [demux.Demux] selects. RTP is decrypted by an
// [srtp.Opener]; where that does not know the keys pion decrypts it, as it does RTCP,
// and passes each packet to a [tap]. pion is given no SSRCs, so that declared and
// undeclared streams take the same path.
//
// Any goroutine may call the methods.
type Ingress struct {
	total *forward.Drops
	// ended is called if the publisher did something for which its session must
	// end, with the reason; event receives events, without session and stream.
	ended func(why string)
	event func(event.Event)

	// What answers the publisher, made for it alone: its packets are passed to
	// it here. Nothing makes sender reports: the publisher's own are forwarded
	// instead, see [forward.Track].
	reports  interceptor.Interceptor
	requests *nack.Requester
	arrivals *arrival.Reporter

	drops forward.Drops // packets of this publisher

	mu       sync.Mutex
	sections []*section
	routes   demux.Demux
	mid      uint8 // negotiated IDs of header extensions; 0: none
	rid      uint8
	rrid     uint8
	taps     map[uint32]*tap // of RTP, by SSRC
	seen     int             // SSRCs seen, of RTP and RTCP
	heard    time.Time       // when any packet came last
	packet   rtp.Packet
	alone    []byte // payload of the current packet, if redundant audio was made of it
	report   interceptor.RTCPReader
	cc       uint8 // ID of the extension of congestion control; 0: none
	told     map[forward.Reason]bool
	events   []event.Event // to be sent once mu is free
	flows    bool          // something was forwarded
	closed   bool
}

// inPlace is the innermost reader of interceptors that are passed a packet
// rather than read one: the packet is in b already.
func inPlace(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
	return len(b), a, nil
}

// NewIngress makes an Ingress that also counts the packets not forwarded in
// total. ended is called with the reason if the publisher's session must end,
// and event receives the events of its media; neither may block.
func NewIngress(total *forward.Drops, ended func(why string), event func(event.Event)) *Ingress {
	return &Ingress{total: total, ended: ended, event: event, taps: map[uint32]*tap{}, told: map[forward.Reason]bool{}}
}

// A tap has the state of one SSRC. It is the buffer into which pion writes the
// packets that it has decrypted. Reads return nothing: pion must not look for the
// section itself.
type tap struct {
	in     *Ingress
	source *demux.Source // source of RTP; nil: a tap of RTCP
	ssrc   uint32
}

func (t *tap) Write(b []byte) (int, error) {
	if t.source != nil {
		t.in.accept(b, time.Now())
	} else {
		t.in.receiveReport(t.ssrc, b)
	}
	return len(b), nil
}

func (*tap) Read([]byte) (int, error) { return 0, io.EOF }
func (*tap) Close() error             { return nil }

// buffer is pion's BufferFactory.
func (in *Ingress) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	in.mu.Lock()
	defer in.mu.Unlock()
	if kind == packetio.RTCPBufferPacket {
		in.meet()
		return &tap{in: in, ssrc: ssrc}
	}
	if t := in.tapOf(ssrc); t != nil {
		return t
	}
	return &tap{in: in}
}

// tapOf returns the tap of RTP of ssrc; nil: of too many. Called with mu held.
func (in *Ingress) tapOf(ssrc uint32) *tap {
	t := in.taps[ssrc]
	if t == nil && in.meet() {
		t = &tap{in: in, ssrc: ssrc, source: in.routes.Source(ssrc)}
		in.taps[ssrc] = t
	}
	return t
}

// meet counts a new SSRC, and reports false if it is of too many, for which the
// session ends. Called with mu held.
func (in *Ingress) meet() bool {
	if in.seen > 2*maxStreams {
		return false
	}
	if in.seen++; in.seen > 2*maxStreams {
		in.ended(fmt.Sprintf("the publisher has sent under more than %d SSRCs", maxStreams))
		return false
	}
	return true
}

// accept processes one decrypted RTP packet, which was read at at and is valid
// until accept returns.
func (in *Ingress) accept(b []byte, at time.Time) {
	in.mu.Lock()
	if !in.closed {
		if len(b) < 12 {
			in.heard = at
			in.drop(forward.Malformed, "a packet is not RTP")
		} else if t := in.tapOf(binary.BigEndian.Uint32(b[8:])); t != nil {
			in.handle(t, b, at)
		}
	}
	in.unlock()
}

// unopened counts a packet that is not decrypted.
func (in *Ingress) unopened(why forward.Reason) {
	in.mu.Lock()
	switch why {
	case forward.Replayed: // no event: a network may deliver a packet twice
		in.drops.Add(why)
		in.total.Add(why)
	case forward.Malformed:
		in.drop(why, "a packet is not RTP")
	case forward.Early:
		in.drop(why, "more than %d packets came before the handshake was over", srtp.EarlyPackets)
	default:
		in.drop(why, "a packet came from the publisher's address that is not authentic: not from the publisher, or damaged")
	}
	in.unlock()
}

// unlock frees mu and sends the events.
func (in *Ingress) unlock() {
	events := in.events
	in.events = nil
	in.mu.Unlock()
	for _, e := range events {
		in.event(e)
	}
}

func (in *Ingress) handle(tap *tap, b []byte, now time.Time) {
	in.heard = now
	p := &in.packet
	if p.Unmarshal(b) != nil {
		in.drop(forward.Malformed, "a packet is not RTP")
		return
	}
	// Congestion control numbers the packets of the whole connection: it must
	// also see packets that are not forwarded, or the client takes them for
	// lost.
	if number := in.extension(in.cc); len(number) >= 2 {
		in.arrivals.Came(tap.ssrc, binary.BigEndian.Uint16(number), now)
	} else if number != nil {
		in.drop(forward.Malformed, "a packet's header extensions make no sense")
		return
	}
	in.redundant(p)
	r := in.routes.Route(tap.source, demux.Mark{
		PayloadType: p.PayloadType, MID: in.extension(in.mid), RID: in.extension(in.rid), RepairedRID: in.extension(in.rrid), Size: len(p.Payload),
	}, now)
	var t *section
	if r.Section != nil {
		t = in.sections[slices.IndexFunc(in.sections, func(t *section) bool { return t.Section == r.Section })]
	}
	switch {
	case r.Reason != forward.Forwarded:
		in.refuse(t, r, tap.ssrc)
	case r.Probe:
	case r.Repair:
		in.repair(t, now)
	default:
		if r.Changed {
			in.change(t, r)
		}
		_, _, _ = t.stats.Read(b, interceptor.Attributes{})
		in.forward(t, p, now)
	}
}

// refuse counts the current packet, of ssrc, which is not forwarded by r.
func (in *Ingress) refuse(t *section, r demux.Route, ssrc uint32) {
	switch {
	case t == nil && r.Reason == forward.OtherLayer:
		in.drop(r.Reason, "SSRC %d: a layer of simulcast that the answer does not name", ssrc)
	case t == nil:
		in.drop(r.Reason, "SSRC %d, payload type %d: no accepted section has its MID or its payload type, or several could be meant", ssrc, in.packet.PayloadType)
	case r.Reason == forward.PayloadType:
		in.drop(r.Reason, "section %d was answered with payload type %d, and %d came", t.offered.Index, t.PayloadType, in.packet.PayloadType)
	case r.Repair && t.Current() == nil:
		in.drop(r.Reason, "section %d: a retransmission, and nothing that it would repair", t.offered.Index)
	case r.Repair && r.Reason == forward.OtherLayer:
		in.drop(r.Reason, "section %d: a retransmission of a layer that is not forwarded", t.offered.Index)
	case r.Repair:
		in.drop(r.Reason, "section %d: several streams, and nothing tells which one a retransmission is of", t.offered.Index)
	case r.Reason == forward.OtherLayer:
		in.drop(r.Reason, "section %d: of the SSRCs that were declared, %d is forwarded, and %d is not", t.offered.Index, t.Current().SSRC, ssrc)
	default:
		in.drop(r.Reason, "section %d: SSRC %d is forwarded, and SSRC %d came beside it", t.offered.Index, t.Current().SSRC, ssrc)
	}
}

// drop counts one packet, and reports the first for each reason as an event.
func (in *Ingress) drop(r forward.Reason, detail string, args ...any) {
	in.drops.Add(r)
	in.total.Add(r)
	if !in.told[r] {
		in.told[r] = true
		in.events = append(in.events, event.Event{Kind: event.MediaDropped, Reason: r.String(), Detail: fmt.Sprintf(detail, args...)})
	}
}

// extension returns a header extension of the current packet.
func (in *Ingress) extension(id uint8) []byte {
	if id == 0 || !in.packet.Extension {
		return nil
	}
	return in.packet.GetExtension(id)
}

// forward passes p to the track.
func (in *Ingress) forward(t *section, p *rtp.Packet, now time.Time) {
	if l := t.line; l.stalled {
		l.stalled = false
		e := event.Event{Kind: event.MediaResumed, Detail: t.String() + " sends now"}
		if !l.last.IsZero() {
			e.Detail = t.String() + " sends again"
			e.Elapsed = capacity.Milliseconds(now.Sub(l.last))
		}
		in.events = append(in.events, e)
	}
	if !in.flows {
		in.flows = true
		in.events = append(in.events, event.Event{Kind: event.StreamStarted})
	}
	t.last, t.line.last = now, now
	seq := p.SequenceNumber // Forward may renumber p
	t.missing.Came(seq, now)
	out := t.up.Forward(p, now)
	if out.Reason == forward.Duplicate {
		in.drops.Add(forward.Duplicate) // no event: browsers probe by duplicates
		in.total.Add(forward.Duplicate)
		return
	}
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))
	t.lost.Add(out.Lost)
	if out.Keyframe {
		t.keyframes.Add(1)
		t.missing.Keyframe(seq)
	}
	if out.Reason == forward.Replaced {
		in.drop(forward.Replaced, "%s: another publisher has taken the stream over", t)
	}
}

func layerOf(s *demux.Source) string {
	if s.RID == "" {
		return ""
	}
	return ", layer " + printable(s.RID)
}

// change makes the section's current source the forwarded one.
func (in *Ingress) change(t *section, r demux.Route) {
	s := t.Current()
	if r.Was != nil {
		t.missing.Close()
		in.reports.UnbindRemoteStream(t.info)
		t.up.Close()
		in.events = append(in.events, event.Event{Kind: event.MediaChanged, Detail: fmt.Sprintf("%s goes on under SSRC %d%s, %v after the last packet under %d",
			t, s.SSRC, layerOf(s), r.Silence.Round(time.Millisecond), r.Was.SSRC)})
	}
	t.info = &interceptor.StreamInfo{
		SSRC: s.SSRC, PayloadType: t.PayloadType, MimeType: t.codec.MimeType, ClockRate: t.codec.ClockRate, Channels: t.codec.Channels, SDPFmtpLine: t.codec.SDPFmtpLine,
	}
	for _, f := range t.codec.RTCPFeedback {
		t.info.RTCPFeedback = append(t.info.RTCPFeedback, interceptor.RTCPFeedback{Type: f.Type, Parameter: f.Parameter})
	}
	t.stats = in.reports.BindRemoteStream(t.info, interceptor.RTPReaderFunc(inPlace))
	under := t.AskUnder()
	t.up = t.track.Attach(asking(func() bool { return t.ask(under...) }))
	t.up.Extensions(t.exts)
	t.missing = in.request(t, s.SSRC)
}

// request makes the stream by which missing packets of ssrc are requested, in a
// section whose UpTrack is set; nil if the publisher does not send any again.
func (in *Ingress) request(t *section, ssrc uint32) *nack.Stream {
	if !slices.Contains(t.codec.RTCPFeedback, webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBNACK}) {
		return nil
	}
	up := t.up
	return in.requests.Stream(ssrc, func(_ int, lost bool) {
		if lost {
			up.Lack()
		}
	})
}

// asking is a Receiver that requests keyframes by a function.
type asking func() bool

// RequestKeyframe implements forward.Receiver.
func (a asking) RequestKeyframe() bool { return a() }

// repair forwards the packet that the current one retransmits (RFC 4588,
// section 4). Reception reports cover only packets that arrived the first time.
func (in *Ingress) repair(t *section, now time.Time) {
	p, ssrc := &in.packet, t.Current().SSRC
	p.SequenceNumber, p.PayloadType, p.SSRC, p.Payload = binary.BigEndian.Uint16(p.Payload), t.PayloadType, ssrc, p.Payload[2:]
	in.forward(t, p, now)
}

// receiveReport processes one RTCP packet that names ssrc. A sender report goes
// to all viewers, without mu held: meanwhile others read packets.
func (in *Ingress) receiveReport(ssrc uint32, b []byte) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return // cannot fail: pion has parsed it before
	}
	now := time.Now()
	if up, report := in.reported(ssrc, b, packets, now); report != nil {
		up.SenderReport(report, now)
	}
}

// reported takes note of packets, which are b, and returns the last sender
// report with its UpTrack; nil: none.
func (in *Ingress) reported(ssrc uint32, b []byte, packets []rtcp.Packet, now time.Time) (up *forward.UpTrack, report *rtcp.SenderReport) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.heard = now
	if in.closed {
		return nil, nil
	}
	current := in.routes.Current(ssrc)
	if current == nil {
		return nil, nil
	}
	t := in.sections[slices.IndexFunc(in.sections, func(t *section) bool { return t.Section == current })]
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			if p.SSRC == ssrc {
				_, _, _ = in.report.Read(b, interceptor.Attributes{})
				up, report = t.up, p
			}
		case *rtcp.Goodbye:
			if slices.Contains(p.Sources, ssrc) {
				in.routes.Goodbye(ssrc)
			}
		}
	}
	return up, report
}

// Reachable sends the keyframe requests that could not be sent before.
func (in *Ingress) Reachable() {
	in.mu.Lock()
	var ups []*forward.UpTrack
	for _, t := range in.sections {
		if t.up != nil {
			ups = append(ups, t.up)
		}
	}
	in.mu.Unlock()
	for _, up := range ups {
		up.Reachable()
	}
}

// Close stops forwarding.
func (in *Ingress) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	for _, t := range in.sections {
		if t.up != nil {
			t.missing.Close()
			t.up.Close()
		}
	}
}

// printable returns the printable part of a client's text, bounded in length.
func printable(s string) string { return capacity.Printable(s, 200) }
