package forward

import (
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// A slowSender records packets, and waits in its first write until it is opened.
type slowSender struct {
	fakeSender
	open chan struct{}
}

func (s *slowSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	<-s.open
	return s.fakeSender.WriteRTP(h, payload)
}

// sequence returns the numbers and first bytes of payload sent.
func (l *fakeSender) sequence() (seqs []uint16, payloads []byte) {
	for _, p := range l.sent {
		seqs, payloads = append(seqs, p.SequenceNumber), append(payloads, p.Payload[len(p.Payload)-1])
	}
	return seqs, payloads
}

// A node that cannot keep up skips whole frames, up to a keyframe that it
// requests, and numbers what it sends without a gap.
func TestLateFramesAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track, skips, asked := vp8Track(), &Skips{}, 0
		up := track.Attach(fakeReceiver(func() bool { asked++; return true }))
		l, d := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
		d.Skips = skips
		d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, Repair: true})
		add(t, track, d)
		time.Sleep(time.Second) // the keyframe that it is added with was requested
		asked = 0
		for i := range 10 { // frames of two packets
			payload := deltaPayload
			if i == 0 || i == 3 || i == 8 {
				payload = keyPayload
			}
			for j := range 2 {
				up.Forward(packet(uint16(2*i+j), uint32(i*3000), append(slices.Clone(payload), byte(i))), time.Now())
				synctest.Wait()
			}
			time.Sleep(33 * time.Millisecond)
		}
		close(l.open)
		synctest.Wait()
		seqs, frames := l.sequence()
		if !slices.Equal(seqs, []uint16{0, 1, 2, 3, 4, 5}) || !slices.Equal(frames, []byte{0, 0, 8, 8, 9, 9}) {
			t.Errorf("sent %v of frames %v, want the frame that was begun, and all from the keyframe on that is in time", seqs, frames)
		}
		if video, audio := skips.Totals(); video != 14 || audio != 0 || d.Sent().Skipped != 14 || asked != 1 {
			t.Errorf("skipped %d and %d packets (%d told), requested %d keyframes; want 14, 0 and 1", video, audio, d.Sent().Skipped, asked)
		}
		nack(d, 1, 2)
		if _, frames := l.sequence(); !slices.Equal(frames[6:], []byte{0, 8}) {
			t.Errorf("repaired frames %v, want 0 and 8", frames[6:])
		}
	})
}

// Audio is skipped only past twice the time, and packet by packet.
func TestLateAudio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := &Track{Codec: Codec{MimeType: "audio/opus", ClockRate: 48000}}
		up := track.Attach(never)
		l, d := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
		d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 111})
		add(t, track, d)
		for i := range 30 {
			up.Forward(packet(uint16(i), uint32(i*960), []byte{byte(i)}), time.Now())
			synctest.Wait()
			time.Sleep(20 * time.Millisecond)
		}
		close(l.open)
		synctest.Wait()
		seqs, sounds := l.sequence()
		var want []uint16
		for i := range len(seqs) {
			want = append(want, uint16(i))
		}
		if !slices.Equal(seqs, want) || len(sounds) != 21 || sounds[1] != 10 || l.sent[1].Timestamp != 10*960 {
			t.Errorf("sent %v of %v, want the first and the last 400 ms", seqs, sounds)
		}
	})
}

// Payload without keyframes that can be told goes on after a while.
func TestSkippingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		l, d := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
		d.Relay = true
		d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96})
		add(t, track, d)
		send := func(i int) {
			up.Forward(packet(uint16(i), uint32(i*3000), append(slices.Clone(deltaPayload), byte(i))), time.Now())
			synctest.Wait()
		}
		send(0)
		send(1)
		time.Sleep(time.Second)
		close(l.open)
		send(2)
		time.Sleep(keyframePatience)
		send(3)
		if _, frames := l.sequence(); !slices.Equal(frames, []byte{0, 3}) {
			t.Errorf("sent frames %v, want 0 and 3", frames)
		}
	})
}

// A gap that leaves a packet's number in doubt is closed.
func TestNoGapIsAmbiguous(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	l, d := down(track)
	add(t, track, d)
	for i := range 8 {
		feed(up, packet(uint16(i*30000), 0, keyPayload))
	}
	if seqs, _ := l.sequence(); !slices.Equal(seqs, []uint16{0, 1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("sent %v", seqs)
	}
}

// A fakeBatch records to which address each packet of a batch goes, and what
// was flushed.
type fakeBatch struct {
	to      []netip.AddrPort
	flushes *[][]netip.AddrPort
}

func (b *fakeBatch) Next(to netip.AddrPort, size int) []byte {
	b.to = append(b.to, to)
	return make([]byte, size)
}
func (b *fakeBatch) Commit(int) {}
func (b *fakeBatch) Flush() (int, error) {
	*b.flushes = append(*b.flushes, b.to)
	return len(b.to), nil
}

// A batchSender waits for gate once, then adds to batches.
type batchSender struct {
	discard
	to      netip.AddrPort
	gate    chan struct{}
	flushes *[][]netip.AddrPort
}

func (s *batchSender) NewBatch() Batch { return &fakeBatch{flushes: s.flushes} }
func (s *batchSender) BatchRTP(b Batch, h *rtp.Header, payload []byte) (int, error) {
	<-s.gate
	b.Next(s.to, h.MarshalSize()+len(payload))
	b.Commit(len(payload))
	return len(payload), nil
}

// A packet goes out at once if nothing else is under way, and what comes
// meanwhile goes out as one batch: all of it to one far end, then all to the
// next.
func TestPacketsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		var flushes [][]netip.AddrPort
		gate := make(chan struct{})
		a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
		for _, to := range []netip.AddrPort{a, b} {
			d := NewDownTrack(track)
			d.Bind(Binding{Sender: &batchSender{to: to, gate: gate, flushes: &flushes}, SSRC: 1, PayloadType: 96})
			add(t, track, d)
		}
		for i := range 4 {
			up.Forward(packet(uint16(i), 0, keyPayload), time.Now())
			synctest.Wait() // the first is under way
		}
		close(gate)
		synctest.Wait()
		if len(flushes) != 2 || !slices.Equal(flushes[0], []netip.AddrPort{a, b}) || !slices.Equal(flushes[1], []netip.AddrPort{a, a, a, b, b, b}) {
			t.Errorf("sent %v", flushes)
		}
	})
}

// A senderFunc calls itself for each packet.
type senderFunc func()

func (f senderFunc) WriteRTP(*rtp.Header, []byte) (int, error) { f(); return 0, nil }
func (senderFunc) WriteRTCP([]rtcp.Packet) error               { return nil }

// On one CPU, a track of a single viewer does not wait until one of a thousand has
// sent all it has.
func TestTracksTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	big, small := vp8Track(), vp8Track()
	bigUp, smallUp := big.Attach(never), small.Attach(never)
	viewer := func(track *Track, f func()) {
		d := NewDownTrack(track)
		d.Bind(Binding{Sender: senderFunc(f), SSRC: 1, PayloadType: 96})
		add(t, track, d)
	}
	const viewers = 1000
	var sent, waited atomic.Int64
	began := false
	for range viewers {
		viewer(big, func() {
			sent.Add(1)
			if !began {
				began = true
				smallUp.Forward(packet(0, 0, keyPayload), time.Now())
			}
		})
	}
	viewer(small, func() { waited.Store(sent.Load()) })
	bigUp.Forward(packet(0, 0, keyPayload), time.Now())
	big.Settle()
	small.Settle()
	if n := waited.Load(); sent.Load() != viewers || n < 1 || n > 2*turn {
		t.Errorf("the small track's packet was sent after %d of %d of the big one, want after %d at most", n, sent.Load(), 2*turn)
	}
}
