package rtc

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
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

// Packets that SRTP refuses are counted, and leave nothing behind: no state of
// their SSRCs, and one event for each reason, without any for replays.
func TestRefusedPacketsLeaveNothing(t *testing.T) {
	f := newFakePublisher(t, sdp.Section{})
	for range 100 {
		for _, why := range []forward.Reason{forward.Forged, forward.Replayed, forward.Early, forward.Malformed} {
			f.unopened(why)
		}
	}
	f.expect([]int{0}, map[string]int64{"forged": 100, "replayed": 100, "early": 100, "malformed": 100})
	if f.seen != 0 || f.saw(event.MediaDropped) != 3 {
		t.Errorf("%d SSRCs seen, and %v", f.seen, f.events)
	}
}
