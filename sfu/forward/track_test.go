package forward

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// A fakeSender records the packets sent.
type fakeSender struct {
	sent []rtp.Packet
	rtcp []rtcp.Packet
}

func (l *fakeSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	l.sent = append(l.sent, rtp.Packet{Header: h.Clone(), Payload: slices.Clone(payload)})
	return len(payload), nil
}

func (l *fakeSender) WriteRTCP(p []rtcp.Packet) error {
	l.rtcp = append(l.rtcp, p...)
	return nil
}

func vp8Track() *Track {
	return &Track{ID: "video0", Codec: Codec{MimeType: "video/VP8", ClockRate: 90000}}
}

const extCaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"

// down makes and binds a DownTrack for t.
func down(t *Track) (*fakeSender, *DownTrack) {
	l, d := &fakeSender{}, NewDownTrack(t)
	d.Bind(Binding{Sender: l, SSRC: 4711, PayloadType: 120, Extensions: map[string]uint8{extCaptureTime: 9}})
	return l, d
}

// add adds d to track until the test is over.
func add(t testing.TB, track *Track, d *DownTrack) {
	track.Add(d)
	t.Cleanup(func() { track.Remove(d) })
}

// VP8 payloads: the descriptor with the S bit, then a frame tag whose lowest
// bit is 0 for a keyframe (RFC 7741, sections 4.2 and 4.3).
var (
	keyPayload   = []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}
	deltaPayload = []byte{0x10, 0x31, 0x02, 0x00}
)

func packet(seq uint16, ts uint32, payload []byte) *rtp.Packet {
	return &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: ts, SSRC: 1, Marker: true}, Payload: payload}
}

// A fakeReceiver requests keyframes by a function.
type fakeReceiver func() bool

func (r fakeReceiver) RequestKeyframe() bool { return r() }

const never = nothing(true)

// nothing is a Receiver that drops requests.
type nothing bool

func (n nothing) RequestKeyframe() bool { return bool(n) }

// feed forwards p from u, received now, and waits until it is sent.
func feed(u *UpTrack, p *rtp.Packet) {
	u.Forward(p, time.Now())
	u.track.Settle()
}

func TestForwardingBeginsWithAKeyframe(t *testing.T) {
	track := vp8Track()
	src := track.Attach(never)
	l, o := down(track)
	add(t, track, o)
	feed(src, packet(10, 1000, deltaPayload))
	feed(src, packet(11, 4000, keyPayload))
	feed(src, packet(9, 500, deltaPayload)) // late, from before the keyframe
	feed(src, packet(12, 7000, deltaPayload))
	if len(l.sent) != 2 || l.sent[0].Timestamp != 4000 || l.sent[1].Timestamp != 7000 {
		t.Fatalf("sent %v", l.sent)
	}
	for _, p := range l.sent {
		if p.SSRC != 4711 || p.PayloadType != 120 || !p.Marker {
			t.Errorf("header %+v is not the DownTrack's own", p.Header)
		}
	}
}

// A payload without detectable keyframes, since it is encrypted end to end,
// passes after a while.
func TestOpaquePayloadPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		src := track.Attach(never)
		l, o := down(track)
		add(t, track, o)
		feed(src, packet(1, 0, deltaPayload))
		time.Sleep(keyframePatience)
		feed(src, packet(2, 3000, deltaPayload))
		if len(l.sent) != 1 {
			t.Errorf("sent %d packets, want the one after %v", len(l.sent), keyframePatience)
		}
	})
}

// A relay's DownTracks get every packet: the wait for a keyframe is downstream.
func TestRelayIsNotHeldBack(t *testing.T) {
	track := vp8Track()
	asked := 0
	src := track.Attach(fakeReceiver(func() bool { asked++; return true }))
	l, o := down(track)
	o.Relay = true
	add(t, track, o)
	feed(src, packet(1, 0, deltaPayload))
	if len(l.sent) != 1 || asked != 0 {
		t.Errorf("sent %d packets, asked for %d keyframes; want 1 and none", len(l.sent), asked)
	}
}

// Numbering continues without a gap over a change of source, and timestamps
// advance by the time passed.
func TestNumberingSurvivesASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		first := track.Attach(never)
		l, o := down(track)
		add(t, track, o)
		feed(first, packet(65535, 5000, keyPayload))
		feed(first, packet(0, 8000, deltaPayload))
		time.Sleep(time.Second)
		second := track.Attach(never)
		feed(first, packet(1, 11000, deltaPayload)) // replaced: not forwarded
		feed(second, packet(300, 77, deltaPayload)) // not decodable yet
		feed(second, packet(301, 3077, keyPayload))
		feed(second, packet(302, 6077, deltaPayload))

		var seqs []uint16
		var times []uint32
		for _, p := range l.sent {
			seqs, times = append(seqs, p.SequenceNumber), append(times, p.Timestamp)
		}
		want := []uint16{65535, 0, 1, 2}
		for i := range want {
			if len(seqs) != len(want) || seqs[i] != want[i] {
				t.Fatalf("sequence numbers %v, want %v", seqs, want)
			}
		}
		if gap := times[2] - times[1]; gap != 90000 {
			t.Errorf("a second's pause is %d units of time, want 90000", gap)
		}
		if gap := times[3] - times[2]; gap != 3000 {
			t.Errorf("frames are %d units apart, want 3000", gap)
		}
	})
}

// Every DownTrack repeats the publisher's own pair of NTP and RTP time, with
// its own offset.
func TestSenderReportsAreCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		src := track.Attach(never)
		l, o := down(track)
		const ntp = uint64(1000) << 32
		src.SenderReport(&rtcp.SenderReport{NTPTime: ntp, RTPTime: 90000}, time.Now()) // before the DownTrack exists: kept for it
		time.Sleep(500 * time.Millisecond)
		add(t, track, o)
		feed(src, packet(1, 135000, keyPayload))
		src.SenderReport(&rtcp.SenderReport{NTPTime: ntp + uint64(1)<<32, RTPTime: 180000}, time.Now())
		if len(l.rtcp) != 2 {
			t.Fatalf("%d reports, want one at the first packet and one carried", len(l.rtcp))
		}
		early, ok := l.rtcp[0].(*rtcp.SenderReport)
		if !ok || early.SSRC != 4711 || early.NTPTime != ntp+uint64(1)<<31 || early.RTPTime != 135000 {
			t.Errorf("first report %+v, want the old one carried half a second forward", early)
		}
		if sr := l.rtcp[1].(*rtcp.SenderReport); sr.NTPTime != ntp+uint64(1)<<32 || sr.RTPTime != 180000 || sr.PacketCount != 1 {
			t.Errorf("second report %+v", sr)
		}
	})
}

func TestHeaderExtensionsAreCarried(t *testing.T) {
	track := vp8Track()
	src := track.Attach(never)
	src.Extensions(map[uint8]string{2: extCaptureTime, 5: "urn:not:carried"})
	l, o := down(track)
	add(t, track, o)
	p := packet(1, 0, keyPayload)
	if err := p.SetExtension(2, []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := p.SetExtension(5, []byte("x")); err != nil {
		t.Fatal(err)
	}
	feed(src, p)
	sent := l.sent[0]
	if string(sent.GetExtension(9)) != "12345678" || len(sent.GetExtensionIDs()) != 1 {
		t.Errorf("extensions %v, want the capture time alone, as 9", sent.GetExtensionIDs())
	}
}

// For any number of requests the source gets one in each interval.
func TestKeyframeRequestsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var asked []time.Duration
		track := vp8Track()
		src := track.Attach(fakeReceiver(func() bool { asked = append(asked, time.Since(begin)); return true }))
		time.Sleep(time.Second)
		synctest.Wait()
		for range 100 {
			track.RequestKeyframe()
		}
		time.Sleep(2 * keyframeInterval)
		synctest.Wait()
		if len(asked) != 2 || asked[0] != time.Second || asked[1] != time.Second+keyframeInterval {
			t.Fatalf("asked at %v, want at 1 s and once more %v later", asked, keyframeInterval)
		}

		// An unrequested keyframe answers the delayed request.
		_, o := down(track)
		add(t, track, o)
		track.RequestKeyframe()
		feed(src, packet(1, 0, keyPayload))
		time.Sleep(2 * keyframeInterval)
		synctest.Wait()
		if len(asked) != 3 {
			t.Errorf("asked %d times, want 3: the keyframe had come", len(asked))
		}
		track.RequestKeyframe()
		track.RequestKeyframe()
		src.Close()
		time.Sleep(2 * keyframeInterval)
		synctest.Wait()
		if len(asked) != 4 {
			t.Errorf("asked %d times, want 4: the source was closed", len(asked))
		}
	})
}

// A request that cannot be sent yet is sent as soon as possible.
func TestKeyframeRequestWaitsForTheConnection(t *testing.T) {
	up, asked := false, 0
	src := vp8Track().Attach(fakeReceiver(func() bool {
		if up {
			asked++
		}
		return up
	}))
	src.requestKeyframe()
	up = true
	src.Reachable()
	src.Reachable()
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

func TestRemovedDownTrackGetsNothing(t *testing.T) {
	track := vp8Track()
	src := track.Attach(never)
	l, o := down(track)
	add(t, track, o)
	add(t, track, o) // a second call has no effect
	feed(src, packet(1, 0, keyPayload))
	track.Remove(o)
	feed(src, packet(2, 3000, deltaPayload))
	if len(l.sent) != 1 {
		t.Errorf("sent %d packets, want 1", len(l.sent))
	}
}

// BenchmarkForward measures the cost of one packet to 100 DownTracks, without
// SRTP and the socket.
func BenchmarkForward(b *testing.B) {
	track := vp8Track()
	src := track.Attach(never)
	for range 100 {
		_, d := down(track)
		d.Bind(Binding{Sender: discard{}, SSRC: 4711, PayloadType: 120})
		add(b, track, d)
	}
	p := packet(0, 0, keyPayload)
	b.ReportAllocs()
	for b.Loop() {
		p.SequenceNumber++
		feed(src, p)
	}
}

type discard struct{}

func (discard) WriteRTP(*rtp.Header, []byte) (int, error) { return 0, nil }
func (discard) WriteRTCP([]rtcp.Packet) error             { return nil }

// A negative loss in a report counts as 0, not as sixteen million.
func TestReportedLossIsSigned(t *testing.T) {
	for sent, want := range map[uint32]int64{0: 0, 7: 7, 1<<23 - 1: 1<<23 - 1, 1<<24 - 1: 0, 1<<24 - 2: 0, 1 << 23: 0} {
		if got := lostOf(rtcp.ReceptionReport{TotalLost: sent}); got != want {
			t.Errorf("%#06x is %d, want %d", sent, got, want)
		}
	}
}

// VP9 in flexible mode whose descriptor never says that a frame depends on others
// has keyframes where the frames say so.
func TestKeyframesByTheFrame(t *testing.T) {
	track := &Track{ID: "video0", Codec: Codec{MimeType: "video/VP9", ClockRate: 90000}}
	up := track.Attach(never)
	for i, c := range []struct {
		frame byte
		key   bool
	}{{0x82, true}, {0x86, false}, {0x86, false}} {
		if out := up.Forward(packet(uint16(i), uint32(i)*3000, []byte{0x98, 0x80, 0x01, c.frame}), time.Now()); out.Keyframe != c.key {
			t.Errorf("packet %d: a keyframe: %v", i, out.Keyframe)
		}
	}
}
