package layer

import (
	"bytes"
	"testing"
)

func TestVP8(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload []byte
		want    Info
	}{
		{"empty", nil, Info{}},
		{"cut short in its picture ID", []byte{0x90, 0x80, 0x81}, Info{}},
		{"a keyframe without extensions", []byte{0x10, 0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1}, Info{
			Known: true, Begin: true, Key: true, Intra: true, UpTo: Most, Sized: true, Size: Size{640, 360},
		}},
		{"the second temporal layer, from which it can be decoded", []byte{0x90, 0xe0, 0x81, 0x02, 7, 0x60, 0x11, 0}, Info{
			Known: true, Begin: true, Temporal: 1, UpTo: 1, Number: Number{Picture: 0x102, PictureBits: 15, TL0: 7, HasTL0: true},
		}},
		{"a later packet, with a short picture ID", []byte{0x80, 0x80, 0x05, 0x11}, Info{Known: true, Number: Number{Picture: 5, PictureBits: 7}}},
	} {
		p := NewParser("video/vp8")
		if got := p.Parse(c.payload, nil); got != c.want {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

func TestVP9(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload []byte
		want    Info
	}{
		{"empty", nil, Info{}},
		{"cut short in its references", []byte{0xd0, 0x05, 0x03}, Info{}},
		{"a keyframe with the structure of two spatial layers", []byte{0x8a | 0x20, 0x81, 0x02, 0x00, 9, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0}, Info{
			Known: true, Begin: true, Key: true, Intra: true, UpTo: Most, Sized: true, Size: Size{320, 180},
			Number: Number{Picture: 0x102, PictureBits: 15, TL0: 9, HasTL0: true},
		}},
		{"the upper spatial layer of a later picture", []byte{0xec, 0x05, 0x53, 9, 0}, Info{
			Known: true, Begin: true, End: true, Spatial: 1, Temporal: 2, UpTo: 2, Number: Number{Picture: 5, PictureBits: 7, TL0: 9, HasTL0: true},
		}},
	} {
		p := NewParser("video/VP9")
		if got := p.Parse(c.payload, nil); got != c.want {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

// A bitWriter writes bits, the highest first.
type bitWriter struct {
	b  []byte
	at int
}

func (w *bitWriter) put(n int, v uint32) {
	for i := n - 1; i >= 0; i-- {
		if w.at%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.at/8] |= byte(v>>i&1) << (7 - w.at%8)
		w.at++
	}
}

// l2t2 is the structure of two spatial and two temporal layers, with inter-layer
// prediction in every picture: for four decode targets, six templates.
func l2t2(w *bitWriter) {
	w.put(6, 10) // offset
	w.put(5, 3)
	for _, next := range []uint32{0, 0, 1, 2, 0, 0, 1, 3} { // S0: key, T0, T0'; T1 …
		w.put(2, next)
	}
	for _, dti := range [][4]uint32{{2, 2, 2, 2}, {2, 2, 3, 3}, {2, 2, 3, 3}, {0, 1, 0, 3}, {0, 0, 2, 2}, {0, 0, 2, 2}, {0, 0, 2, 2}, {0, 0, 0, 1}} {
		for _, d := range dti {
			w.put(2, d)
		}
	}
	for _, diffs := range [][]uint32{{}, {4}, {4}, {2}, {1}, {1, 4}, {1, 4}, {1, 2}} {
		for _, d := range diffs {
			w.put(1, 1)
			w.put(4, d-1)
		}
		w.put(1, 0)
	}
	w.put(2, 0) // ns(5): no chains
	w.put(1, 1)
	for _, side := range []uint32{320, 180, 640, 360} {
		w.put(16, side-1)
	}
}

func descriptorOf(begin, end, template, frame uint32, structure bool) []byte {
	var w bitWriter
	w.put(1, begin)
	w.put(1, end)
	w.put(6, template)
	w.put(16, frame)
	if structure {
		w.put(5, 0x10)
		l2t2(&w)
	}
	return w.b
}

func TestDependencyDescriptor(t *testing.T) {
	p := NewParser("video/AV1")
	if got := p.Parse(nil, descriptorOf(1, 1, 11, 5, false)); got.Known {
		t.Errorf("without a structure it knows %+v", got)
	}
	frame := func(n uint16) Number { return Number{Frame: n, HasFrame: true} }
	for _, c := range []struct {
		name       string
		descriptor []byte
		want       Info
	}{
		{"a keyframe", descriptorOf(1, 1, 10, 700, true), Info{
			Known: true, Begin: true, End: true, Intra: true, Key: true, UpTo: Most, Sized: true, Size: Size{320, 180}, Number: frame(700),
		}},
		{"its upper layer", descriptorOf(1, 0, 14, 701, false), Info{
			Known: true, Begin: true, Spatial: 1, Intra: true, UpTo: 1, Sized: true, Size: Size{640, 360}, Number: frame(701),
		}},
		{"a later picture", descriptorOf(0, 1, 11, 702, false), Info{Known: true, End: true, UpTo: 1, Number: frame(702)}},
		{"its upper layer, of the upper temporal one", descriptorOf(1, 1, 17, 703, false), Info{
			Known: true, Begin: true, End: true, Spatial: 1, Temporal: 1, Number: frame(703),
		}},
		{"a template that is not there", descriptorOf(1, 1, 18, 704, false), Info{}},
		{"a structure that is cut short", descriptorOf(1, 1, 10, 705, true)[:12], Info{}},
		{"after these, as before", descriptorOf(1, 1, 13, 706, false), Info{Known: true, Begin: true, End: true, Temporal: 1, Number: frame(706)}},
	} {
		if got := p.Parse(nil, c.descriptor); got != c.want {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

// A filter goes down with the next picture, and up where the stream allows it.
func TestFilter(t *testing.T) {
	var (
		key   = Info{Known: true, Begin: true, Key: true, Intra: true, UpTo: Most}
		upper = Info{Known: true, Begin: true, Spatial: 1}
		intra = Info{Known: true, Begin: true, Spatial: 1, Intra: true, UpTo: Most}
		base  = Info{Known: true, Begin: true}
		t1    = Info{Known: true, Begin: true, Temporal: 1}
		sync1 = Info{Known: true, Begin: true, Temporal: 1, UpTo: 1}
		rest  = Info{Known: true, Temporal: 1}
	)
	type step struct {
		info Info
		ts   uint32
		pass bool
	}
	for _, c := range []struct {
		name  string
		from  Point
		want  Point
		steps []step
	}{
		{"temporal, down at once", All, Point{Most, 0}, []step{{base, 1, true}, {t1, 2, false}, {rest, 2, false}, {base, 3, true}}},
		{"temporal, down with the next picture", All, All, []step{{t1, 2, true}, {rest, 2, true}}},
		{"temporal, up at a point to switch", Point{Most, 0}, All, []step{{t1, 1, false}, {base, 2, true}, {sync1, 3, true}, {rest, 3, true}, {t1, 4, true}}},
		{"temporal, up at a keyframe", Point{Most, 0}, All, []step{{key, 1, true}, {t1, 2, true}}},
		{"spatial, down", All, Point{0, Most}, []step{{base, 1, true}, {upper, 1, false}}},
		{"spatial, up with a keyframe only", Point{0, Most}, All, []step{{base, 1, true}, {upper, 1, false}, {key, 2, true}, {upper, 2, true}}},
		{"spatial, up with a picture that refers to none before", Point{0, Most}, All, []step{{base, 1, true}, {intra, 1, true}, {upper, 2, true}}},
		{"not up with a frame of which some was left out", Point{Most, 0}, All, []step{{base, 1, true}, {rest, 2, false}, {sync1, 2, false}, {rest, 2, false}, {sync1, 3, true}}},
		{"what is not known passes", Point{}, Point{}, []step{{Info{}, 1, true}}},
		{"late packets change nothing", Point{Most, 0}, All, []step{{base, 5, true}, {sync1, 4, false}, {t1, 6, false}}},
	} {
		f := NewFilter(c.from)
		f.Want(c.want)
		for i, s := range c.steps {
			if got := f.Pass(&s.info, s.ts); got != s.pass {
				t.Errorf("%s: step %d: %v", c.name, i, got)
			}
		}
	}
}

func TestPick(t *testing.T) {
	rungs := func(change ...func([]Rung)) []Rung {
		all := []Rung{
			{Encoding: 0, RID: "l", Bits: 60}, {Encoding: 0, RID: "l", Point: Point{0, 1}, Bits: 100},
			{Encoding: 1, RID: "m", Bits: 200}, {Encoding: 1, RID: "m", Point: Point{0, 1}, Bits: 400},
			{Encoding: 2, RID: "h", Bits: 1000}, {Encoding: 2, RID: "h", Point: Point{0, 1}, Bits: 2000},
		}
		for i := range all {
			all[i].Active, all[i].Proven = true, true
		}
		for _, f := range change {
			f(all)
		}
		return all
	}
	off := func(encodings ...int) func([]Rung) {
		return func(all []Rung) {
			for i := range all {
				for _, e := range encodings {
					all[i].Active = all[i].Active && all[i].Encoding != e
				}
			}
		}
	}
	young := func(all []Rung) { all[4].Proven, all[5].Proven = false, false }
	any := Wish{Point: All}
	for _, c := range []struct {
		name    string
		rungs   []Rung
		wish    Wish
		current int
		want    int
	}{
		{"the best", rungs(), any, -1, 5},
		{"one by its RID", rungs(), Wish{RID: "m", Point: All}, 5, 3},
		{"a RID that is not there", rungs(), Wish{RID: "x", Point: All}, -1, 5},
		{"the chosen one does not flow", rungs(off(1)), Wish{RID: "m", Point: All}, 5, 1},
		{"nothing up to the chosen one flows", rungs(off(0, 1)), Wish{RID: "m", Point: All}, -1, 4},
		{"nothing flows", rungs(off(0, 1, 2)), any, 3, 3},
		{"nothing flows yet", rungs(off(0, 1, 2)), any, -1, 5},
		{"fewer pictures by choice", rungs(), Wish{Point: Point{Most, 0}}, -1, 4},
		{"within a limit", rungs(), Wish{Bits: 500, Point: All}, 5, 3},
		{"up only with a margin", rungs(), Wish{Bits: 2100, Point: All}, 3, 3},
		{"and with it", rungs(), Wish{Bits: 2300, Point: All}, 3, 5},
		{"no margin is needed to stay", rungs(), Wish{Bits: 2000, Point: All}, 5, 5},
		{"fewer pictures as a last resort", rungs(), Wish{Bits: 70, Point: All}, 5, 0},
		{"less than the least", rungs(), Wish{Bits: 1, Point: All}, 5, 0},
		{"a limit below the choice", rungs(), Wish{RID: "h", Bits: 500, Point: All}, -1, 3},
		{"not to what has only begun", rungs(young), any, 3, 3},
		{"unless there was nothing", rungs(young), any, -1, 5},
		{"no rungs", nil, any, -1, -1},
	} {
		if got := Pick(c.rungs, c.wish, c.current); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if p := Wanted(rungs(), 5, any); p != All {
		t.Errorf("of the best encoding %v is wanted", p)
	}
	if p := Wanted(rungs(), 0, any); p != (Point{Most, 0}) {
		t.Errorf("of the last resort %v is wanted", p)
	}
}

// What is read of any packet is within bounds, and what is rewritten has moved
// numbers and nothing else.
func FuzzLayers(f *testing.F) {
	f.Add([]byte{0x90, 0xe0, 0x81, 0x02, 7, 0x60, 0x11, 0}, descriptorOf(1, 1, 10, 700, true), uint16(77), uint8(3))
	f.Add([]byte{0xaa, 0x81, 0x02, 0x00, 9, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0}, descriptorOf(1, 1, 11, 65535, false), uint16(1), uint8(0))
	f.Add([]byte{0xec, 0x05, 0x53, 9, 0}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint16(0xffff), uint8(255))
	f.Add([]byte{}, []byte{0xca, 0, 0, 0x80, 0, 0xff}, uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, payload, descriptor []byte, picture uint16, tl0 uint8) {
		for _, mime := range []string{"video/VP8", "video/VP9", "video/AV1", "video/H264"} {
			p, r := NewParser(mime), NewRewriter(mime)
			p.Parse(nil, descriptorOf(1, 1, 10, 1, true))
			i := p.Parse(payload, descriptor)
			if i.Spatial > Most || i.Temporal > Most || i.UpTo > Most {
				t.Fatalf("%s: %+v", mime, i)
			}
			before := bytes.Clone(payload)
			var buffer, other []byte
			s := Shift{Picture: picture, TL0: tl0, Frame: picture}
			moved := r.Payload(&buffer, payload, s)
			if !bytes.Equal(before, payload) || len(moved) != len(payload) {
				t.Fatalf("%s: the payload itself was changed", mime)
			}
			if got := p.Parse(moved, nil).Number; got != s.Of(p.Parse(payload, nil).Number) && p.Parse(payload, nil).Known {
				t.Fatalf("%s: numbers %+v of %+v", mime, got, p.Parse(payload, nil).Number)
			}
			if back := r.Payload(&other, moved, Shift{Picture: -picture, TL0: -tl0}); !bytes.Equal(back, payload) {
				t.Fatalf("%s: %x moved and moved back is %x", mime, payload, back)
			}
			if d := Descriptor(&other, descriptor, s); len(d) != len(descriptor) {
				t.Fatal("the descriptor has another length")
			}
		}
	})
}
