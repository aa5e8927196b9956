package rtc

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/scope"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	wsrtp "weir/sfu/srtp"
	"weir/sfu/udp"
)

func newTestEngine(t *testing.T, addr string) *Engine {
	t.Helper()
	socket, err := udp.Listen(addr)
	if err != nil {
		t.Skipf("no %s: %v", addr, err)
	}
	e, err := NewEngine(Config{Socket: socket, Gate: scope.NewGate(slog.New(slog.DiscardHandler), true)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		_ = socket.Close()
	})
	return e
}

// A pionViewer is pion as the viewer of one VP8 track.
type pionViewer struct {
	*webrtc.PeerConnection
	t        *testing.T
	server   *Client
	track    *forward.Track
	up       *forward.UpTrack
	next     uint32
	payload  []byte // of the last packet
	received chan rtp.Packet
}

// view connects a viewer, whose settings change may edit, with an offer that
// edit changes, and with interceptors.
func (e *Engine) view(t *testing.T, change func(*webrtc.SettingEngine), edit func(string) string, interceptors ...func(*webrtc.MediaEngine, *interceptor.Registry) error) *pionViewer {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	change(&s)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	registry := &interceptor.Registry{}
	for _, add := range interceptors {
		if err := add(media, registry); err != nil {
			t.Fatal(err)
		}
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	v := &pionViewer{PeerConnection: pc, t: t, next: 65400, received: make(chan rtp.Packet, 1000)}
	pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := remote.ReadRTP()
			if err != nil {
				return
			}
			v.received <- *p
		}
	})
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	v.track = &forward.Track{ID: "video0", Codec: forward.Codec{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
	v.up = v.track.Attach(asking(func() bool { return true }))
	offer, err := sdp.ParseOffer([]byte(edit(v.offer(nil))))
	if err != nil {
		t.Fatal(err)
	}
	st := forward.NewStream("demo", []*forward.Track{v.track}, time.Now())
	var answer string
	if v.server, answer, err = e.View(t.Context(), st, offer, func(forward.Kind, time.Time) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.server.Stop()
		v.server.Close()
	})
	v.accept(answer)
	<-v.server.Connected()
	return v
}

// offer makes and sets an offer with all candidates.
func (v *pionViewer) offer(options *webrtc.OfferOptions) string {
	v.t.Helper()
	return offerOf(v.t, v.PeerConnection, options)
}

func offerOf(t *testing.T, pc *webrtc.PeerConnection, options *webrtc.OfferOptions) string {
	t.Helper()
	offer, err := pc.CreateOffer(options)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return pc.LocalDescription().SDP
}

func (v *pionViewer) accept(answer string) {
	v.t.Helper()
	if err := v.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		v.t.Fatal(err)
	}
}

// send forwards one packet. It repeats that until the connection is up.
func (v *pionViewer) send() {
	for before := v.server.Traffic().Packets; v.server.Traffic().Packets == before; {
		v.payload = append(bytes.Clone(keyPayload), byte(v.next))
		v.up.Forward(packet(uint16(v.next), v.next*3000, v.payload), time.Now())
		v.next++
		v.track.Settle()
	}
}

// pass forwards one packet, and returns it as it was received.
func (v *pionViewer) pass() rtp.Packet {
	v.t.Helper()
	v.send()
	select {
	case p := <-v.received:
		return p
	case <-v.t.Context().Done():
		v.t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A viewer gets all packets, alike in each profile of SRTP, over roll-overs and
// with repair, whether they are sealed here or by pion, and over TCP too.
func TestViewersOfEachProfile(t *testing.T) {
	profiles := func(p ...dtls.SRTPProtectionProfile) func(*webrtc.SettingEngine) {
		return func(s *webrtc.SettingEngine) { s.SetSRTPProtectionProfiles(p...) }
	}
	same := func(s string) string { return s }
	for _, c := range []struct {
		name, addr string
		change     func(*webrtc.SettingEngine)
		edit       func(string) string
		sealed     bool
	}{
		{"AES-128-GCM", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_128_GCM), same, true},
		{"AES-256-GCM", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_256_GCM), same, true},
		{"both, IPv6", "[::1]:0", profiles(dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AEAD_AES_128_GCM), same, true},
		{"all addresses", "0.0.0.0:0", profiles(dtls.SRTP_AEAD_AES_128_GCM), same, true},
		{"AES-CM with HMAC", "127.0.0.1:0", profiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80), same, false},
		{"the client is the server of DTLS", "127.0.0.1:0", profiles(dtls.SRTP_AEAD_AES_128_GCM), func(s string) string {
			return strings.ReplaceAll(s, "a=setup:actpass", "a=setup:passive")
		}, false},
		{"over TCP", "127.0.0.1:0", func(s *webrtc.SettingEngine) {
			s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
			s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM)
		}, same, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newTestEngine(t, c.addr).view(t, c.change, c.edit)
			out := v.server.out
			first := v.pass()
			if sealed := out.sealer.Load() != nil; sealed != c.sealed {
				t.Fatalf("sealed here: %v, want %v", sealed, c.sealed)
			}
			last := first
			for range 200 { // rolls over
				p := v.pass()
				last.SequenceNumber, last.Timestamp, last.Payload = last.SequenceNumber+1, last.Timestamp+3000, v.payload
				if fmt.Sprint(p) != fmt.Sprint(last) {
					t.Fatalf("got %v, want %v", p, last)
				}
			}
			if err := v.WriteRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
				MediaSSRC: first.SSRC, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{first.SequenceNumber, last.SequenceNumber}),
			}}); err != nil {
				t.Fatal(err)
			}
			repaired := map[uint16]bool{}
			for len(repaired) < 2 { // pion returns what was repaired with what comes next
				p := v.pass()
				if p.SequenceNumber == first.SequenceNumber || p.SequenceNumber == last.SequenceNumber {
					repaired[p.SequenceNumber] = true
				}
			}
		})
	}
}

// restart makes an ICE restart, from which the viewer has a new address.
func (v *pionViewer) restart() {
	v.t.Helper()
	field := func(text, key string) string {
		_, rest, _ := strings.Cut(text, key)
		value, _, _ := strings.Cut(rest, "\r\n")
		return value
	}
	old := v.RemoteDescription().SDP
	offer := v.offer(&webrtc.OfferOptions{ICERestart: true})
	fragment, err := v.server.Restart(v.t.Context(), field(offer, "a=ice-ufrag:"), field(offer, "a=ice-pwd:"))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, key := range []string{"a=ice-ufrag:", "a=ice-pwd:"} {
		old = strings.ReplaceAll(old, key+field(old, key), key+field(fragment, key))
	}
	v.accept(old)
}

// After an ICE restart media goes to the viewer's new address, still sealed
// here, and numbered on.
func TestSealedPacketsFollowTheViewer(t *testing.T) {
	v := newTestEngine(t, "127.0.0.1:0").view(t, func(*webrtc.SettingEngine) {}, func(s string) string { return s })
	first := v.pass()
	before := *v.server.out.route.Load()
	v.restart()
	for tick := time.Tick(time.Millisecond); *v.server.out.route.Load() == before; <-tick {
		v.send() // to where nobody listens any more
	}
	last := v.pass()
	for !bytes.Equal(last.Payload, v.payload) { // it came to the old address
		last = <-v.received
	}
	for range 10 {
		p := v.pass()
		if p.SSRC != first.SSRC || p.SequenceNumber != last.SequenceNumber+1 {
			t.Fatalf("%v after %v", p, last)
		}
		last = p
	}
	if v.server.out.sealer.Load() == nil {
		t.Error("not sealed here any more")
	}
}

// A connection that is closed while a candidate pair is selected ends: pion
// waits for whoever is told of the pair, with a lock held.
func TestCloseWhileAPairIsSelected(t *testing.T) {
	v := newTestEngine(t, "127.0.0.1:0").view(t, func(*webrtc.SettingEngine) {}, func(s string) string { return s })
	ice, closed := v.server.SCTP().Transport().ICETransport(), make(chan error, 1)
	ice.OnSelectedCandidatePairChange(func(pair *webrtc.ICECandidatePair) {
		go func() { closed <- v.server.GracefulClose() }()
		for tick := time.Tick(time.Millisecond); ice.State() != webrtc.ICETransportStateClosed; <-tick {
		}
		<-time.Tick(10 * time.Millisecond) // the close may reach the lock, and the wait
		v.server.out.follow(pair)
	})
	v.restart()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the connection never closes")
	}
}

// Who takes over an SSRC goes on with its roll-over counter.
func TestTakeoverGoesOnCounting(t *testing.T) {
	e := newTestEngine(t, "127.0.0.1:0")
	far, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	key, salt := bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{8}, 12)
	open, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	out := &outbound{engine: e}
	out.sealer.Store(wsrtp.NewSealer(key, salt))
	out.route.Store(&route{udp: far.LocalAddr().(*net.UDPAddr).AddrPort()})
	buf := make([]byte, receiveMTU)
	for seq := uint16(65530); seq != 10; seq++ {
		s := &trackSender{out: out, ssrc: 1, index: out.index(1), rtx: out.index(2)}
		batch := s.NewBatch()
		for _, ssrc := range []uint32{1, 2} {
			p := packet(seq, 0, []byte{1, 2, 3})
			p.SSRC = ssrc
			if n, err := s.BatchRTP(batch, &p.Header, p.Payload); n != p.MarshalSize() || err != nil {
				t.Fatalf("BatchRTP = %d, %v", n, err)
			}
		}
		if n, err := batch.Flush(); n != 2 || err != nil {
			t.Fatalf("Flush = %d, %v", n, err)
		}
		for range 2 {
			n, err := far.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := open.DecryptRTP(nil, buf[:n], &rtp.Header{}); err != nil {
				t.Fatalf("number %d: %v", seq, err)
			}
		}
	}
}

// What could not be sent does not count.
func TestFailedPacketsDoNotCount(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	out := &outbound{}
	out.sealer.Store(wsrtp.NewSealer(make([]byte, 16), make([]byte, 12)))
	out.route.Store(&route{far: closed.LocalAddr(), tcp: closed})
	s := &trackSender{out: out, ssrc: 1, index: out.index(1)}
	p := packet(1, 0, []byte{1, 2, 3})
	if n, err := s.WriteRTP(&p.Header, p.Payload); n != 0 || err == nil {
		t.Errorf("WriteRTP = %d, %v; want 0 and an error", n, err)
	}
}
