package forward

import (
	"math"
	"slices"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/forward/repair"
	"weir/sfu/layer"
)

// A numbering is what a far end has been sent under one SSRC. Packets are
// numbered by their index, whose lower 16 bits are the sequence number.
type numbering struct {
	goesOn  bool      // there was a packet
	index   uint64    // highest sent
	lastTS  uint32    // of index
	lastAt  time.Time // of index
	last    layer.Number
	aligned uint32 // our timestamps minus the source's, once the spans have come to it
	spans   []span // the last ones, of which the last goes on
	repairs repair.Stream
}

// A span is a part of a DownTrack's numbering with constant offsets to a ring.
type span struct {
	ring    *ring
	source  *source
	began   time.Time
	first   uint64          // our number of the first packet
	shift   uint64          // our number minus the position; wraps around
	timeOff uint32          // our timestamp minus the source's
	ids     map[uint8]uint8 // our IDs of header extensions, by the source's
	numbers layer.Shift     // our numbers of pictures minus the source's
	top     uint8           // the highest spatial layer that is sent
}

// maxSpans is how many spans a DownTrack remembers for repair: where it leaves
// layers out, each picture begins one.
const maxSpans = 128

// alignMost is how far timestamps by sender reports may be from those by arrival:
// beyond that, the reports make no sense.
const alignMost = 2 * time.Second

// spanOf returns the span that our packet index was sent in; nil: it is too old.
func spanOf(spans []span, index uint64) *span {
	for i := range slices.Backward(spans) {
		if spans[i].first <= index {
			return &spans[i]
		}
	}
	return nil
}

// spanFor returns the span that k belongs to; nil: k was left out, or is too
// old.
func spanFor(spans []span, k *kept) *span {
	for i := range slices.Backward(spans) {
		s := &spans[i]
		switch {
		case s.source != k.source:
			return nil
		case k.position < s.first-s.shift:
		case i+1 < len(spans) && spans[i+1].first <= k.position+s.shift:
			return nil
		default:
			return s
		}
	}
	return nil
}

// far reports whether k is so far ahead of what was sent that its number could
// be taken for one from before. No such gap is left.
func (d *DownTrack) far(k *kept) bool {
	return int64(k.position+d.spans[len(d.spans)-1].shift-d.index) >= 1<<14
}

// newest reports whether no packet after k was sent or left out.
func (d *DownTrack) newest(k *kept) bool {
	s := &d.spans[len(d.spans)-1]
	index := k.position + s.shift
	return int64(index-s.first) >= 0 && int64(index-d.index) > 0
}

// goOn begins a span in which k, of the same source, follows the last packet
// sent.
func (d *DownTrack) goOn(k *kept) {
	s := d.spans[len(d.spans)-1]
	s.began, s.first = k.at, d.index+1
	s.shift = s.first - k.position
	d.add(s)
}

// omit leaves k out, without a gap. VP8's pictures are numbered without one, too:
// a decoder waits for those that are missing. Those of VP9, and all by the
// dependency descriptor, refer to each other by number.
func (d *DownTrack) omit(k *kept) {
	if !d.newest(k) {
		return
	}
	s := d.spans[len(d.spans)-1]
	s.began, s.first = k.at, k.position+s.shift
	s.shift--
	if n := k.info.Number; d.compact && n.PictureBits != 0 && d.omitted != uint32(n.Picture)+1 {
		d.omitted = uint32(n.Picture) + 1
		s.numbers.Picture--
	}
	d.add(s)
}

// advance begins a span if k, the newest, has other offsets than the last packet:
// the highest spatial layer is another one now, or the timestamps are ahead of
// those of the reports, which ends with the next picture that can.
func (d *DownTrack) advance(k *kept) {
	s := d.spans[len(d.spans)-1]
	was := s
	s.top = d.filter.At().Spatial
	if s.timeOff != d.aligned && k.timestamp+s.timeOff != d.lastTS {
		s.timeOff = after(d.lastTS, d.aligned, k.timestamp)
	}
	if s.top != was.top || s.timeOff != was.timeOff {
		s.began, s.first = k.at, k.position+s.shift
		d.add(s)
	}
}

// after returns the offset for a timestamp that is to follow last: off, or the
// least that does.
func after(last, off, timestamp uint32) uint32 {
	if int32(timestamp+off-last) <= 0 {
		return last + 1 - timestamp
	}
	return off
}

// rebase begins a span in which k, of another source, follows the last packet
// sent.
func (d *DownTrack) rebase(b *Binding, k *kept) {
	s := span{ring: &k.source.up.track.ring, source: k.source, began: k.at, first: uint64(k.seq), top: d.filter.At().Spatial}
	if d.goesOn {
		s.first = d.index + 1
		d.aligned = d.align(k)
		s.timeOff = after(d.lastTS, d.aligned, k.timestamp)
		s.numbers = layer.After(d.last, k.info.Number)
	}
	s.shift = s.first - k.position
	for _, e := range k.source.exts {
		if to, ok := b.Extensions[e.uri]; ok {
			if s.ids == nil {
				s.ids = map[uint8]uint8{}
			}
			s.ids[e.id] = to
		}
	}
	d.add(s)
	d.source, d.goesOn, d.omitted = k.source, true, 0
}

// align returns what to add to the timestamps of k's source: by the sender
// reports of two encodings of one track, else by the time that has passed since
// the last packet.
func (d *DownTrack) align(k *kept) uint32 {
	clock := float64(d.Track.Codec.ClockRate)
	passed := d.lastTS + max(1, uint32(k.at.Sub(d.lastAt).Seconds()*clock)) - k.timestamp
	if d.source == nil || d.at() == k.source.up.track {
		return passed
	}
	old, next := d.at().lastReport(), k.source.up.track.lastReport()
	if old.up == nil || old.up != d.source.up || next.up != k.source.up {
		return passed
	}
	between := math.Round(float64(int64(next.ntp-old.ntp)) / (1 << 32) * clock)
	off := d.aligned + old.rtp + uint32(int64(between)) - next.rtp
	if apart := int32(off - passed); float64(max(apart, -apart)) > alignMost.Seconds()*clock {
		return passed
	}
	return off
}

// add adds a span, in place of those after it, or of the oldest if there are too
// many.
func (d *DownTrack) add(s span) {
	for len(d.spans) > 0 && d.spans[len(d.spans)-1].first >= s.first {
		d.spans = d.spans[:len(d.spans)-1]
	}
	if len(d.spans) == maxSpans {
		d.spans = slices.Delete(d.spans, 0, 1)
	}
	d.spans = append(d.spans, s)
}

// packetOf returns k as it is sent in s. It is valid until the next call.
func (d *DownTrack) packetOf(b *Binding, s *span, k *kept) (*rtp.Header, []byte) {
	h := &d.header
	*h = rtp.Header{
		Version:        2,
		Marker:         k.marker || k.info.Last(s.top),
		PayloadType:    b.PayloadType,
		SequenceNumber: uint16(k.position + s.shift),
		Timestamp:      k.timestamp + s.timeOff,
		SSRC:           b.SSRC,
		Extensions:     h.Extensions[:0],
		Padding:        k.padding > 0,
		PaddingSize:    k.padding,
	}
	if b.MIDExtension != 0 && d.packets.Load() < maxMIDs {
		b.Form.Extend(h, b.MIDExtension, b.MID)
	}
	k.addExtensions(h, s.ids, b.Form)
	if id := s.ids[s.source.descriptor]; id != 0 && s.numbers.Frame != 0 {
		if v := h.GetExtension(id); v != nil {
			_ = h.SetExtension(id, layer.Descriptor(&d.descriptor, v, s.numbers)) // as long as before
		}
	}
	return h, d.rewriter.Payload(&d.payload, k.payload(), s.numbers)
}
