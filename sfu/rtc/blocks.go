package rtc

import (
	"strconv"
	"strings"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/red"
	"weir/sfu/sdp"
)

// blocks makes the payloads of a track of redundant audio (RFC 2198) fit a far
// end: under its payload type, or the packets' own blocks alone for one that
// knows Opus only. A nil one changes nothing.
type blocks struct {
	alone  bool
	pt     uint8
	buffer []byte
}

// blocksFor returns what a track of mime needs to be sent as codec; nil: nothing,
// or it cannot be.
func blocksFor(mime string, codec webrtc.RTPCodecParameters) *blocks {
	switch {
	case mime != sdp.MimeRED:
	case strings.EqualFold(codec.MimeType, webrtc.MimeTypeOpus):
		return &blocks{alone: true}
	case strings.EqualFold(codec.MimeType, sdp.MimeRED):
		return &blocks{pt: innerType(codec.SDPFmtpLine)}
	}
	return nil
}

// innerType returns the payload type of the blocks, of parameters of redundant
// audio that were parsed before.
func innerType(fmtp string) uint8 {
	first, _, _ := strings.Cut(fmtp, "/")
	pt, _ := strconv.ParseUint(first, 10, 7)
	return uint8(pt)
}

// of returns payload for the far end, valid until the next call. What is not
// redundant audio goes on as it is.
func (b *blocks) of(payload []byte) []byte {
	switch {
	case b == nil:
	case !b.alone:
		b.buffer = red.AppendTyped(b.buffer[:0], payload, b.pt)
		return b.buffer
	default:
		if primary := red.Primary(payload); primary != nil {
			return primary
		}
	}
	return payload
}

// redundant makes p, if it is of the Opus that redundant audio was negotiated
// with, a packet of that, with one block: browsers send Opus alone where a frame
// leaves no room for others.
func (in *Ingress) redundant(p *rtp.Packet) {
	var as *section
	for _, t := range in.sections {
		inner := t.offered.Codec.Inner
		switch {
		case t.PayloadType == p.PayloadType:
			return // another section's own
		case inner != nil && uint8(inner.PT) == p.PayloadType:
			as = t
		}
	}
	if as != nil {
		in.alone = red.AppendAlone(in.alone[:0], p.Payload, p.PayloadType)
		p.Payload, p.PayloadType = in.alone, as.PayloadType
	}
}
