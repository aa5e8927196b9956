package sfu

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// A fakeLeg is what a negotiated leg gives an out, and notes what is sent.
type fakeLeg struct {
	codec webrtc.RTPCodecParameters
	exts  []webrtc.RTPHeaderExtensionParameter
	sent  []rtp.Packet
	rtcp  []rtcp.Packet
}

func (l *fakeLeg) CodecParameters() []webrtc.RTPCodecParameters {
	return []webrtc.RTPCodecParameters{l.codec}
}
func (l *fakeLeg) HeaderExtensions() []webrtc.RTPHeaderExtensionParameter { return l.exts }
func (l *fakeLeg) SSRC() webrtc.SSRC                                      { return 4711 }
func (l *fakeLeg) SSRCRetransmission() webrtc.SSRC                        { return 0 }
func (l *fakeLeg) SSRCForwardErrorCorrection() webrtc.SSRC                { return 0 }
func (l *fakeLeg) WriteStream() webrtc.TrackLocalWriter                   { return l }
func (l *fakeLeg) ID() string                                             { return "leg" }
func (l *fakeLeg) RTCPReader() interceptor.RTCPReader                     { return nil }
func (l *fakeLeg) Write(b []byte) (int, error)                            { return len(b), nil }
func (l *fakeLeg) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	l.sent = append(l.sent, rtp.Packet{Header: h.Clone(), Payload: payload})
	return len(payload), nil
}
func (l *fakeLeg) writeRTCP(p []rtcp.Packet) error {
	l.rtcp = append(l.rtcp, p...)
	return nil
}

func vp8Track() *Track {
	return &Track{ID: "video0", Codec: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
}

// leg binds an out for t.
func legFor(tb testing.TB, t *Track) (*fakeLeg, *out) {
	tb.Helper()
	l := &fakeLeg{codec: webrtc.RTPCodecParameters{RTPCodecCapability: t.Codec, PayloadType: 120}}
	l.exts = []webrtc.RTPHeaderExtensionParameter{{URI: extCaptureTime, ID: 9}, {URI: "urn:not:carried", ID: 3}}
	o := newOut(t, "weir", l.writeRTCP)
	if _, err := o.Bind(l); err != nil {
		tb.Fatal(err)
	}
	return l, o
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

func never() bool { return true }

func TestForwardingBeginsWithAKeyframe(t *testing.T) {
	track := vp8Track()
	src := newSource(track.Codec, never)
	track.attach(src)
	l, o := legFor(t, track)
	track.add(o)
	track.feed(src, packet(10, 1000, deltaPayload))
	track.feed(src, packet(11, 4000, keyPayload))
	track.feed(src, packet(9, 500, deltaPayload)) // late, from before the keyframe
	track.feed(src, packet(12, 7000, deltaPayload))
	if len(l.sent) != 2 || l.sent[0].Timestamp != 4000 || l.sent[1].Timestamp != 7000 {
		t.Fatalf("sent %v", l.sent)
	}
	for _, p := range l.sent {
		if p.SSRC != 4711 || p.PayloadType != 120 || !p.Marker {
			t.Errorf("header %+v is not the leg's own", p.Header)
		}
	}
}

// A payload in which no keyframe can be told, since it is encrypted end to
// end, passes after a while.
func TestOpaquePayloadPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		src := newSource(track.Codec, never)
		track.attach(src)
		l, o := legFor(t, track)
		track.add(o)
		track.feed(src, packet(1, 0, deltaPayload))
		time.Sleep(keyframePatience)
		track.feed(src, packet(2, 3000, deltaPayload))
		if len(l.sent) != 1 {
			t.Errorf("sent %d packets, want the one after %v", len(l.sent), keyframePatience)
		}
	})
}

// A relay's legs get every packet: who waits for a keyframe is downstream.
func TestRelayLegIsNotHeldBack(t *testing.T) {
	track := vp8Track()
	asked := 0
	src := newSource(track.Codec, func() bool { asked++; return true })
	track.attach(src)
	l, o := legFor(t, track)
	o.relay = true
	track.add(o)
	track.feed(src, packet(1, 0, deltaPayload))
	if len(l.sent) != 1 || asked != 0 {
		t.Errorf("sent %d packets, asked for %d keyframes; want 1 and none", len(l.sent), asked)
	}
}

// Numbering goes on without a gap over a change of source, and time goes on as
// it passed.
func TestNumberingSurvivesASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		first, second := newSource(track.Codec, never), newSource(track.Codec, never)
		track.attach(first)
		l, o := legFor(t, track)
		track.add(o)
		track.feed(first, packet(65535, 5000, keyPayload))
		track.feed(first, packet(0, 8000, deltaPayload))
		time.Sleep(time.Second)
		track.attach(second)
		track.feed(first, packet(1, 11000, deltaPayload)) // replaced: not to be heard
		track.feed(second, packet(300, 77, deltaPayload)) // not decodable yet
		track.feed(second, packet(301, 3077, keyPayload))
		track.feed(second, packet(302, 6077, deltaPayload))

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

// Every leg repeats the publisher's own pair of NTP and RTP time, in the leg's
// numbering.
func TestSenderReportsAreCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		src := newSource(track.Codec, never)
		track.attach(src)
		l, o := legFor(t, track)
		const ntp = uint64(1000) << 32
		track.feedReport(src, ntp, 90000) // before the leg exists: kept for it
		time.Sleep(500 * time.Millisecond)
		track.add(o)
		track.feed(src, packet(1, 135000, keyPayload))
		track.feedReport(src, ntp+uint64(1)<<32, 180000)
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
	src := newSource(track.Codec, never)
	src.exts = map[uint8]string{2: extCaptureTime, 5: "urn:not:carried"}
	track.attach(src)
	l, o := legFor(t, track)
	track.add(o)
	p := packet(1, 0, keyPayload)
	if err := p.SetExtension(2, []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := p.SetExtension(5, []byte("x")); err != nil {
		t.Fatal(err)
	}
	track.feed(src, p)
	sent := l.sent[0]
	if string(sent.GetExtension(9)) != "12345678" || len(sent.GetExtensionIDs()) != 1 {
		t.Errorf("extensions %v, want the capture time alone, as 9", sent.GetExtensionIDs())
	}
}

// However many ask, the source hears of one request in each interval.
func TestKeyframeRequestsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var asked []time.Duration
		track := vp8Track()
		src := newSource(track.Codec, func() bool { asked = append(asked, time.Since(begin)); return true })
		track.attach(src)
		time.Sleep(time.Second)
		synctest.Wait()
		for range 100 {
			track.requestKeyframe()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(asked) != 2 || asked[0] != time.Second || asked[1] != time.Second+keyframeInterval {
			t.Fatalf("asked at %v, want at 1 s and once more %v later", asked, keyframeInterval)
		}

		// A keyframe that comes by itself answers the request that was put off.
		_, o := legFor(t, track)
		track.add(o)
		track.requestKeyframe()
		track.feed(src, packet(1, 0, keyPayload))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(asked) != 3 {
			t.Errorf("asked %d times, want 3: the keyframe had come", len(asked))
		}
		track.requestKeyframe()
		track.requestKeyframe()
		src.close()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(asked) != 4 {
			t.Errorf("asked %d times, want 4: the source was closed", len(asked))
		}
	})
}

// A request that cannot be sent yet is sent as soon as it can be.
func TestKeyframeRequestWaitsForTheConnection(t *testing.T) {
	up, asked := false, 0
	src := newSource(vp8Track().Codec, func() bool {
		if up {
			asked++
		}
		return up
	})
	src.requestKeyframe()
	up = true
	src.reachable()
	src.reachable()
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

func TestRemovedOutGetsNothing(t *testing.T) {
	track := vp8Track()
	src := newSource(track.Codec, never)
	track.attach(src)
	l, o := legFor(t, track)
	track.add(o)
	track.add(o) // twice is once
	track.feed(src, packet(1, 0, keyPayload))
	track.remove(o)
	track.feed(src, packet(2, 3000, deltaPayload))
	if len(l.sent) != 1 {
		t.Errorf("sent %d packets, want 1", len(l.sent))
	}
}

// BenchmarkFeed states the cost of one packet to 100 legs, without SRTP and
// the socket.
func BenchmarkFeed(b *testing.B) {
	track := vp8Track()
	src := newSource(track.Codec, never)
	track.attach(src)
	for range 100 {
		l, o := legFor(b, track)
		o.bound.Load().writer = discard{l}
		track.add(o)
	}
	p := packet(0, 0, keyPayload)
	b.ReportAllocs()
	for b.Loop() {
		p.SequenceNumber++
		track.feed(src, p)
	}
}

type discard struct{ *fakeLeg }

func (discard) WriteRTP(*rtp.Header, []byte) (int, error) { return 0, nil }

// A report of a negative loss is of none, and not of sixteen million.
func TestReportedLossIsSigned(t *testing.T) {
	for sent, want := range map[uint32]int64{0: 0, 7: 7, 1<<23 - 1: 1<<23 - 1, 1<<24 - 1: 0, 1<<24 - 2: 0, 1 << 23: 0} {
		if got := lostOf(rtcp.ReceptionReport{TotalLost: sent}); got != want {
			t.Errorf("%#06x is %d, want %d", sent, got, want)
		}
	}
}
