package layer

import "strings"

// A Shift is what is added to the numbers of frames, so that those of another
// encoding continue what was sent. The zero value changes nothing.
type Shift struct {
	Picture uint16
	TL0     uint8
	Frame   uint16
}

// After returns the shift by which n follows last, the numbers sent last.
func After(last, n Number) (s Shift) {
	if last.PictureBits != 0 && n.PictureBits != 0 {
		s.Picture = last.Picture + 1 - n.Picture
	}
	if last.HasTL0 && n.HasTL0 {
		s.TL0 = last.TL0 + 1 - n.TL0
	}
	if last.HasFrame && n.HasFrame {
		s.Frame = last.Frame + 1 - n.Frame
	}
	return s
}

// Of returns n, shifted.
func (s Shift) Of(n Number) Number {
	n.Picture = (n.Picture + s.Picture) & (1<<n.PictureBits - 1)
	if n.HasTL0 {
		n.TL0 += s.TL0
	}
	if n.HasFrame {
		n.Frame += s.Frame
	}
	return n
}

// A Rewriter moves the numbers in the payloads of a codec. The zero value moves
// none.
type Rewriter struct {
	fields func([]byte) (picture, tl0 int)
}

// NewRewriter makes a Rewriter for a codec, such as "video/VP8" in any case.
func NewRewriter(mime string) Rewriter {
	switch strings.ToLower(mime) {
	case "video/vp8":
		return Rewriter{func(p []byte) (int, int) {
			d, ok := vp8Fields(p)
			if !ok {
				return 0, 0
			}
			return d.picture, d.tl0
		}}
	case "video/vp9":
		return Rewriter{func(p []byte) (int, int) {
			picture, _, tl0, _, ok := vp9Fields(p)
			if !ok {
				return 0, 0
			}
			return picture, tl0
		}}
	}
	return Rewriter{}
}

// Payload returns payload with its numbers moved by s: itself if nothing is to
// be moved, else a copy in buffer, which grows as needed. The number of bits of
// a picture ID stays.
func (r Rewriter) Payload(buffer *[]byte, payload []byte, s Shift) []byte {
	if r.fields == nil || s.Picture == 0 && s.TL0 == 0 {
		return payload
	}
	picture, tl0 := r.fields(payload)
	if picture == 0 && tl0 == 0 {
		return payload
	}
	p := append((*buffer)[:0], payload...)
	*buffer = p
	var n Number
	n.read(p, picture, tl0)
	n = s.Of(n)
	switch n.PictureBits {
	case 7:
		p[picture] = uint8(n.Picture)
	case 15:
		p[picture], p[picture+1] = 0x80|uint8(n.Picture>>8), uint8(n.Picture)
	}
	if n.HasTL0 {
		p[tl0] = n.TL0
	}
	return p
}

// Descriptor returns a dependency descriptor with its frame number moved by s:
// itself if nothing is to be moved, else a copy in buffer.
func Descriptor(buffer *[]byte, d []byte, s Shift) []byte {
	if s.Frame == 0 || len(d) < 3 {
		return d
	}
	c := append((*buffer)[:0], d...)
	*buffer = c
	n := uint16(c[1])<<8 | uint16(c[2]) + s.Frame
	c[1], c[2] = uint8(n>>8), uint8(n)
	return c
}
