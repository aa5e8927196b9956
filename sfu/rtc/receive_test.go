package rtc

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/sdp"
)

// A pionPublisher is pion as the publisher of one VP8 track.
type pionPublisher struct {
	*webrtc.PeerConnection
	t      *testing.T
	server *Client
	track  *webrtc.TrackLocalStaticRTP
	to     *forward.Track
	drops  forward.Drops
	sink   *fakeSender // what a viewer is sent
}

// publish connects a publisher, whose settings change may edit, with an offer
// that edit changes.
func (e *Engine) publish(t *testing.T, change func(*webrtc.SettingEngine), edit func(string) string) *pionPublisher {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	change(&s)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(media)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	p := &pionPublisher{PeerConnection: pc, t: t, sink: &fakeSender{}}
	if p.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "demo"); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.AddTrack(p.track); err != nil {
		t.Fatal(err)
	}
	offer, err := sdp.ParseOffer([]byte(edit(offerOf(t, pc, nil))))
	if err != nil {
		t.Fatal(err)
	}
	server, tracks, answer, err := e.Publish(t.Context(), offer, &p.drops, func(event.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	p.server, p.to = server, tracks[0]
	t.Cleanup(func() {
		server.Stop()
		server.Close()
	})
	d := forward.NewDownTrack(p.to)
	d.Bind(forward.Binding{Sender: p.sink, SSRC: 4711, PayloadType: 120})
	p.to.Add(d)
	t.Cleanup(func() { p.to.Remove(d) })
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	<-server.Connected()
	return p
}

// pass sends one packet, and waits until the track has it. It repeats that until
// the connection is up.
func (p *pionPublisher) pass(seq uint16, payload []byte) {
	p.t.Helper()
	before, _ := p.to.Received()
	for tick := time.Tick(5 * time.Millisecond); ; {
		if err := p.track.WriteRTP(packet(seq, uint32(seq)*3000, payload)); err != nil {
			p.t.Fatal(err)
		}
		for range 20 {
			if n, _ := p.to.Received(); n > before {
				return
			}
			select {
			case <-tick:
			case <-p.t.Context().Done():
				p.t.Fatal("nothing came")
			}
		}
	}
}

// Of a publisher all packets are forwarded, alike in each profile of SRTP and
// over roll-overs, whether they are decrypted here or by pion, and over TCP too.
func TestPublishersOfEachProfile(t *testing.T) {
	profiles := func(p ...dtls.SRTPProtectionProfile) func(*webrtc.SettingEngine) {
		return func(s *webrtc.SettingEngine) { s.SetSRTPProtectionProfiles(p...) }
	}
	same := func(s string) string { return s }
	for _, c := range []struct {
		name, addr string
		change     func(*webrtc.SettingEngine)
		edit       func(string) string
		here       bool
	}{
		{"AES-128-GCM", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_128_GCM), same, true},
		{"AES-256-GCM", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_256_GCM), same, true},
		{"AES-CM with HMAC, all addresses", "0.0.0.0:0", profiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80), same, true},
		{"all, IPv6", "[::1]:0", profiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AEAD_AES_128_GCM), same, true},
		{"the client is the server of DTLS", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_128_GCM), func(s string) string {
			return strings.ReplaceAll(s, "a=setup:actpass", "a=setup:passive")
		}, false},
		{"over TCP", "127.0.0.1:0", func(s *webrtc.SettingEngine) {
			s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
			s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM)
		}, same, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTestEngine(t, c.addr).publish(t, c.change, c.edit)
			const first, packets = 65400, 300
			for i := range packets {
				p.pass(uint16(first+i), append(bytes.Clone(keyPayload), byte(i)))
			}
			p.to.Settle()
			if here := p.server.Transport.in != nil; here != c.here {
				t.Errorf("decrypted here: %v, want %v", here, c.here)
			}
			if len(p.sink.sent) != packets {
				t.Fatalf("%d packets forwarded, want %d; dropped: %v", len(p.sink.sent), packets, p.drops.Counts(false))
			}
			for i, got := range p.sink.sent {
				if want := append(bytes.Clone(keyPayload), byte(i)); !bytes.Equal(got.Payload, want) {
					t.Fatalf("packet %d is %x, want %x", i, got.Payload, want)
				}
			}
		})
	}
}

// A keyed pair is an inbound, and the far end's SRTP.
type keyedPair struct {
	inbound
	far     *srtp.Context
	keys    *srtpKeys
	got     []string // payloads accepted
	refused map[string]int
}

func newKeyedPair(tb testing.TB, profile dtls.SRTPProtectionProfile) *keyedPair {
	watch := &keyWatch{
		random: bytes.Repeat([]byte{1}, 32), client: bytes.Repeat([]byte{2}, 32), master: bytes.Repeat([]byte{3}, 48), profile: profile,
	}
	watch.hash = hashOf(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	p := &keyedPair{keys: watch.take(), refused: map[string]int{}}
	var err error
	if p.far, err = srtp.CreateContext(p.keys.client.key, p.keys.client.salt, srtp.ProtectionProfile(profile)); err != nil {
		tb.Fatal(err)
	}
	p.accept = func(b []byte, _ time.Time) { p.got = append(p.got, string(b[12:])) }
	p.refuse = func(why forward.Reason) { p.refused[why.String()]++ }
	return p
}

// sealed is a packet as the far end sends it, whose payload is its number.
func (p *keyedPair) sealed(tb testing.TB, ssrc uint32, seq uint16) []byte {
	packet := packet(seq, 0, fmt.Append(nil, seq))
	packet.SSRC = ssrc
	plain, err := packet.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := p.far.EncryptRTP(nil, plain, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestInbound(t *testing.T) {
	for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		for _, c := range []struct {
			name    string
			do      func(p *keyedPair, sealed func(ssrc uint32, seq uint16) []byte, take func([]byte))
			got     []string
			refused map[string]int
		}{
			{"packets in order, late, and over a roll-over", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.secured(p.keys)
				a, b, c, d := sealed(1, 65534), sealed(1, 65535), sealed(1, 0), sealed(1, 1)
				take(a)
				take(c)
				take(b)
				take(d)
			}, []string{"65534", "0", "65535", "1"}, nil},
			{"what comes before the handshake is over waits", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				take(sealed(1, 1))
				take(sealed(1, 2))
				p.secured(p.keys)
				take(sealed(1, 3))
			}, []string{"1", "2", "3"}, nil},
			{"but not too much of it", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				for i := range uint16(earlyPackets + 10) {
					take(sealed(1, i))
				}
				p.got, p.early = nil, p.early[:1]
				p.secured(p.keys)
			}, []string{"0"}, map[string]int{"early": 10}},
			{"a replay, also of what came early", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				a, b := sealed(1, 1), sealed(1, 2)
				take(a)
				p.secured(p.keys)
				take(a)
				take(b)
				take(b)
			}, []string{"1", "2"}, map[string]int{"replayed": 2}},
			{"late by as much as repair takes, and later", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.secured(p.keys)
				take(sealed(1, 10))
				a, b := sealed(1, 11), sealed(1, 12)
				take(sealed(1, 11+replayWindow))
				take(b)
				take(a)
			}, []string{"10", fmt.Sprint(11 + replayWindow), "12"}, map[string]int{"replayed": 1}},
			{"forged in its header, its payload, its tag, and its SSRC", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.secured(p.keys)
				for _, at := range []int{3, 8, 12, 20} {
					b := sealed(1, uint16(at))
					b[at] ^= 1
					take(b)
				}
				take(sealed(1, 1))
			}, []string{"1"}, map[string]int{"forged": 4}},
			{"too short", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.secured(p.keys)
				b := sealed(1, 1)
				take(b[:1])
				take(b[:11])
				take(b[:14])
			}, nil, map[string]int{"malformed": 3}},
			{"after the end", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				take(sealed(1, 1))
				p.close()
				take(sealed(1, 2))
				p.secured(p.keys)
				take(sealed(1, 3))
			}, nil, nil},
		} {
			t.Run(fmt.Sprint(profile, ", ", c.name), func(t *testing.T) {
				p := newKeyedPair(t, profile)
				c.do(p, func(ssrc uint32, seq uint16) []byte { return p.sealed(t, ssrc, seq) }, func(b []byte) {
					if !p.take(bytes.Clone(b), time.Now()) {
						t.Error("left to pion")
					}
				})
				if fmt.Sprint(p.got) != fmt.Sprint(c.got) {
					t.Errorf("accepted %v, want %v", p.got, c.got)
				}
				if fmt.Sprint(p.refused) != fmt.Sprint(c.refused) && len(p.refused)+len(c.refused) > 0 {
					t.Errorf("refused %v, want %v", p.refused, c.refused)
				}
			})
		}
	}
}

// RTCP is left to pion.
func TestInboundLeavesRTCP(t *testing.T) {
	p := newKeyedPair(t, dtls.SRTP_AEAD_AES_128_GCM)
	for _, kind := range []byte{192, 200, 205, 223} {
		if p.take([]byte{0x80, kind, 0, 1, 0, 0, 0, 0}, time.Now()) {
			t.Errorf("packets of type %d are taken", kind)
		}
	}
}

// To decrypt a packet allocates nothing.
func TestDecryptingDoesNotAllocate(t *testing.T) {
	p := newKeyedPair(t, dtls.SRTP_AEAD_AES_128_GCM)
	p.accept = func([]byte, time.Time) {}
	p.secured(p.keys)
	var all [][]byte
	for i := range uint16(1100) {
		all = append(all, p.sealed(t, 1, i))
	}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		p.take(all[0], now)
		all = all[1:]
	}); n != 0 || len(p.refused) > 0 {
		t.Errorf("%v allocations a packet, refused %v", n, p.refused)
	}
}

// Forged packets of many SSRCs leave nothing behind: no state of theirs, and one
// event.
func TestForgedPacketsLeaveNothing(t *testing.T) {
	f := newFakePublisher(t, sdp.Section{})
	p := newKeyedPair(t, dtls.SRTP_AEAD_AES_128_GCM)
	p.accept, p.refuse = f.accept, f.unopened
	p.secured(p.keys)
	p.take(p.sealed(t, 1, 1), time.Now())
	seen := f.seen
	for i := range uint32(5000) {
		b := p.sealed(t, 1, uint16(i+2))
		b[8], b[9], b[10] = 1, byte(i>>8), byte(i)
		p.take(b, time.Now())
	}
	if f.seen != seen || f.ended != "" {
		t.Errorf("%d SSRCs seen, ended: %q", f.seen, f.ended)
	}
	if n := f.saw(event.MediaDropped); n > 2 {
		t.Errorf("%d events", n)
	}
	if got := f.drops.Counts(false)["forged"]; got != 5000 {
		t.Errorf("%d counted as forged", got)
	}
}

// Nothing that comes from a network passes that the far end has not sent, and
// nothing of it harms what the far end sends next.
func FuzzInbound(f *testing.F) {
	p := newKeyedPair(f, dtls.SRTP_AEAD_AES_128_GCM)
	good := p.sealed(f, 1, 7)
	f.Add([]byte{}, byte(0))
	f.Add(good, byte(0))
	f.Add(good, byte(1))
	f.Add(good[:12], byte(0))
	f.Add(append([]byte{0x9f, 96}, good[2:]...), byte(0))                                                   // with CSRCs
	f.Add(append([]byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff}, good...), byte(0)) // endless extensions
	f.Add(append([]byte{0xb0, 96}, good[2:]...), byte(0))                                                   // padded
	f.Add(append([]byte{0x80, 200}, good[2:]...), byte(0))                                                  // RTCP
	f.Fuzz(func(t *testing.T, b []byte, profile byte) {
		p := newKeyedPair(t, []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80}[profile%2])
		early := bytes.Clone(b)
		p.take(early, time.Now())
		p.secured(p.keys)
		p.take(b, time.Now())
		for _, got := range p.got {
			if got != "7" { // the seed
				t.Fatalf("accepted %x", got)
			}
		}
		before := len(p.got)
		p.take(p.sealed(t, 2, 9), time.Now())
		if len(p.got) != before+1 {
			t.Fatalf("what the far end sent is refused: %v", p.refused)
		}
	})
}

// BenchmarkIntake takes a packet of 1,160 bytes from the datagram to the ring.
func BenchmarkIntake(b *testing.B) {
	for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		b.Run(srtp.ProtectionProfile(profile).String(), func(b *testing.B) {
			f := newFakePublisher(b, sdp.Section{})
			p := newKeyedPair(b, profile)
			p.accept, p.refuse = f.accept, f.unopened
			p.secured(p.keys)
			now, payload := time.Now(), append(bytes.Clone(keyPayload), make([]byte, 1150)...)
			payload[1] |= 1 // no keyframe
			sealed := make([][]byte, 1024)
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for i := 0; b.Loop(); i++ {
				if i%len(sealed) == 0 {
					b.StopTimer()
					for j := range sealed {
						plain, err := packet(uint16(i+j), uint32(i+j), payload).Marshal()
						if err != nil {
							b.Fatal(err)
						}
						if sealed[j], err = p.far.EncryptRTP(nil, plain, &rtp.Header{}); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
				p.take(sealed[i%len(sealed)], now)
			}
			if n := f.drops.Sum(); n > 0 {
				b.Fatalf("dropped: %v", f.drops.Counts(false))
			}
		})
	}
}
