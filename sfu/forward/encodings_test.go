package forward

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// A simulcaster sends the encodings of one video in VP8, as browsers do: 30
// pictures a second, numbered and timed by each encoding for itself, with a
// keyframe when one is requested.
type simulcaster struct {
	track *Track
	all   []*simulcastEncoding // the preferred first
	tick  int
}

type simulcastEncoding struct {
	up      *UpTrack
	on      bool
	size    int // bytes of a picture
	seq     uint16
	offset  uint32 // of timestamps
	picture uint16
	width   byte
	asked   int
	key     bool
	deaf    bool // it makes no keyframe that is requested
	reports bool
}

const pictureTime = time.Second / 30

func newSimulcaster() *simulcaster {
	s := &simulcaster{track: vp8Track()}
	s.track.Simulcast([]string{"h", "m", "l"})
	for i, e := range s.track.Encodings() {
		enc := &simulcastEncoding{on: true, size: 4000 >> (2 * i), seq: uint16(20000 * i), offset: uint32(1<<31) * uint32(i+1), picture: uint16(9000 * i), width: byte(200 >> i), key: true, reports: true}
		enc.up = e.Attach(fakeReceiver(func() bool { enc.asked++; enc.key = !enc.deaf; return true }))
		s.all = append(s.all, enc)
	}
	return s
}

// run sends n pictures of each encoding, and reviews what receivers get as
// often as the node does.
func (s *simulcaster) run(n int) {
	for range n {
		for _, e := range s.all {
			if e.on {
				s.send(e)
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

func (s *simulcaster) send(e *simulcastEncoding) {
	ts := e.offset + uint32(s.tick)*3000
	if s.tick%30 == 0 && e.reports {
		e.up.SenderReport(&rtcp.SenderReport{NTPTime: uint64(float64(s.tick) / 30 * (1 << 32)), RTPTime: ts}, time.Now())
	}
	p := []byte{0x90, 0xe0, 0x80 | byte(e.picture>>8), byte(e.picture), byte(e.picture / 2), byte(e.picture%2) << 6, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if e.key {
		copy(p[6:], []byte{0x10, 2, 0, 0x9d, 0x01, 0x2a, e.width, 0, e.width, 0})
		e.key = false
	}
	e.up.Forward(packet(e.seq, ts, append(p, make([]byte, e.size)...)), time.Now())
	e.seq++
	e.picture = (e.picture + 1) & 0x7fff
}

// viewer adds a DownTrack.
func (s *simulcaster) viewer(t *testing.T) (*fakeSender, *DownTrack) {
	l, d := down(s.track)
	add(t, s.track, d)
	return l, d
}

// continuous fails the test unless what was sent is one stream without a gap:
// sequence numbers, picture IDs, and timestamps whose steps are at most those of
// single pictures, in spite of slack; one that was sent of two encodings counts
// twice.
func continuous(t *testing.T, l *fakeSender, slack uint32) {
	t.Helper()
	for i := 1; i < len(l.sent); i++ {
		was, is := &l.sent[i-1], &l.sent[i]
		step := is.Timestamp - was.Timestamp
		if is.SequenceNumber != was.SequenceNumber+1 || step == 0 || step > 3000+slack {
			t.Fatalf("packet %d: sequence number %d after %d, timestamp %d later, %d bytes after %d", i, is.SequenceNumber, was.SequenceNumber, int32(step), len(is.Payload), len(was.Payload))
		}
		a := uint16(was.Payload[2]&0x7f)<<8 | uint16(was.Payload[3])
		b := uint16(is.Payload[2]&0x7f)<<8 | uint16(is.Payload[3])
		if b != (a+1)&0x7fff {
			t.Fatalf("packet %d: picture %d after %d", i, b, a)
		}
	}
}

func sizes(l *fakeSender, from int) map[int]int {
	all := map[int]int{}
	for _, p := range l.sent[from:] {
		all[len(p.Payload)-16]++
	}
	return all
}

// Two viewers get two layers, each as one stream that goes on without a gap when
// it changes to another layer; and one that chose nothing gets the best.
func TestEncodingsAreChosenByViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		best, _ := s.viewer(t)
		other, d := s.viewer(t)
		d.Choose(Choice{RID: "l"})
		s.run(120)
		if got := sizes(best, 60); len(got) != 1 || got[4000] == 0 {
			t.Errorf("the viewer that chose nothing got pictures of %v bytes", got)
		}
		if got := sizes(other, 60); len(got) != 1 || got[250] == 0 {
			t.Errorf("the viewer of the lowest layer got pictures of %v bytes", got)
		}
		d.Choose(Choice{RID: "m"})
		s.run(60)
		d.Choose(Choice{})
		s.run(60)
		if got := sizes(other, 140); got[1000] == 0 || got[4000] == 0 || got[250] > 30 {
			t.Errorf("after its choices the viewer got pictures of %v bytes", got)
		}
		continuous(t, best, 0)
		continuous(t, other, 0)
		if n := len(other.sent); n < 238 {
			t.Errorf("%d of 240 pictures were sent to the viewer that switched", n)
		}
		if layer, ok := d.Sending(); !ok || layer.RID != "h" || layer.Width != 200 || layer.Bitrate < 900_000 || layer.Bitrate > 1_000_000 {
			t.Errorf("it is said to get %+v, %v", layer, ok)
		}
	})
}

// Without sender reports timestamps go on by arrival.
func TestEncodingsWithoutReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		for _, e := range s.all {
			e.reports = false
		}
		l, d := s.viewer(t)
		s.run(60)
		d.Choose(Choice{RID: "m"})
		s.run(60)
		continuous(t, l, 3000)
	})
}

// A viewer's limit chooses the layer: the best that fits, and up only with a
// margin; an estimate that moves around a layer's bitrate does not make it
// switch to and fro.
func TestEncodingsWithinALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		l, d := s.viewer(t)
		s.run(150)
		for _, c := range []struct {
			limit int64
			size  int
		}{{500_000, 1000}, {70_000, 250}, {250_000, 250}, {300_000, 1000}, {250_000, 1000}, {2_000_000, 4000}, {0, 4000}} {
			d.Limit(c.limit)
			s.run(40)
			from := len(l.sent)
			s.run(20)
			if got := sizes(l, from); len(got) != 1 || got[c.size] == 0 {
				t.Errorf("at %d bit/s it got pictures of %v bytes, want %d", c.limit, got, c.size)
			}
		}
		continuous(t, l, 0)
	})
}

// When a layer stops, its viewers get the next best within a bounded time, and it
// again when it flows again; a layer that starts late is used, too.
func TestEncodingsThatStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		s.all[0].on = false
		l, _ := s.viewer(t)
		s.run(90)
		if got := sizes(l, 30); len(got) != 1 || got[1000] == 0 {
			t.Errorf("while the best layer has not begun, it got pictures of %v bytes", got)
		}
		s.all[0].on, s.all[0].key = true, true
		s.run(90)
		from := len(l.sent)
		s.run(30)
		if got := sizes(l, from); len(got) != 1 || got[4000] == 0 {
			t.Errorf("once the best layer flows, it got pictures of %v bytes", got)
		}
		s.all[0].on = false
		s.run(60)
		if gone := len(l.sent) - from - 30; gone < 60-45 {
			t.Errorf("%d pictures in 2 s after the layer stopped", gone)
		}
		from = len(l.sent)
		s.run(30)
		if got := sizes(l, from); len(got) != 1 || got[1000] != 30 {
			t.Errorf("after the best layer stopped, it got pictures of %v bytes", got)
		}
		for i := 1; i < len(l.sent); i++ {
			if l.sent[i].SequenceNumber != l.sent[i-1].SequenceNumber+1 {
				t.Fatalf("a gap before packet %d", i)
			}
		}
	})
}

// However fast viewers switch, the encoder is asked for a keyframe a second.
func TestSwitchingIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		l, d := s.viewer(t)
		s.run(60)
		for _, e := range s.all {
			e.asked = 0
		}
		const seconds = 20
		for i := range seconds * 30 {
			d.Choose(Choice{RID: []string{"l", "m", "h"}[i%3]})
			s.track.Review(time.Now())
			s.run(1)
		}
		asked := 0
		for _, e := range s.all {
			asked += e.asked
		}
		if most := seconds*switchPace + len(s.all); asked > most || asked == 0 {
			t.Errorf("the encoder was asked %d times in %d s, want at most %d", asked, seconds, most)
		}
		continuous(t, l, 0)
	})
}

// Encodings that make no keyframe when one is requested do not keep viewers from
// switching to one that does.
func TestDeafEncodingsDoNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		_, a := s.viewer(t)
		_, b := s.viewer(t)
		l, c := s.viewer(t)
		b.Choose(Choice{RID: "m"})
		s.run(60)
		s.all[0].deaf, s.all[1].deaf = true, true
		a.Choose(Choice{RID: "m"})
		b.Choose(Choice{RID: "h"})
		s.run(300)
		c.Choose(Choice{RID: "l"})
		s.run(60)
		from := len(l.sent)
		s.run(10)
		if got := sizes(l, from); got[250] != 10 {
			t.Errorf("2 s after its choice of the lowest layer it got pictures of %v bytes", got)
		}
	})
}

// Packets of the layer that a viewer has left are sent again, as they were.
func TestRepairAfterASwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		l, d := &fakeSender{}, NewDownTrack(s.track)
		d.Bind(Binding{Sender: l, SSRC: 4711, PayloadType: 120, Repair: true})
		add(t, s.track, d)
		s.run(60)
		d.Choose(Choice{RID: "m"})
		s.run(30)
		first := slices.IndexFunc(l.sent, func(p rtp.Packet) bool { return len(p.Payload) < 4000 }) // after the switch
		for i := first - 4; i < first+4; i++ {
			want := l.sent[i]
			d.RTCP(nacks(4711, want.SequenceNumber), time.Now())
			got := l.sent[len(l.sent)-1]
			if got.SequenceNumber != want.SequenceNumber || got.Timestamp != want.Timestamp || string(got.Payload) != string(want.Payload) {
				t.Fatalf("packet %d was repaired as another one", i)
			}
		}
	})
}

// Where even the least layer is more than the limit, the viewer gets fewer
// pictures a second of it, numbered as if there were no others.
func TestTemporalLayersAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulcaster()
		l, d := &fakeSender{}, NewDownTrack(s.track)
		d.Bind(Binding{Sender: l, SSRC: 4711, PayloadType: 120, Repair: true})
		add(t, s.track, d)
		s.run(60)
		d.Limit(40_000)
		s.run(60)
		from := len(l.sent)
		s.run(60)
		if n := len(l.sent) - from; n != 30 {
			t.Errorf("%d of 60 pictures, want every other", n)
		}
		continuous(t, l, 3000)
		n := len(l.sent)
		for _, want := range l.sent[n-6 : n] {
			d.RTCP(nacks(4711, want.SequenceNumber), time.Now())
			if got := l.sent[len(l.sent)-1]; got.Timestamp != want.Timestamp || string(got.Payload) != string(want.Payload) {
				t.Fatalf("packet %d was repaired as another one", want.SequenceNumber)
			}
		}
	})
}
