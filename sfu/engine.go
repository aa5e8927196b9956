package sfu

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/logging"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/scope"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/udp"
)

// ICE times. A peer that says nothing for iceFailed is gone; pion's defaults
// would take 30 s to notice.
const (
	iceDisconnected = 5 * time.Second
	iceFailed       = 10 * time.Second
	iceKeepalive    = 2 * time.Second
)

// receiveMTU is the largest RTP or RTCP packet taken from a peer, in bytes.
const receiveMTU = 1500

// certificateLife is how long one DTLS certificate serves before a new one is
// made; pion's are valid for a month.
const certificateLife = 7 * 24 * time.Hour

// engine makes the PeerConnections of a node, all on one UDP port.
type engine struct {
	mux    ice.UDPMux
	tcp    *tcpMux // nil: none
	socket *udp.Socket
	nat    *webrtc.ICEAddressRewriteRule // nil: others reach us where we are bound
	log    logging.LoggerFactory
	addr   *scope.Gate

	repairs  forward.Repairs
	feedback feedbackCounters

	mu     sync.Mutex
	cert   *webrtc.Certificate
	certAt time.Time
}

// close ends what pion reads from the socket.
func (e *engine) close() {
	_ = e.mux.Close() // it returns nothing
	if e.tcp != nil {
		_ = e.tcp.Close() // that its listener was closed before
	}
}

// maxNACKs is how often a packet is asked for again. pion's generator does not
// see packets that come back by RTX, so without a bound it would never stop.
const maxNACKs = 4

// leg is what a PeerConnection is for, which decides its ICE role and its
// interceptors. Both ends of a link are full ICE agents: pion's controlling
// agent nominates at its next tick of 200 ms, unless the other end checks too,
// which a lite one never does; then it nominates at once.
type leg int

const (
	legPublish leg = iota // WHIP: we receive, ICE-lite
	legView               // WHEP: we send, ICE-lite
	legDial               // cascade link we opened: we offer
	legAccept             // cascade link opened to us
)

func (e *engine) certificate(now time.Time) (webrtc.Certificate, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cert == nil || now.Sub(e.certAt) > certificateLife {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return webrtc.Certificate{}, err
		}
		cert, err := webrtc.GenerateCertificate(key)
		if err != nil {
			return webrtc.Certificate{}, fmt.Errorf("make a DTLS certificate: %w", err)
		}
		e.cert, e.certAt = cert, now
	}
	return *e.cert, nil
}

// peerConnection makes one for leg, able to do the codecs and extensions of
// media and nothing else. What comes on a publisher's goes to in. The socket lets
// its peer in once it has been told, by [expect], which credentials to look for,
// and until it is closed.
func (e *engine) peerConnection(leg leg, media *webrtc.MediaEngine, in *ingress) (*webrtc.PeerConnection, *udp.Peer, error) {
	cert, err := e.certificate(time.Now())
	if err != nil {
		return nil, nil, err
	}
	registry := &interceptor.Registry{}
	if err := e.intercept(leg, media, registry, in); err != nil {
		return nil, nil, err
	}

	var s webrtc.SettingEngine
	if in != nil {
		s.BufferFactory = in.buffer
	}
	if e.nat != nil {
		if err := s.SetICEAddressRewriteRules(*e.nat); err != nil {
			return nil, nil, fmt.Errorf("public address: %w", err)
		}
	}
	s.LoggerFactory = e.log
	s.SetICEUDPMux(e.mux)
	networks := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if client := leg == legPublish || leg == legView; client && e.tcp != nil {
		s.SetICETCPMux(e.tcp)
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	s.SetNetworkTypes(networks)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	s.SetLite(leg == legPublish || leg == legView)
	if leg == legDial || leg == legAccept {
		// Lite agents send no checks: nobody knocks at what a client names, and it
		// is answered wherever it comes from.
		s.SetRemoteIPFilter(func(ip net.IP) bool {
			addr, _ := netip.AddrFromSlice(ip)
			return e.addr.Check(scope.Candidate, addr) == nil
		})
	}
	s.DisableActiveTCP(true)
	s.SetReceiveMTU(receiveMTU)
	s.SetFireOnTrackBeforeFirstRTP(true)
	s.SetDTLSRetransmissionInterval(200 * time.Millisecond)
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)

	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s))
	pc, err := api.NewPeerConnection(webrtc.Configuration{
		Certificates: []webrtc.Certificate{cert},
		BundlePolicy: webrtc.BundlePolicyMaxBundle,
	})
	if err != nil {
		return nil, nil, err
	}
	p := e.socket.NewPeer()
	pc.SCTP().Transport().OnStateChange(func(state webrtc.DTLSTransportState) {
		switch state {
		case webrtc.DTLSTransportStateConnected:
			p.Secured()
		case webrtc.DTLSTransportStateClosed:
			p.Close()
		}
	})
	return pc, p, nil
}

// expect has p let in what shows the ICE credentials in local, which pion wrote:
// its ICE transport cannot be asked while it starts.
func expect(p *udp.Peer, local string) {
	var ufrag, pwd string
	for line := range strings.Lines(local) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case key == "a=ice-ufrag" && ufrag == "":
			ufrag = value
		case key == "a=ice-pwd" && pwd == "":
			pwd = value
		}
	}
	p.Expect(ufrag, pwd, time.Now())
}

// reachedAt has all of our candidates be at public instead of where they are
// bound, with the same port; those of the other family stay as they are.
func reachedAt(public netip.Addr) *webrtc.ICEAddressRewriteRule {
	if !public.IsValid() {
		return nil
	}
	family := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4}
	if public.Is6() {
		family = []webrtc.NetworkType{webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP6}
	}
	return &webrtc.ICEAddressRewriteRule{
		External: []string{public.String()}, AsCandidateType: webrtc.ICECandidateTypeHost,
		Mode: webrtc.ICEAddressRewriteReplace, Networks: family,
	}
}

// checkingPatience bounds the wait for an ICE agent to start; it takes about a
// millisecond.
const checkingPatience = 200 * time.Millisecond

// checking returns a channel that is closed once pc's ICE agent takes
// connectivity checks. An answer that leaves before can be overtaken by the
// first check, which then is lost and repeated only after 200 ms.
func checking(pc *webrtc.PeerConnection) <-chan struct{} {
	started := make(chan struct{})
	var once sync.Once
	pc.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		if state != webrtc.ICEConnectionStateNew {
			once.Do(func() { close(started) })
		}
	})
	return started
}

// await waits for c, but no longer than patience, and not past ctx.
func await(ctx context.Context, c <-chan struct{}, patience time.Duration) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	case <-ctx.Done():
	}
}

// intercept adds what a leg needs of pion's interceptors. Sender reports are
// not among them: the publisher's own are carried instead, see [Track].
func (e *engine) intercept(leg leg, media *webrtc.MediaEngine, registry *interceptor.Registry, in *ingress) error {
	registry.Add(&e.feedback)
	// An ingress hands its packets to its interceptors itself.
	add := func(f interceptor.Factory, to func(*ingress, interceptor.Interceptor)) error {
		if in == nil {
			registry.Add(f)
			return nil
		}
		i, err := f.NewInterceptor("")
		if err == nil {
			to(in, i)
			registry.Add(made{i})
		}
		return err
	}
	if leg != legView {
		generator, err := nack.NewGeneratorInterceptor(nack.GeneratorMaxNacksPerPacket(maxNACKs))
		if err != nil {
			return err
		}
		if err := add(generator, func(in *ingress, i interceptor.Interceptor) { in.nacks = i }); err != nil {
			return err
		}
		reports, err := report.NewReceiverInterceptor()
		if err != nil {
			return err
		}
		if err := add(reports, func(in *ingress, i interceptor.Interceptor) { in.reports = i }); err != nil {
			return err
		}
	}
	if leg == legPublish { // browsers estimate their uplink from this
		feedback, err := twcc.NewSenderInterceptor()
		if err != nil {
			return err
		}
		if err := add(feedback, func(in *ingress, i interceptor.Interceptor) { in.feedback = i }); err != nil {
			return err
		}
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: psdp.TransportCCURI}, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// made is the factory of an interceptor that there is already.
type made struct{ interceptor.Interceptor }

func (m made) NewInterceptor(string) (interceptor.Interceptor, error) { return m.Interceptor, nil }

// newMedia is a MediaEngine that knows the extensions which are carried, and
// no codec yet.
func newMedia() (*webrtc.MediaEngine, error) {
	media := &webrtc.MediaEngine{}
	for kind, uris := range sdp.Carried {
		for _, uri := range append([]string{psdp.SDESMidURI}, uris...) {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return nil, err
			}
		}
	}
	return media, nil
}

// register adds one codec to media, and its retransmissions if there are any.
func register(media *webrtc.MediaEngine, c sdp.Codec) error {
	for _, p := range c.WithFeedback().Params() {
		if err := media.RegisterCodec(p, sdp.KindOf(c.MimeType)); err != nil {
			return err
		}
	}
	return nil
}

// linkMedia is what a cascade link can do. Payloads are opaque there and the
// parent says what each is, so one payload type for each name is enough.
func linkMedia() (*webrtc.MediaEngine, error) {
	media, err := newMedia()
	if err != nil {
		return nil, err
	}
	for _, c := range sdp.LinkCodecs() {
		if err := register(media, c); err != nil {
			return nil, err
		}
	}
	return media, nil
}
