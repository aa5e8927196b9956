package rtc

import (
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/demux"
	"weir/sfu/forward"
	"weir/sfu/nack"
	"weir/sfu/sdp"
)

// A line is a media section that a publisher sends in, with all its layers.
type line struct {
	track   *forward.Track
	last    time.Time // when the last packet of any layer was forwarded
	stalled bool
}

// A section is one media section that a publisher sends in, or one layer of it.
type section struct {
	*demux.Section
	offered  *sdp.Section
	line     *line
	encoding int                       // of the line's track
	codec    webrtc.RTPCodecParameters // as negotiated
	exts     map[uint8]string
	ask      func(ssrcs ...uint32) bool

	packets, bytes, keyframes, lost atomic.Int64

	// Ingress.mu guards the following fields.
	track   *forward.Track
	up      *forward.UpTrack // nil before the first packet
	info    *interceptor.StreamInfo
	missing *nack.Stream // nil: the publisher sends nothing again
	stats   interceptor.RTPReader
	last    time.Time // when the last packet was forwarded
}

// Take adds an accepted section, before the answer is sent. The section is the
// source of t, each of its layers that of one encoding; ask sends keyframe
// requests for SSRCs.
func (in *Ingress) Take(s *sdp.Section, t *forward.Track, ask func(ssrcs ...uint32) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	repairs := map[uint32]uint32{}
	for media, repair := range s.Repairs {
		repairs[repair] = media
	}
	whole := &line{track: t}
	var layers []*demux.Section
	for i, e := range t.Encodings() {
		route := &demux.Section{MID: s.MID, RID: e.RID, PayloadType: uint8(s.Codec.PT), RTX: uint8(s.Codec.RTX), SSRCs: s.SSRCs, Repairs: repairs}
		switch n := len(t.Encodings()); {
		case n == 1:
		case len(s.Layers) > 0: // by RID, whatever SSRCs are declared
			route.SSRCs = nil
		default:
			route.RID, route.SSRCs = "", []uint32{s.Sim[n-1-i]}
		}
		layers = append(layers, route)
		in.sections = append(in.sections, &section{offered: s, track: e, line: whole, encoding: i, ask: ask, Section: route})
	}
	in.routes.Add(layers...)
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

// Negotiated records the parameters of the answer, before media can flow.
func (in *Ingress) Negotiated(pc *webrtc.PeerConnection) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.report = in.reports.BindRTCPReader(interceptor.RTCPReaderFunc(inPlace))
	for _, up := range in.sections {
		for _, tr := range pc.GetTransceivers() {
			if tr.Mid() == up.offered.PionMID() {
				in.negotiated(up, tr.Receiver().GetParameters())
			}
		}
	}
}

// negotiated records the parameters of a section. Called with mu held.
func (in *Ingress) negotiated(up *section, p webrtc.RTPParameters) {
	for _, c := range p.Codecs {
		if uint8(c.PayloadType) == up.PayloadType {
			up.codec = c
		}
	}
	up.exts = map[uint8]string{}
	for _, e := range p.HeaderExtensions {
		up.exts[uint8(e.ID)] = e.URI
		if e.URI == psdp.TransportCCURI {
			in.cc = uint8(e.ID)
		}
	}
}

// Adopt makes the sections the sources of tracks, which are like those they
// were made for. Nothing has been received yet.
func (in *Ingress) Adopt(tracks []*forward.Track) {
	in.mu.Lock()
	defer in.mu.Unlock()
	at := -1
	for _, t := range in.sections {
		if t.encoding == 0 {
			at++
			t.line.track = tracks[at]
		}
		e := t.line.track.Encodings()[t.encoding]
		e.GoOnAs(t.track)
		t.track = e
	}
}
