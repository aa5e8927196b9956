// Package paramsets inserts the parameter sets that a publisher declared in its
// offer before keyframes that come without them.
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

// H264 NAL unit types (RFC 6184, table 1, and section 5.4).
const (
	nalIDR   = 5
	nalSPS   = 7
	nalPPS   = 8
	nalSTAPA = 24
	nalFUA   = 28
)

// Sets are the H264 parameter sets that a publisher declared in its
// offer (sprop-parameter-sets; RFC 6184, section 8.1). Such an encoder may send
// none with its keyframes, and our answer does not convey them to viewers:
// browsers do not read them there. So they are inserted before each keyframe
// that comes without, as separate packets, which receivers of every
// packetization mode accept; later packets are renumbered.
//
// If the stream has other sets than the offer, those of the offer are out of
// date and are not used any more.
type Sets struct {
	sets [][]byte // NAL units, SPS before PPS

	source  any    // the source of the numbers below
	shift   uint16 // packets inserted so far
	last    uint16 // packets inserted at the last keyframe
	at      uint16 // sequence number of that keyframe's first packet
	highest uint16
	stamp   uint32 // timestamp of the frame that has its sets
	framed  bool   // stamp is valid
}

// ParseSprop parses the value of sprop-parameter-sets in a=fmtp. It returns nil
// if there is nothing usable in it.
func ParseSprop(value string) *Sets {
	s := &Sets{}
	for part := range strings.SplitSeq(value, ",") {
		nal, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil {
			nal, err = base64.RawStdEncoding.DecodeString(strings.TrimSpace(part))
		}
		if err != nil || len(nal) < 2 || len(nal) > maxSet || len(s.sets) == maxSets {
			continue
		}
		if t := nal[0] & 0x1f; t == nalSPS || t == nalPPS {
			s.sets = append(s.sets, nal)
		}
	}
	slices.SortStableFunc(s.sets, func(a, b []byte) int { return int(a[0]&0x1f) - int(b[0]&0x1f) })
	if len(s.sets) == 0 || s.sets[0][0]&0x1f != nalSPS {
		return nil
	}
	return s
}

// Profile returns the profile-level-id of the sets.
func (s *Sets) Profile() string {
	if len(s.sets[0]) < 4 {
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
	payload := p.Payload
	if len(payload) < 2 {
		return false
	}
	switch payload[0] & 0x1f {
	case nalSTAPA:
		for rest := payload[1:]; len(rest) > 2; {
			n := int(rest[0])<<8 | int(rest[1])
			if n == 0 || n > len(rest)-2 {
				return idr
			}
			idr = s.unit(p, rest[2:2+n]) || idr
			rest = rest[2+n:]
		}
		return idr
	case nalFUA:
		return payload[1]&0x80 != 0 && payload[1]&0x1f == nalIDR
	}
	return s.unit(p, payload)
}

func (s *Sets) unit(p *rtp.Packet, nal []byte) (idr bool) {
	switch nal[0] & 0x1f {
	case nalIDR:
		return true
	case nalSPS, nalPPS:
		s.stamp, s.framed = p.Timestamp, true
		if !slices.ContainsFunc(s.sets, func(own []byte) bool { return bytes.Equal(own, nal) }) {
			s.sets = nil
		}
	}
	return false
}
