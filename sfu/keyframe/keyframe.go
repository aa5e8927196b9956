// Package keyframe detects whether a keyframe begins in an RTP payload: the
// point from which a receiver without earlier packets can decode.
package keyframe

import "strings"

// Is reports whether a keyframe begins in payload, the payload of one RTP
// packet (without header, extensions and padding) of codec mime, such as
// "video/VP8" in any case.
//
// It supports VP8 (RFC 7741), VP9 (RFC 9628), H264 (RFC 6184), H265 (RFC 7798)
// and AV1 (AOM's RTP specification); for any other codec, audio included, and for payloads
// that are malformed or cut short, it returns false. It reads only the payload,
// allocates nothing, and never panics.
//
// A keyframe may begin in several packets of one frame: the parameter sets of
// H264 and H265 and the first slice of the picture all count, since encoders send them
// together or apart. To count keyframes, count distinct RTP timestamps.
//
// Where the RTP payload descriptor repeats information of the bitstream, the
// descriptor takes precedence, so that end-to-end encrypted frames of VP9 and
// AV1 are recognised too.
func Is(mime string, payload []byte) bool {
	switch {
	case strings.EqualFold(mime, "video/VP8"):
		return vp8(payload)
	case strings.EqualFold(mime, "video/VP9"):
		return vp9(payload)
	case strings.EqualFold(mime, "video/H264"):
		return h264(payload)
	case strings.EqualFold(mime, "video/H265"):
		return h265(payload)
	case strings.EqualFold(mime, "video/AV1"):
		return av1(payload)
	}
	return false
}

// vp8 looks for the start of a frame's first partition (RFC 7741 §4.2) and the
// inverse key frame flag behind it (§4.3).
func vp8(p []byte) bool {
	if len(p) < 1 || p[0]&0x10 == 0 || p[0]&0x07 != 0 { // S, PID
		return false
	}
	i := 1
	if p[0]&0x80 != 0 { // X
		if len(p) <= i {
			return false
		}
		x := p[i]
		i++
		if x&0x80 != 0 { // I: picture ID of 7 or 15 bits
			if len(p) <= i {
				return false
			}
			if p[i]&0x80 != 0 {
				i++
			}
			i++
		}
		if x&0x40 != 0 { // L: TL0PICIDX
			i++
		}
		if x&0x30 != 0 { // T or K share one byte
			i++
		}
	}
	return len(p) > i && p[i]&0x01 == 0
}

// vp9 trusts the descriptor (RFC 9628 §4.2): the first packet of the lowest
// spatial layer of a picture that is not inter-predicted. In flexible mode some
// senders (pion's own payloader) never set P, so there a frame header that
// contradicts it takes precedence.
func vp9(p []byte) bool {
	if len(p) < 1 {
		return false
	}
	d := p[0]
	const i, pp, l, f, b, v = 0x80, 0x40, 0x20, 0x10, 0x08, 0x02
	if d&b == 0 || d&pp != 0 {
		return false
	}
	n := 1
	if d&i != 0 {
		if len(p) <= n {
			return false
		}
		if p[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if d&l != 0 {
		if len(p) <= n || p[n]>>1&0x07 != 0 { // SID
			return false
		}
		n++
		if d&f == 0 { // TL0PICIDX
			n++
		}
	}
	if d&f == 0 {
		return len(p) > n
	}
	if d&v != 0 {
		// A scalability structure is sent with keyframes only (§4.2.1).
		return len(p) > n
	}
	return len(p) > n && !vp9InterHeader(p[n])
}

// vp9InterHeader reports whether h, the first byte of an uncompressed VP9 frame
// header, is of an inter frame.
func vp9InterHeader(h byte) bool {
	if h>>6 != 2 { // not a frame marker: encrypted
		return false
	}
	if h>>4&0x03 == 3 { // profile 3 has one more reserved bit
		return h&0x06 != 0
	}
	return h&0x0c != 0 // show_existing_frame, frame_type
}

// H264 NAL unit types (RFC 6184 table 1).
const (
	nalIDR   = 5
	nalSPS   = 7
	nalSTAPA = 24
	nalSTAPB = 25
	nalMTAP2 = 26
	nalMTAP3 = 27
	nalFUA   = 28
	nalFUB   = 29
)

func h264(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	switch t := p[0] & 0x1f; t {
	case nalSTAPA:
		return h264Aggregate(p[1:], 0)
	case nalSTAPB:
		if len(p) < 3 {
			return false
		}
		return h264Aggregate(p[3:], 0) // after the DON
	case nalMTAP2:
		if len(p) < 3 {
			return false
		}
		return h264Aggregate(p[3:], 3) // each unit has DOND and a 16-bit offset
	case nalMTAP3:
		if len(p) < 3 {
			return false
		}
		return h264Aggregate(p[3:], 4)
	case nalFUA, nalFUB:
		body := 2
		if t == nalFUB {
			body = 4
		}
		return len(p) > body && p[1]&0x80 != 0 && h264Starts(p[1]&0x1f, p[body])
	default:
		return h264Starts(t, p[1])
	}
}

// h264Aggregate searches units, each a 16-bit size and that many bytes, the
// first skip of which do not belong to the NAL unit.
func h264Aggregate(p []byte, skip int) bool {
	for len(p) > 2 {
		size := int(p[0])<<8 | int(p[1])
		p = p[2:]
		// MTAP sizes do not count the DOND and offset in front (RFC 6184 §5.7.2).
		size += skip
		if size > len(p) {
			return false
		}
		if nal := p[skip:size]; len(nal) >= 2 && h264Starts(nal[0]&0x1f, nal[1]) {
			return true
		}
		p = p[size:]
	}
	return false
}

// h264Starts reports whether a NAL unit of type t whose second byte is first
// begins a keyframe: parameter sets, or the slice at the top of an IDR picture
// (first_mb_in_slice = 0 is a single 1 bit).
func h264Starts(t, first byte) bool {
	return t == nalSPS || t == nalIDR && first&0x80 != 0
}

// AV1 OBU types (AV1 specification §6.2.2).
const (
	obuSequence = 1
	obuFrameHdr = 3
	obuFrame    = 6
)

// av1 trusts the N bit of the aggregation header, which marks the first packet
// of a coded video sequence. Without it, a sequence header followed by the
// header of a shown or hidden keyframe counts, since some senders forget the
// bit.
func av1(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	const z, n = 0x80, 0x08
	if p[0]&z != 0 { // begins within an OBU
		return false
	}
	if p[0]&n != 0 {
		return true
	}
	w := int(p[0] >> 4 & 0x03)
	p = p[1:]
	sequence := false
	for k := 1; len(p) > 0; k++ {
		obu := p
		if w == 0 || k < w {
			size, used := leb128(p)
			if used == 0 || size > len(p)-used {
				return false
			}
			obu, p = p[used:used+size], p[used+size:]
		} else {
			p = nil
		}
		if len(obu) == 0 {
			continue
		}
		t, body := obu[0]>>3&0x0f, 1
		if obu[0]&0x04 != 0 { // extension
			body++
		}
		if obu[0]&0x02 != 0 && len(obu) > body { // obu_size kept in RTP, which is allowed
			_, used := leb128(obu[body:])
			if used == 0 {
				return false
			}
			body += used
		}
		switch t {
		case obuSequence:
			sequence = true
		case obuFrameHdr, obuFrame:
			// show_existing_frame 0, frame_type KEY_FRAME
			return sequence && len(obu) > body && obu[body]&0xe0 == 0
		}
	}
	return false
}

// leb128 decodes a length of at most four bytes; used is 0 if there is none.
func leb128(p []byte) (size, used int) {
	for i := 0; i < 4 && i < len(p); i++ {
		size |= int(p[i]&0x7f) << (7 * i)
		if p[i]&0x80 == 0 {
			return size, i + 1
		}
	}
	return 0, 0
}
