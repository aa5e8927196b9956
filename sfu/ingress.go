package sfu

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

const (
	// takeoverAfter is how long the stream that is forwarded in a section has to
	// be silent before another of the same section takes over. It doubles with
	// every change, up to takeoverMost, and is forgotten after takeoverRest
	// without one: two streams that alternate do not flap.
	takeoverAfter = 300 * time.Millisecond
	takeoverMost  = 5 * time.Second
	takeoverRest  = 15 * time.Second
	// layerProven is how long a layer that the client prefers has to flow before
	// it is forwarded instead of a lesser one.
	layerProven = time.Second
	// stallAfter is how long an accepted section may send nothing before that is
	// an event.
	stallAfter = 5 * time.Second
	// giveWayAfter is how long a publisher may send nothing before another may
	// take its stream's name.
	giveWayAfter = 3 * time.Second
	// maxStreams bounds the SSRCs that one publisher may send under in a session,
	// by RTP and by RTCP each: pion keeps something for all of them.
	maxStreams = 1024
)

// An ingress takes in all RTP and RTCP of one publisher and tells which media
// section each packet belongs to: by MID, by SSRC where the offer declares
// them, by payload type (RFC 8843, section 9.2). pion settles the connection
// and decrypts, and hands each packet over by way of a [tap]; it is told of no
// SSRCs, so that declared streams and others take the same way.
//
// Of each section one stream is forwarded at a time; see [upTrack.takes].
type ingress struct {
	total *forward.Drops // of the node
	// ended is told what the publisher did that its session must end for.
	ended func(why string)
	event func(Event)

	rtc.Interceptors // what sends back

	drops forward.Drops // of this publisher

	mu       sync.Mutex
	sections []*upTrack
	byMid    map[string]*upTrack
	mid      uint8 // IDs of header extensions, by the offer; 0: none
	rid      uint8
	rrid     uint8
	streams  map[uint32]*rtpStream
	seen     int       // SSRCs of RTP and RTCP
	heard    time.Time // of anything
	packet   rtp.Packet
	report   interceptor.RTCPReader
	cc       []interceptor.RTPHeaderExtension // congestion control's, if negotiated
	told     map[forward.Reason]bool
	events   []Event // to be sent once mu is free
	flows    bool    // something was forwarded
	closed   bool
}

// An upTrack is one media section that a publisher sends in.
type upTrack struct {
	offered *sdp.Section
	pt, rtx uint8
	repairs map[uint32]uint32         // SSRC of media, by that of its retransmissions
	codec   webrtc.RTPCodecParameters // as negotiated
	exts    map[uint8]string
	ask     func(ssrcs ...uint32) bool

	packets, bytes, keyframes, lost atomic.Int64

	// The rest belongs to ingress.mu.
	track    *forward.Track
	first    uint32           // SSRC
	current  *rtpStream       // nil before the first packet
	up       *forward.UpTrack // of current
	info     *interceptor.StreamInfo
	nack     interceptor.RTPReader
	stats    interceptor.RTPReader
	last     time.Time // when a packet was forwarded
	switched time.Time
	switches int // within takeoverRest of each other
	changes  int // in all
	stalled  bool
	streams  []*rtpStream // all that ever came in the section
}

// An rtpStream is what a publisher sends under one SSRC.
type rtpStream struct {
	ssrc    uint32
	section *upTrack // nil: not known yet
	named   bool     // by a MID
	moved   bool     // to that from a section that was guessed; once
	rid     string
	came    bool
	bye     bool
	repairs bool      // by RTX
	since   time.Time // flowing without a pause of layerProven
	last    time.Time
	cc      interceptor.RTPReader // nil before the first packet
}

// inPlace is the innermost reader of interceptors that are handed a packet
// rather than fetch one: it is in b already.
func inPlace(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
	return len(b), a, nil
}

// newIngress makes one for a connection with these interceptors.
func newIngress(total *forward.Drops) *ingress {
	return &ingress{total: total, told: map[forward.Reason]bool{}, byMid: map[string]*upTrack{}, streams: map[uint32]*rtpStream{}}
}

// A tap is where pion puts the decrypted packets of one SSRC. There is nothing
// to read from it: pion is not to look for the section itself.
type tap struct {
	in     *ingress
	stream *rtpStream // of RTP
	ssrc   uint32
}

func (t *tap) Write(b []byte) (int, error) {
	if t.stream != nil {
		t.in.receive(t.stream, b)
	} else {
		t.in.receiveReport(t.ssrc, b)
	}
	return len(b), nil
}

func (*tap) Read([]byte) (int, error) { return 0, io.EOF }
func (*tap) Close() error             { return nil }

// buffer is pion's BufferFactory.
func (in *ingress) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.seen++; in.seen > 2*maxStreams {
		in.ended(fmt.Sprintf("the publisher has sent under more than %d SSRCs", maxStreams))
		return &tap{in: in}
	}
	if kind == packetio.RTCPBufferPacket {
		return &tap{in: in, ssrc: ssrc}
	}
	s := in.streams[ssrc]
	if s == nil {
		s = &rtpStream{ssrc: ssrc}
		in.streams[ssrc] = s
	}
	return &tap{in: in, stream: s}
}

// take adds a section that was accepted, before the answer is out. ask sends
// keyframe requests for SSRCs.
func (in *ingress) take(s *sdp.Section, t *forward.Track, ask func(ssrcs ...uint32) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	up := &upTrack{offered: s, pt: uint8(s.Codec.PT), rtx: uint8(s.Codec.RTX), repairs: map[uint32]uint32{}, track: t, ask: ask}
	for media, repair := range s.Repairs {
		up.repairs[repair] = media
	}
	in.sections = append(in.sections, up)
	if s.MID != "" {
		in.byMid[s.MID] = up
	}
	for _, e := range s.Extensions {
		for _, used := range []struct {
			uri string
			id  *uint8
		}{{psdp.SDESMidURI, &in.mid}, {psdp.SDESRTPStreamIDURI, &in.rid}, {psdp.SDESRepairRTPStreamIDURI, &in.rrid}} {
			if e.URI == used.uri && *used.id == 0 {
				*used.id = uint8(e.ID)
			}
		}
	}
}

// negotiated notes what the answer says, before media can flow.
func (in *ingress) negotiated(pc *webrtc.PeerConnection) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.report = in.Reports.BindRTCPReader(interceptor.RTCPReaderFunc(inPlace))
	for _, tr := range pc.GetTransceivers() {
		i := slices.IndexFunc(in.sections, func(t *upTrack) bool { return t.offered.PionMID() == tr.Mid() })
		if i < 0 {
			continue
		}
		up := in.sections[i]
		p := tr.Receiver().GetParameters()
		for _, c := range p.Codecs {
			if uint8(c.PayloadType) == up.pt {
				up.codec = c
			}
		}
		up.exts = map[uint8]string{}
		for _, e := range p.HeaderExtensions {
			up.exts[uint8(e.ID)] = e.URI
			if e.URI == psdp.TransportCCURI {
				in.cc = []interceptor.RTPHeaderExtension{{ID: e.ID, URI: e.URI}}
			}
		}
	}
}

// receive takes one RTP packet. b is pion's and holds until it returns.
func (in *ingress) receive(s *rtpStream, b []byte) {
	in.mu.Lock()
	if !in.closed {
		in.handle(s, b, time.Now())
	}
	events := in.events
	in.events = nil
	in.mu.Unlock()
	for _, e := range events {
		in.event(e)
	}
}

func (in *ingress) handle(s *rtpStream, b []byte, now time.Time) {
	in.heard = now
	p := &in.packet
	if p.Unmarshal(b) != nil {
		in.drop(forward.Malformed, "a packet is not RTP")
		return
	}
	// Congestion control numbers the packets of the whole connection: it has to
	// see those too that are not forwarded, or the client takes them for lost.
	if s.cc == nil {
		s.cc = in.Feedback.BindRemoteStream(&interceptor.StreamInfo{SSRC: s.ssrc, RTPHeaderExtensions: in.cc}, interceptor.RTPReaderFunc(inPlace))
	}
	attributes := interceptor.Attributes{}
	if _, _, err := s.cc.Read(b, attributes); err != nil {
		in.drop(forward.Malformed, "a packet's header extensions make no sense")
		return
	}
	t, why := in.sectionOf(s, p, now)
	if t == nil {
		in.drop(why, "SSRC %d, payload type %d: no accepted section has its MID or its payload type, or several could be meant", s.ssrc, p.PayloadType)
		return
	}
	if was := s.section; was != t {
		if was != nil {
			s.moved = true
			was.streams = slices.DeleteFunc(was.streams, func(o *rtpStream) bool { return o == s })
		}
		s.section = t
		t.streams = append(t.streams, s)
	}
	switch {
	case p.PayloadType == t.pt:
		in.media(t, s, b, attributes, now)
	case p.PayloadType == t.rtx && t.rtx != 0:
		s.repairs = true
		in.repair(t, s, b, now)
	default:
		in.drop(forward.PayloadType, "section %d was answered with payload type %d, and %d came", t.offered.Index, t.pt, p.PayloadType)
	}
	s.came, s.last = true, now
}

// drop counts one packet, and makes an event of the first for each reason.
func (in *ingress) drop(r forward.Reason, detail string, args ...any) {
	in.drops.Add(r)
	in.total.Add(r)
	if !in.told[r] {
		in.told[r] = true
		in.events = append(in.events, Event{Kind: event.MediaDropped, Reason: r.String(), Detail: fmt.Sprintf(detail, args...)})
	}
}

// extension is the text of a header extension of the packet at hand.
func (in *ingress) extension(id uint8) []byte {
	if id == 0 || !in.packet.Extension {
		return nil
	}
	return in.packet.GetExtension(id)
}

// sectionOf is the section of the packet at hand, or why there is none.
func (in *ingress) sectionOf(s *rtpStream, p *rtp.Packet, now time.Time) (*upTrack, forward.Reason) {
	if mid := in.extension(in.mid); len(mid) > 0 {
		t := in.byMid[string(mid)]
		if t == nil {
			return nil, forward.NoSection
		}
		if s.moved && t != s.section {
			return nil, forward.UnknownSSRC
		}
		s.named = true
		return t, 0
	}
	if s.section != nil {
		return s.section, 0
	}
	var fit []*upTrack
	for _, t := range in.sections {
		if t.declares(s) {
			return t, 0
		}
		if p.PayloadType == t.pt || t.rtx != 0 && p.PayloadType == t.rtx {
			fit = append(fit, t)
		}
	}
	switch {
	case len(fit) == 0:
		return nil, forward.PayloadType
	case len(fit) == 1:
		return fit[0], 0
	}
	// Several sections of one codec, and no word: they are filled in order, and
	// later what fell silent goes on.
	var silent []*upTrack
	for _, t := range fit {
		switch {
		case p.PayloadType != t.pt:
		case t.current == nil && len(t.offered.SSRCs) == 0:
			return t, 0
		case t.current != nil && now.Sub(t.current.last) >= takeoverAfter:
			silent = append(silent, t)
		}
	}
	if len(silent) == 1 {
		return silent[0], 0
	}
	return nil, forward.UnknownSSRC
}

// media forwards the packet at hand if its stream is the one of the section.
func (in *ingress) media(t *upTrack, s *rtpStream, b []byte, attributes interceptor.Attributes, now time.Time) {
	if rid := in.extension(in.rid); len(rid) > 0 && string(rid) != s.rid {
		s.rid = string(rid)
	}
	if now.Sub(s.last) > layerProven {
		s.since = now
	}
	if s != t.current {
		if !t.takes(s, now) {
			if s.rid != "" || t.declares(t.current) && t.declares(s) {
				in.drop(forward.Layer, "section %d: one layer of simulcast is forwarded, SSRC %d, and SSRC %d is not", t.offered.Index, t.current.ssrc, s.ssrc)
			} else {
				in.drop(forward.SecondStream, "section %d: SSRC %d is forwarded, and SSRC %d came beside it", t.offered.Index, t.current.ssrc, s.ssrc)
			}
			return
		}
		in.change(t, s, now)
	}
	s.bye = false
	_, _, _ = t.stats.Read(b, attributes)
	_, _, _ = t.nack.Read(b, attributes)
	in.forward(t, &in.packet, now)
}

// forward feeds p to the track.
func (in *ingress) forward(t *upTrack, p *rtp.Packet, now time.Time) {
	if t.stalled {
		t.stalled = false
		e := Event{Kind: event.MediaResumed, Detail: t.String() + " sends now"}
		if !t.last.IsZero() {
			e.Detail = t.String() + " sends again"
			e.Elapsed = milliseconds(now.Sub(t.last))
		}
		in.events = append(in.events, e)
	}
	if !in.flows {
		in.flows = true
		in.events = append(in.events, Event{Kind: event.StreamStarted})
	}
	t.last = now
	out := t.up.Forward(p, now)
	if out.Reason == forward.Duplicate {
		in.drops.Add(forward.Duplicate) // no event: browsers do that
		in.total.Add(forward.Duplicate)
		return
	}
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))
	t.lost.Add(out.Lost)
	if out.Keyframe {
		t.keyframes.Add(1)
	}
	if out.Reason == forward.Replaced {
		in.drop(forward.Replaced, "%s: another publisher has taken the stream over", t)
	}
}

// takes reports whether s, which sends, is to be forwarded in the section
// instead of the stream that is: when that one is silent, or has left;
// when s is a layer that the client prefers; and when s is new and comes under
// the section's MID, since a client changes its SSRC that way. Where one of
// several layers is forwarded, it is the first of those that flow, in the order
// of the offer (RFC 8853, section 5.2).
func (t *upTrack) takes(s *rtpStream, now time.Time) bool {
	if t.current == nil || t.current.bye || t.current.section != t {
		return true
	}
	patience := min(takeoverAfter<<min(t.switches, 5), takeoverMost)
	if now.Sub(t.switched) > takeoverRest {
		patience = takeoverAfter
	}
	if now.Sub(t.current.last) >= patience {
		return !t.outranked(s, now)
	}
	if a, b := t.rank(s), t.rank(t.current); a < b {
		return !t.outranked(s, now) && !s.since.IsZero() && now.Sub(s.since) >= max(layerProven, patience)
	} else if a > b {
		return false
	}
	return !s.came && s.named && s.rid == "" && t.current.rid == "" && !t.declares(s) && now.Sub(t.switched) >= max(layerProven, patience)
}

// rank orders streams of one section: lesser is better.
func (t *upTrack) rank(s *rtpStream) int {
	if i := slices.Index(t.offered.Layers, s.rid); i >= 0 {
		return i
	}
	return len(t.offered.Layers)
}

// declares reports whether the offer names the SSRC of s.
func (t *upTrack) declares(s *rtpStream) bool { return slices.Contains(t.offered.SSRCs, s.ssrc) }

// outranked reports whether a layer flows that the client prefers to s.
func (t *upTrack) outranked(s *rtpStream, now time.Time) bool {
	return slices.ContainsFunc(t.streams, func(o *rtpStream) bool {
		return o != t.current && !o.repairs && t.rank(o) < t.rank(s) && now.Sub(o.last) < takeoverAfter
	})
}

func layerOf(s *rtpStream) string {
	if s.rid == "" {
		return ""
	}
	return ", layer " + plain(s.rid)
}

// change has s be forwarded from now on.
func (in *ingress) change(t *upTrack, s *rtpStream, now time.Time) {
	if t.info != nil {
		in.NACKs.UnbindRemoteStream(t.info)
		in.Reports.UnbindRemoteStream(t.info)
		t.up.Close()
		t.changes++
		if now.Sub(t.switched) > takeoverRest {
			t.switches = 0
		}
		t.switches++
		in.events = append(in.events, Event{Kind: event.MediaChanged, Detail: fmt.Sprintf("%s goes on under SSRC %d%s, %v after the last packet under %d",
			t, s.ssrc, layerOf(s), now.Sub(t.current.last).Round(time.Millisecond), t.current.ssrc)})
	}
	t.current, t.switched = s, now
	t.info = &interceptor.StreamInfo{
		SSRC: s.ssrc, PayloadType: t.pt, MimeType: t.codec.MimeType, ClockRate: t.codec.ClockRate, Channels: t.codec.Channels, SDPFmtpLine: t.codec.SDPFmtpLine,
	}
	for _, f := range t.codec.RTCPFeedback {
		t.info.RTCPFeedback = append(t.info.RTCPFeedback, interceptor.RTCPFeedback{Type: f.Type, Parameter: f.Parameter})
	}
	t.stats = in.Reports.BindRemoteStream(t.info, interceptor.RTPReaderFunc(inPlace))
	t.nack = in.NACKs.BindRemoteStream(t.info, interceptor.RTPReaderFunc(inPlace))
	if t.first == 0 {
		t.first = s.ssrc
	}
	// A client that changes its SSRC without a word may listen under the first alone.
	ask := []uint32{s.ssrc}
	if s.rid == "" && t.first != s.ssrc {
		ask = append(ask, t.first)
	}
	t.up = t.track.Attach(asking(func() bool { return t.ask(ask...) }))
	t.up.Extensions(t.exts)
}

// asking is a Receiver that asks for keyframes by a function.
type asking func() bool

// RequestKeyframe implements forward.Receiver.
func (a asking) RequestKeyframe() bool { return a() }

// repair forwards the packet that the one at hand retransmits (RFC 4588,
// section 4).
func (in *ingress) repair(t *upTrack, s *rtpStream, b []byte, now time.Time) {
	p := &in.packet
	if len(p.Payload) < 2 {
		return // padding, by which browsers probe for bandwidth
	}
	of, declared := t.repairs[s.ssrc]
	rrid := in.extension(in.rrid)
	switch {
	case t.current == nil:
		in.drop(forward.Unpaired, "section %d: a retransmission, and nothing that it would repair", t.offered.Index)
		return
	case declared && of != t.current.ssrc, len(rrid) > 0 && t.current.rid != "" && string(rrid) != t.current.rid:
		in.drop(forward.Layer, "section %d: a retransmission of a layer that is not forwarded", t.offered.Index)
		return
	case !declared && len(rrid) == 0 && t.several(now):
		in.drop(forward.Unpaired, "section %d: several streams, and nothing tells which one a retransmission is of", t.offered.Index)
		return
	}
	var header [12]byte
	copy(header[:], b[:12])
	header[0] = 0x80
	header[1] = header[1]&0x80 | t.pt
	copy(header[2:4], p.Payload)
	binary.BigEndian.PutUint32(header[8:], t.current.ssrc)
	p.SequenceNumber, p.PayloadType, p.SSRC, p.Payload = binary.BigEndian.Uint16(p.Payload), t.pt, t.current.ssrc, p.Payload[2:]
	// The generator of NACKs has to know; reception reports are of what came the
	// first time.
	_, _, _ = t.nack.Read(header[:], interceptor.Attributes{})
	in.forward(t, p, now)
}

// several reports whether more than one stream of media flows in the section.
func (t *upTrack) several(now time.Time) bool {
	n := 0
	for _, s := range t.streams {
		if !s.repairs && now.Sub(s.last) < takeoverAfter {
			n++
		}
	}
	return n > 1
}

// receiveReport takes one RTCP packet that names ssrc.
func (in *ingress) receiveReport(ssrc uint32, b []byte) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return // pion has parsed it before
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.heard = time.Now()
	if in.closed {
		return
	}
	s := in.streams[ssrc]
	if s == nil || s.section == nil || s != s.section.current {
		return
	}
	t := s.section
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			if p.SSRC == ssrc {
				_, _, _ = in.report.Read(b, interceptor.Attributes{})
				t.up.SenderReport(p, in.heard)
			}
		case *rtcp.Goodbye:
			s.bye = s.bye || slices.Contains(p.Sources, ssrc)
		}
	}
}

// look makes events of sections that have begun to send nothing, since is when
// media could flow.
func (in *ingress) look(now, since time.Time) {
	in.mu.Lock()
	for _, t := range in.sections {
		silent := now.Sub(t.last)
		if t.last.IsZero() {
			silent = now.Sub(since)
		}
		if t.stalled || silent < stallAfter {
			continue
		}
		t.stalled = true
		e := Event{Kind: event.MediaStalled, Reason: "silent", Elapsed: milliseconds(silent), Detail: fmt.Sprintf("%s sends nothing any more, for %v", t, silent.Round(time.Second))}
		if t.last.IsZero() {
			e.Reason = "never-sent"
			e.Detail = fmt.Sprintf("%s was accepted and sends nothing, %v after the connection was up", t, silent.Round(time.Second))
			if n := in.drops.Sum(); n > 0 {
				e.Detail += fmt.Sprintf("; %d packets came that belong to no section or stream that is forwarded", n)
			}
		}
		in.events = append(in.events, e)
	}
	events := in.events
	in.events = nil
	in.mu.Unlock()
	for _, e := range events {
		in.event(e)
	}
}

// silence is how long nothing has come, counted from since at the earliest.
func (in *ingress) silence(now, since time.Time) time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.heard.After(since) {
		since = in.heard
	}
	return now.Sub(since)
}

// reachable has keyframe requests sent that could not be sent before.
func (in *ingress) reachable() {
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

// adopt has the sections feed tracks, which are like those they were made for,
// from now on. Nothing has come yet.
func (in *ingress) adopt(tracks []*forward.Track) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, t := range in.sections {
		tracks[i].GoOnAs(t.track)
		t.track = tracks[i]
	}
}

// close stops forwarding.
func (in *ingress) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	for _, t := range in.sections {
		if t.up != nil {
			t.up.Close()
		}
	}
}

func (t *upTrack) String() string {
	_, codec, _ := strings.Cut(t.track.Codec.MimeType, "/")
	return fmt.Sprintf("section %d (%s, %s)", t.offered.Index, sdp.KindOf(t.track.Codec.MimeType), codec)
}

// A SectionStatus is one media section of a publisher.
type SectionStatus struct {
	Section int     `json:"section"` // in the offer, from 0
	Mid     string  `json:"mid"`
	Kind    string  `json:"kind"`
	Codec   string  `json:"codec"`
	State   string  `json:"state"` // "waiting" for the first packet, "flowing", "stalled"
	SSRC    uint32  `json:"ssrc,omitempty"`
	Layer   string  `json:"layer,omitempty"` // RID of simulcast
	Packets int64   `json:"packets"`
	Lost    int64   `json:"lost"`
	Changes int     `json:"ssrc_changes"`
	Silent  float64 `json:"silent_ms"` // since the last packet
}

// status lists the sections.
func (in *ingress) status(now time.Time) []SectionStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []SectionStatus
	for _, t := range in.sections {
		_, codec, _ := strings.Cut(t.track.Codec.MimeType, "/")
		st := SectionStatus{
			Section: t.offered.Index, Mid: t.offered.MID, Kind: sdp.KindOf(t.track.Codec.MimeType).String(), Codec: codec, State: "flowing",
			Packets: t.packets.Load(), Lost: t.lost.Load(), Changes: t.changes,
		}
		switch {
		case t.stalled:
			st.State = "stalled"
		case t.current == nil:
			st.State = "waiting"
		}
		if t.current != nil {
			st.SSRC, st.Layer, st.Silent = t.current.ssrc, plain(t.current.rid), milliseconds(now.Sub(t.last))
		}
		all = append(all, st)
	}
	return all
}
