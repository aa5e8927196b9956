// Package paramsets inserts the parameter sets that a publisher declared in its
// offer before those keyframes that come without.
package paramsets

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/rtp"
)

const (
	// maxSets bounds the number of parameter sets, and maxSet the size of one,
	// in bytes: each is sent as one packet.
	maxSets = 16
	maxSet  = 1000
)

// A format is the NAL units of one codec.
type format struct {
	header              int  // bytes in front of a unit's payload
	mask                byte // the type in the header of a fragment
	aggregate, fragment byte
	typeOf              func(first byte) byte
	set                 func(t byte) bool // a parameter set
	begins              func(t byte) bool // a slice of a picture with which decoding can begin
	main                byte              // the type of the set without which the others are of no use
}

var (
	// h264 is of RFC 6184, table 1, and section 5.4.
	h264 = &format{
		header: 1, mask: 0x1f, aggregate: 24, fragment: 28, main: 7,
		typeOf: func(first byte) byte { return first & 0x1f },
		set:    func(t byte) bool { return t == 7 || t == 8 }, // SPS, PPS
		begins: func(t byte) bool { return t == 5 },           // IDR
	}
	// h265 is of RFC 7798, sections 1.1.4 and 4.4.
	h265 = &format{
		header: 2, mask: 0x3f, aggregate: 48, fragment: 49, main: 33,
		typeOf: func(first byte) byte { return first >> 1 & 0x3f },
		set:    func(t byte) bool { return 32 <= t && t <= 34 }, // VPS, SPS, PPS
		begins: func(t byte) bool { return 16 <= t && t <= 21 }, // BLA, IDR, CRA
	}
)

// Sets are the parameter sets that a publisher declared in its offer, of H264
// (sprop-parameter-sets; RFC 6184, section 8.1) or H265 (sprop-vps, sprop-sps and
// sprop-pps; RFC 7798, section 7.1). Such an encoder may send none with its
// keyframes, and our answer does not convey them to viewers: browsers do not read
// them there. So they are inserted before each keyframe that comes without, as
// separate packets, which receivers accept in all packetization modes but the
// interleaved one; later packets are renumbered.
//
// If the stream has other sets than the offer, those of the offer are out of
// date and are not used any more.
type Sets struct {
	format *format
	sets   [][]byte // NAL units: VPS, SPS, PPS

	source  any    // the source of the numbers below
	shift   uint16 // packets inserted so far
	last    uint16 // packets inserted at the last keyframe
	at      uint16 // sequence number of that keyframe's first packet
	highest uint16
	stamp   uint32 // timestamp of the frame that has its sets
	framed  bool   // stamp is valid
}

// Parse parses the parameter sets of codec mime in a=fmtp: NAL units in base64,
// separated by commas. It returns nil if there is nothing usable among them.
func Parse(mime, value string) *Sets {
	s := &Sets{format: h264}
	if strings.EqualFold(mime, "video/H265") {
		s.format = h265
	}
	kind := func(nal []byte) byte { return s.format.typeOf(nal[0]) }
	for part := range strings.SplitSeq(value, ",") {
		nal, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil {
			nal, err = base64.RawStdEncoding.DecodeString(strings.TrimSpace(part))
		}
		if err != nil || len(nal) <= s.format.header || len(nal) > maxSet || len(s.sets) == maxSets {
			continue
		}
		if s.format.set(kind(nal)) {
			s.sets = append(s.sets, nal)
		}
	}
	slices.SortStableFunc(s.sets, func(a, b []byte) int { return int(kind(a)) - int(kind(b)) })
	if !slices.ContainsFunc(s.sets, func(nal []byte) bool { return kind(nal) == s.format.main }) {
		return nil
	}
	return s
}

// Profile returns the profile-level-id of sets of H264; "": none. s may be nil.
func (s *Sets) Profile() string {
	if s == nil || s.format != h264 || len(s.sets[0]) < 4 {
		return ""
	}
	return fmt.Sprintf("%x", s.sets[0][1:4])
}

// Before returns the packets to send before p of source, and renumbers p. A
// source is one numbering of packets; sources are compared.
func (s *Sets) Before(source any, p *rtp.Packet) []*rtp.Packet {
	if s.source != source {
		s.source, s.shift, s.last, s.framed = source, 0, 0, false
		s.highest = p.SequenceNumber - 1
	}
	newest := int16(p.SequenceNumber-s.highest) > 0
	if newest {
		s.highest = p.SequenceNumber
	}
	idr := s.look(p)
	var put []*rtp.Packet
	if idr && newest && s.sets != nil && (!s.framed || s.stamp != p.Timestamp) {
		s.stamp, s.framed = p.Timestamp, true
		s.at, s.last = p.SequenceNumber, uint16(len(s.sets))
		for i, nal := range s.sets {
			h := rtp.Header{Version: 2, PayloadType: p.PayloadType, SSRC: p.SSRC, Timestamp: p.Timestamp, SequenceNumber: p.SequenceNumber + s.shift + uint16(i)}
			put = append(put, &rtp.Packet{Header: h, Payload: nal})
		}
		s.shift += s.last
	}
	if newest && p.SequenceNumber-s.at >= 1<<14 {
		s.last = 0 // or numbers after the keyframe would come to look like those before
	}
	shift := s.shift
	if s.last > 0 && int16(p.SequenceNumber-s.at) < 0 { // late, from before the keyframe
		shift -= s.last
	}
	p.SequenceNumber += shift
	return put
}

// look records the parameter sets in p, and reports whether a slice of a
// keyframe begins in it.
func (s *Sets) look(p *rtp.Packet) (idr bool) {
	f, payload := s.format, p.Payload
	if len(payload) <= f.header {
		return false
	}
	switch f.typeOf(payload[0]) {
	case f.aggregate:
		for rest := payload[f.header:]; len(rest) > 2; {
			n := int(rest[0])<<8 | int(rest[1])
			if n == 0 || n > len(rest)-2 {
				return idr
			}
			idr = s.unit(p, rest[2:2+n]) || idr
			rest = rest[2+n:]
		}
		return idr
	case f.fragment:
		// The type stands in the lowest bits of the byte after the header, whose
		// highest marks the first fragment.
		after := payload[f.header]
		return after&0x80 != 0 && f.begins(after&f.mask)
	}
	return s.unit(p, payload)
}

func (s *Sets) unit(p *rtp.Packet, nal []byte) (idr bool) {
	t := s.format.typeOf(nal[0])
	if s.format.set(t) {
		s.stamp, s.framed = p.Timestamp, true
		if !slices.ContainsFunc(s.sets, func(own []byte) bool { return bytes.Equal(own, nal) }) {
			s.sets = nil
		}
	}
	return s.format.begins(t)
}
