// Package layer reads what RTP packets say of the layers of scalable video: VP8
// (RFC 7741), VP9 (RFC 9628), and for any codec the dependency descriptor (AV1
// RTP specification, appendix A). It decides which packets a viewer gets, and
// moves the numbers of pictures, so that those of several encodings continue
// each other. It has no I/O, no goroutine and no clock.
package layer

import "strings"

// Most is above every number of a layer.
const Most = 7

// An Info is what one packet says of its frame.
type Info struct {
	Known    bool // the other fields are
	Spatial  uint8
	Temporal uint8
	// UpTo is the highest temporal layer that a receiver can decode from this
	// frame on, if it has decoded all below its own; at least Temporal if it is
	// a point to switch up.
	UpTo   uint8
	Begin  bool // first packet of the frame of its spatial layer
	End    bool // last packet of it
	Intra  bool // the frame depends on none but those of the same picture
	Key    bool // and on none at all: what comes before is not needed any more
	Sized  bool // Size is known
	Number Number
	Size   Size
}

// A Number is what payload and descriptor call a frame, each modulo 2 to the
// power of its bits; 0 bits: not given.
type Number struct {
	Picture     uint16
	PictureBits uint8 // 7 or 15
	TL0         uint8 // TL0PICIDX
	HasTL0      bool
	Frame       uint16 // frame number of the dependency descriptor
	HasFrame    bool
}

// A Size is that of a picture, in pixels.
type Size struct{ Width, Height uint16 }

func (s Size) area() int { return int(s.Width) * int(s.Height) }

// A Parser reads the packets of one numbering, in about the order in which they
// were sent. The zero value knows no codec.
type Parser struct {
	read      func(*Parser, []byte) Info
	structure *structure // of the dependency descriptor; nil: none yet
	sizes     [Most + 1]Size
}

// NewParser makes a Parser for a codec, such as "video/VP8" in any case.
func NewParser(mime string) Parser {
	switch strings.ToLower(mime) {
	case "video/vp8":
		return Parser{read: vp8}
	case "video/vp9":
		return Parser{read: vp9}
	}
	return Parser{}
}

// Parse reads one packet: its payload, and its dependency descriptor, which
// takes precedence; empty: none. It never panics, and keeps nothing of its
// arguments. Of what is malformed nothing is known.
func (p *Parser) Parse(payload, descriptor []byte) Info {
	var i Info
	if p.read != nil {
		i = p.read(p, payload)
	}
	if len(descriptor) > 0 {
		if d, ok := p.descriptor(descriptor); ok {
			d.Number.Picture, d.Number.PictureBits, d.Number.TL0, d.Number.HasTL0 = i.Number.Picture, i.Number.PictureBits, i.Number.TL0, i.Number.HasTL0
			if !d.Sized {
				d.Sized, d.Size = i.Sized, i.Size
			}
			return d
		}
	}
	return i
}

// A vp8Descriptor is the place of its fields in a payload (RFC 7741, section
// 4.2); 0: not there.
type vp8Descriptor struct{ picture, tl0, tid, end int }

func vp8Fields(p []byte) (d vp8Descriptor, ok bool) {
	if len(p) < 1 {
		return d, false
	}
	n := 1
	if p[0]&0x80 != 0 { // X
		if len(p) < 2 {
			return d, false
		}
		x := p[1]
		n = 2
		if x&0x80 != 0 { // I
			d.picture = n
			if len(p) <= n {
				return d, false
			}
			n += 1 + int(p[n]>>7)
		}
		if x&0x40 != 0 { // L
			d.tl0 = n
			n++
		}
		if x&0x30 != 0 { // T or K
			if x&0x20 != 0 {
				d.tid = n
			}
			n++
		}
	}
	d.end = n
	return d, len(p) > n
}

func vp8(_ *Parser, p []byte) (i Info) {
	d, ok := vp8Fields(p)
	if !ok {
		return i
	}
	i.Known = true
	i.Begin = p[0]&0x17 == 0x10 // S, PID
	i.Number.read(p, d.picture, d.tl0)
	if d.tid != 0 {
		i.Temporal = p[d.tid] >> 6
		if p[d.tid]&0x20 != 0 { // Y: it depends on the base layer only
			i.UpTo = i.Temporal
		}
	}
	if frame := p[d.end:]; i.Begin && frame[0]&0x01 == 0 {
		i.Key, i.Intra, i.UpTo = true, true, Most
		// RFC 6386, section 9.1: a start code, then 14 bits of each side.
		if len(frame) >= 10 && frame[3] == 0x9d && frame[4] == 0x01 && frame[5] == 0x2a {
			i.Sized = true
			i.Size = Size{uint16(frame[7]&0x3f)<<8 | uint16(frame[6]), uint16(frame[9]&0x3f)<<8 | uint16(frame[8])}
		}
	}
	return i
}

// vp9Fields is the place of the numbers in a VP9 payload (RFC 9628, section
// 4.2); 0: not there. layers is that of the layer indices, end that of what
// follows them.
func vp9Fields(p []byte) (picture, layers, tl0, end int, ok bool) {
	if len(p) < 1 {
		return
	}
	n := 1
	if p[0]&0x80 != 0 { // I
		picture = n
		if len(p) <= n {
			return
		}
		n += 1 + int(p[n]>>7)
	}
	if p[0]&0x20 != 0 { // L
		layers = n
		n++
		if p[0]&0x10 == 0 { // not flexible
			tl0 = n
			n++
		}
	}
	return picture, layers, tl0, n, len(p) >= n
}

func vp9(parser *Parser, p []byte) (i Info) {
	picture, layers, tl0, n, ok := vp9Fields(p)
	if !ok {
		return i
	}
	const inter, flexible, begin, end, structure = 0x40, 0x10, 0x08, 0x04, 0x02
	i.Known = true
	i.Begin, i.End = p[0]&begin != 0, p[0]&end != 0
	i.Intra = p[0]&inter == 0
	i.Number.read(p, picture, tl0)
	if layers != 0 {
		i.Temporal, i.Spatial = p[layers]>>5, p[layers]>>1&0x07
		if p[layers]&0x10 != 0 { // U
			i.UpTo = i.Temporal
		}
	}
	i.Key = i.Intra && i.Spatial == 0
	if i.Intra {
		i.UpTo = Most
	}
	if p[0]&flexible != 0 && p[0]&inter != 0 {
		for range 3 { // reference indices
			if len(p) <= n {
				return Info{}
			}
			n++
			if p[n-1]&1 == 0 {
				break
			}
		}
	}
	if p[0]&structure != 0 && len(p) > n {
		parser.vp9Sizes(p[n:])
	}
	if i.Begin && i.Intra {
		i.Size = parser.sizes[i.Spatial]
		i.Sized = i.Size.Width > 0
	}
	return i
}

// vp9Sizes reads the sizes of a scalability structure (RFC 9628, section 4.2.1).
func (p *Parser) vp9Sizes(b []byte) {
	count := int(b[0]>>5) + 1
	if b[0]&0x10 == 0 || len(b) < 1+4*count {
		return
	}
	for s := range count {
		at := b[1+4*s:]
		p.sizes[s] = Size{uint16(at[0])<<8 | uint16(at[1]), uint16(at[2])<<8 | uint16(at[3])}
	}
}

// read reads the numbers at their places in a payload.
func (n *Number) read(p []byte, picture, tl0 int) {
	if picture != 0 {
		n.Picture, n.PictureBits = uint16(p[picture]), 7
		if p[picture]&0x80 != 0 && len(p) > picture+1 {
			n.Picture, n.PictureBits = uint16(p[picture]&0x7f)<<8|uint16(p[picture+1]), 15
		}
	}
	if tl0 != 0 && len(p) > tl0 {
		n.TL0, n.HasTL0 = p[tl0], true
	}
}
