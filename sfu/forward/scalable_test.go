package forward

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/layer"
)

// A scaler sends VP9 of two spatial layers, each predicted from the one below in
// keyframes alone (L2T1_KEY), in one packet for each layer of a picture.
type scaler struct {
	track *Track
	up    *UpTrack
	seq   uint16
	tick  int
	key   bool
	asked int
	lost  map[int]bool // pictures whose upper layer gets lost
}

func newScaler() *scaler {
	s := &scaler{track: &Track{ID: "video0", Codec: Codec{MimeType: "video/VP9", ClockRate: 90000}}, key: true, lost: map[int]bool{}}
	s.up = s.track.Attach(fakeReceiver(func() bool { s.asked++; s.key = true; return true }))
	return s
}

func (s *scaler) run(n int) {
	for range n {
		inter := byte(0x40)
		if s.key {
			inter = 0
		}
		s.key = false
		for sid := range byte(2) {
			// I, P, L, B, E; a picture ID of 15 bits; the layer indices; TL0PICIDX
			p := []byte{0x80 | inter | 0x20 | 0x0c, 0x80 | byte(s.tick>>8), byte(s.tick), sid<<1 | sid&^(inter>>6), byte(s.tick), 0x86, 0, 0}
			k := packet(s.seq, uint32(s.tick)*3000, append(p, make([]byte, 500*(1+2*int(sid)))...))
			k.Marker = sid == 1
			s.seq++
			if sid == 0 || !s.lost[s.tick] {
				s.up.Forward(k, time.Now())
			}
		}
		if s.tick++; s.tick%8 == 0 {
			s.track.Sample(time.Now())
			s.track.Review(time.Now())
		}
		time.Sleep(pictureTime)
		s.track.Settle()
	}
}

// A viewer of the lower layer gets no packet of the upper one, sees no gap, and
// each picture ends with a marker; up it goes with a keyframe, which is
// requested; its limit does the same as its choice.
func TestSpatialLayersAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScaler()
		l, d := down(s.track)
		add(t, s.track, d)
		lowest := uint8(0)
		s.run(60)
		if layers := s.track.Layers(); len(layers) != 2 || layers[0].Bitrate == 0 || layers[1].Bitrate < 3*layers[0].Bitrate {
			t.Errorf("layers %+v", layers)
		}
		check := func(what string, upper bool) {
			t.Helper()
			from := len(l.sent)
			s.run(20)
			n := 0
			for i, p := range l.sent[from:] {
				sid := p.Payload[3] >> 1 & 7
				if sid == 1 {
					n++
				}
				if last := sid == 1 || !upper; p.Marker != last {
					t.Errorf("%s: packet %d of layer %d has marker %v", what, i, sid, p.Marker)
				}
			}
			if (n == 20) != upper || !upper && n > 0 || len(l.sent)-from-n != 20 {
				t.Errorf("%s: %d packets, %d of the upper layer", what, len(l.sent)-from, n)
			}
		}
		check("at first", true)
		d.Choose(Choice{Spatial: &lowest})
		s.run(16)
		check("the lowest by choice", false)
		asked := s.asked
		d.Choose(Choice{})
		s.run(40)
		check("all again", true)
		if s.asked != asked+1 {
			t.Errorf("%d keyframes were requested to go up, want one", s.asked-asked)
		}
		d.Limit(200_000)
		s.run(16)
		check("within a limit", false)
		s.run(30)
		if s.asked != asked+1 {
			t.Error("a keyframe was requested for a layer beyond the limit")
		}
		for i := 1; i < len(l.sent); i++ {
			if l.sent[i].SequenceNumber != l.sent[i-1].SequenceNumber+1 {
				t.Fatalf("a gap before packet %d", i)
			}
		}
	})
}

// A packet that is missing leaves a gap, whatever is left out beside it, so that
// the viewer requests it; and one that was left out is not sent late.
func TestLossBesideLayersLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScaler()
		l, d := down(s.track)
		add(t, s.track, d)
		lowest := uint8(0)
		d.Choose(Choice{Spatial: &lowest})
		s.run(30)
		s.lost[s.tick+1] = true
		late := s.seq + 3
		s.run(3)
		n := len(l.sent)
		if gap := l.sent[n-1].SequenceNumber - l.sent[n-2].SequenceNumber; gap != 2 {
			t.Errorf("after a loss the sequence number is %d higher, want 2", gap)
		}
		s.up.Forward(packet(late, uint32(s.tick-2)*3000, []byte{0xec, 0x80, 0, 3, 0, 0x86}), time.Now())
		s.track.Settle()
		if len(l.sent) != n {
			t.Errorf("what was left out came late, as %d", l.sent[n].SequenceNumber)
		}
		s.run(3)
		if n += 3; len(l.sent) != n || l.sent[n-1].SequenceNumber != l.sent[n-2].SequenceNumber+1 {
			t.Errorf("then %d packets", len(l.sent)-n+3)
		}
	})
}

// A packet that comes late, after one behind it was left out, has the highest
// number that was sent: another source goes on after it.
func TestLateBesideLayersLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		l, d := down(track)
		add(t, track, d)
		d.filter.Want(layer.Point{Spatial: layer.Most})
		send := func(pictures ...uint16) {
			for _, n := range pictures { // odd ones are of the upper layer
				p := append([]byte{0x90, 0xe0, 0x80 | byte(n>>8), byte(n), byte(n / 2), byte(n%2) << 6}, deltaPayload[1:]...)
				if n%100 == 0 {
					p = append(p[:6], keyPayload[1:]...)
				}
				feed(up, packet(n, uint32(n)*3000, p))
			}
		}
		send(0, 1, 2, 5, 4)
		up = track.Attach(never)
		send(100, 101, 102)
		var numbers, pictures []uint16
		for _, p := range l.sent {
			numbers = append(numbers, p.SequenceNumber)
			pictures = append(pictures, binary.BigEndian.Uint16(p.Payload[2:])&0x7fff)
		}
		if want := []uint16{0, 1, 3, 4, 5}; !slices.Equal(numbers, want) || !slices.Equal(pictures, want) {
			t.Errorf("sent packets %v of pictures %v, want %v", numbers, pictures, want)
		}
	})
}
