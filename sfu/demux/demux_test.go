package demux

import (
	"testing"
	"time"

	"weir/sfu/forward"
)

// Route assigns packets to sections by their MID, SSRC and payload type.
func TestRoute(t *testing.T) {
	type packet struct {
		ssrc     uint32
		pt       uint8
		mid, rid string
		rrid     string
		after    time.Duration
		size     int // 0: 100
		section  int // wanted section; -1: none
		reason   forward.Reason
		repair   bool
		changed  bool
	}
	video := func(s Section) Section {
		s.PayloadType, s.RTX = 96, 97
		return s
	}
	for _, c := range []struct {
		name     string
		sections []Section
		packets  []packet
	}{
		{"by the MID", []Section{video(Section{MID: "a"}), video(Section{MID: "b"})}, []packet{
			{ssrc: 1, pt: 96, mid: "b", section: 1, changed: true},
			{ssrc: 1, pt: 96, section: 1}, // the MID was sent once
			{ssrc: 2, pt: 96, mid: "c", section: -1, reason: forward.NoSection},
		}},
		{"by the SSRC", []Section{video(Section{SSRCs: []uint32{5}}), video(Section{SSRCs: []uint32{6}})}, []packet{
			{ssrc: 6, pt: 96, section: 1, changed: true},
			{ssrc: 5, pt: 96, section: 0, changed: true},
			{ssrc: 7, pt: 96, section: -1, reason: forward.UnknownSSRC},
		}},
		{"by the payload type", []Section{video(Section{}), {PayloadType: 111}}, []packet{
			{ssrc: 1, pt: 111, section: 1, changed: true},
			{ssrc: 2, pt: 96, section: 0, changed: true},
			{ssrc: 3, pt: 100, section: -1, reason: forward.PayloadType},
			{ssrc: 2, pt: 111, section: 0, reason: forward.PayloadType}, // not a type of its section
		}},
		{"of one codec, in order", []Section{video(Section{}), video(Section{})}, []packet{
			{ssrc: 1, pt: 96, section: 0, changed: true},
			{ssrc: 2, pt: 96, section: 1, changed: true},
			{ssrc: 3, pt: 96, section: -1, reason: forward.UnknownSSRC},
			{ssrc: 1, pt: 96, after: time.Second, section: 0},
			{ssrc: 4, pt: 96, section: 1, changed: true}, // the silent source continues
		}},
		{"guessed, and told better once", []Section{video(Section{MID: "a"}), video(Section{MID: "b"})}, []packet{
			{ssrc: 1, pt: 96, section: 0, changed: true},
			{ssrc: 1, pt: 96, mid: "b", section: 1, changed: true},
			{ssrc: 1, pt: 96, mid: "a", section: -1, reason: forward.UnknownSSRC},
		}},
		{"a second source", []Section{video(Section{})}, []packet{
			{ssrc: 1, pt: 96, section: 0, changed: true},
			{ssrc: 2, pt: 96, section: 0, reason: forward.SecondStream},
			{ssrc: 2, pt: 96, after: takeoverAfter, section: 0, changed: true},
			{ssrc: 1, pt: 96, after: takeoverAfter, section: 0, reason: forward.SecondStream}, // too soon after a change
			{ssrc: 1, pt: 96, after: takeoverAfter, section: 0, changed: true},
		}},
		{"layers", []Section{video(Section{MID: "a", RID: "h"}), video(Section{MID: "a", RID: "l"})}, []packet{
			{ssrc: 1, pt: 96, mid: "a", rid: "l", section: 1, changed: true},
			{ssrc: 2, pt: 96, rid: "h", section: 0, changed: true},
			{ssrc: 1, pt: 96, section: 1}, // the RID was sent once
			{ssrc: 2, pt: 96, mid: "a", section: 0},
			{ssrc: 3, pt: 96, mid: "a", rid: "x", section: -1, reason: forward.OtherLayer},
			{ssrc: 4, pt: 96, mid: "a", rid: "l", section: 1, reason: forward.SecondStream},      // too soon after a change
			{ssrc: 5, pt: 96, mid: "a", rid: "l", after: 2 * renewal, section: 1, changed: true}, // l is silent
			{ssrc: 2, pt: 96, section: 0},
			{ssrc: 5, pt: 96, mid: "a", rid: "h", section: 0, reason: forward.SecondStream},                   // it moves once
			{ssrc: 5, pt: 96, mid: "a", rid: "l", section: -1, reason: forward.UnknownSSRC},                   // and no more
			{ssrc: 2, pt: 96, after: takeoverAfter, section: 0}, {ssrc: 1, pt: 96, section: 1, changed: true}, // each layer for itself
		}},
		{"one of the layers, without a RID", []Section{video(Section{MID: "a", RID: "h"}), video(Section{MID: "a", RID: "l"})}, []packet{
			{ssrc: 1, pt: 96, mid: "a", section: 0, changed: true},
			{ssrc: 11, pt: 97, mid: "a", section: -1, reason: forward.Unpaired},
			{ssrc: 1, pt: 96, rid: "l", section: 1, changed: true}, // told better
			{ssrc: 2, pt: 96, mid: "a", rid: "h", section: 0, changed: true},
		}},
		{"layers by SSRC", []Section{video(Section{MID: "a", SSRCs: []uint32{1}, Repairs: map[uint32]uint32{11: 1}}), video(Section{MID: "a", SSRCs: []uint32{2}, Repairs: map[uint32]uint32{12: 2}})}, []packet{
			{ssrc: 2, pt: 96, section: 1, changed: true},
			{ssrc: 1, pt: 96, mid: "a", section: 0, changed: true},
			{ssrc: 12, pt: 97, mid: "a", section: 1, repair: true},
			{ssrc: 11, pt: 97, mid: "a", section: 0, repair: true},
		}},
		{"retransmissions", []Section{video(Section{})}, []packet{
			{ssrc: 9, pt: 97, section: 0, reason: forward.Unpaired, repair: true},
			{ssrc: 1, pt: 96, section: 0, changed: true},
			{ssrc: 9, pt: 97, section: 0, repair: true},
			{ssrc: 2, pt: 96, section: 0, reason: forward.SecondStream},
			{ssrc: 9, pt: 97, section: 0, reason: forward.Unpaired, repair: true}, // the original is one of two sources
		}},
		{"retransmissions of declared ones", []Section{video(Section{SSRCs: []uint32{1, 2}, Repairs: map[uint32]uint32{11: 1, 12: 2}})}, []packet{
			{ssrc: 1, pt: 96, section: 0, changed: true},
			{ssrc: 11, pt: 97, mid: "", section: 0, repair: true},
			{ssrc: 12, pt: 97, section: 0, reason: forward.OtherLayer, repair: true},
		}},
		{"retransmissions of a layer", []Section{video(Section{MID: "a", RID: "h"}), video(Section{MID: "a", RID: "l"})}, []packet{
			{ssrc: 1, pt: 96, mid: "a", rid: "h", section: 0, changed: true},
			{ssrc: 11, pt: 97, mid: "a", rrid: "h", section: 0, repair: true},
			{ssrc: 11, pt: 97, section: 0, repair: true}, // the RID was sent once
			{ssrc: 12, pt: 97, mid: "a", rrid: "l", section: 1, reason: forward.Unpaired, repair: true},
			{ssrc: 13, pt: 97, mid: "a", rrid: "x", section: -1, reason: forward.OtherLayer},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &Demux{}
			all := make([]*Section, len(c.sections))
			for i := range c.sections {
				all[i] = &c.sections[i]
			}
			addLines(d, all)
			now := time.Unix(1_000_000, 0)
			for i, p := range c.packets {
				now = now.Add(p.after)
				if p.size == 0 {
					p.size = 100
				}
				r := d.Route(d.Source(p.ssrc), Mark{PayloadType: p.pt, MID: []byte(p.mid), RID: []byte(p.rid), RepairedRID: []byte(p.rrid), Size: p.size}, now)
				var want *Section
				if p.section >= 0 {
					want = all[p.section]
				}
				if r.Section != want || r.Reason != p.reason || r.Repair != p.repair || r.Changed != p.changed {
					t.Errorf("packet %d: %+v, want section %d, %q, a repair %v, a change %v", i, r, p.section, p.reason, p.repair, p.changed)
				}
			}
		})
	}
}

// addLines adds sections, of which those of one MID in a row are layers.
func addLines(d *Demux, all []*Section) {
	for from := 0; from < len(all); {
		to := from + 1
		for to < len(all) && all[to].MID != "" && all[to].MID == all[from].MID {
			to++
		}
		d.Add(all[from:to]...)
		from = to
	}
}

// Padding that probes for bandwidth is not forwarded and not counted.
func TestProbe(t *testing.T) {
	d := &Demux{}
	d.Add(&Section{PayloadType: 96, RTX: 97})
	if r := d.Route(d.Source(1), Mark{PayloadType: 97}, time.Unix(1, 0)); !r.Probe || r.Reason != forward.Forwarded {
		t.Errorf("%+v", r)
	}
}

// A keyframe is requested under the forwarded SSRC and under the first one,
// unless layers tell them apart.
func TestAskUnder(t *testing.T) {
	now := time.Unix(1, 0)
	s := &Section{PayloadType: 96}
	d := &Demux{}
	d.Add(s)
	route := func(ssrc uint32, rid string) { d.Route(d.Source(ssrc), Mark{PayloadType: 96, RID: []byte(rid)}, now) }
	route(1, "")
	if got := s.AskUnder(); len(got) != 1 || got[0] != 1 {
		t.Errorf("asked under %v", got)
	}
	d.Goodbye(1)
	route(2, "")
	if got := s.AskUnder(); len(got) != 2 || got[0] != 2 || got[1] != 1 {
		t.Errorf("asked under %v after a change", got)
	}
	d.Goodbye(2)
	route(3, "h")
	if got := s.AskUnder(); len(got) != 1 || got[0] != 3 || s.Changes() != 2 {
		t.Errorf("asked under %v of a layer, after %d changes", got, s.Changes())
	}
	if d.Current(3) != s || d.Current(1) != nil || d.Current(99) != nil {
		t.Error("what is current is not told apart")
	}
}

// FuzzRoute checks that, for any packets, each source of a publisher stays in
// at most one section.
func FuzzRoute(f *testing.F) {
	f.Add([]byte{1, 96, 0, 2, 97, 1, 1, 96, 2})
	f.Add([]byte{1, 96, 1, 2, 96, 5, 5, 97, 4, 5, 96, 8, 5, 96, 13, 1, 96, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &Demux{}
		all := []*Section{{MID: "a", PayloadType: 96, RTX: 97, RID: "h"}, {MID: "a", PayloadType: 96, RTX: 97, RID: "l", SSRCs: []uint32{5}}, {MID: "b", PayloadType: 96, RTX: 97, SSRCs: []uint32{3}}}
		addLines(d, all)
		now := time.Unix(1, 0)
		for ; len(b) >= 3; b = b[3:] {
			m := Mark{PayloadType: b[1], Size: int(b[2])}
			m.MID = [][]byte{nil, []byte("a"), []byte("b"), []byte("c")}[b[2]%4]
			m.RID = [][]byte{nil, []byte("h"), []byte("l")}[b[2]%3]
			now = now.Add(time.Duration(b[2]) * 10 * time.Millisecond)
			r := d.Route(d.Source(uint32(b[0]%8)), m, now)
			if r.Section == nil && r.Reason == forward.Forwarded {
				t.Fatal("a packet is forwarded in no section")
			}
			if r.Section != nil && r.Reason == forward.Forwarded && !r.Probe && r.Section.Current() == nil {
				t.Fatal("a packet is forwarded in a section that has no source")
			}
		}
		for ssrc := range uint32(8) {
			n := 0
			for _, s := range all {
				for _, o := range s.sources {
					if o.SSRC == ssrc {
						n++
					}
				}
			}
			if n > 1 {
				t.Errorf("SSRC %d is in %d sections", ssrc, n)
			}
		}
	})
}
