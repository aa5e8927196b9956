package rtc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"weir/capacity/scope"
	"weir/sfu/forward"
	"weir/sfu/rtc/feedback"
	"weir/sfu/srtp"
	"weir/sfu/steering"
	"weir/sfu/udp"
)

// ICE times. A silent peer fails after iceFailed; with pion's defaults that
// would take 30 s.
const (
	iceDisconnected = 5 * time.Second
	iceFailed       = 10 * time.Second
	iceKeepalive    = 2 * time.Second
)

// receiveMTU is the largest RTP or RTCP packet accepted from a peer, in bytes.
const receiveMTU = 1500

// certificateLife is how long a DTLS certificate is used before a new one is
// made; pion's are valid for a month.
const certificateLife = 7 * 24 * time.Hour

// An Engine makes the PeerConnections of a node, all on one UDP port.
type Engine struct {
	mux    ice.UDPMux
	tcp    *tcpMux // nil: none
	socket *udp.Socket
	nat    *webrtc.ICEAddressRewriteRule // nil: peers reach us at the bound addresses
	log    logging.LoggerFactory
	gate   *scope.Gate

	repairs  forward.Repairs
	skips    forward.Skips
	probes   steering.Totals
	feedback feedback.Counters
	batches  sync.Pool // of *batch

	// Connections of viewers and links by who encrypts their RTP.
	sealed, byPion atomic.Int64

	mu     sync.Mutex
	cert   *webrtc.Certificate
	certAt time.Time
}

// Config configures an Engine. All fields but PublicIP are required.
type Config struct {
	Socket   *udp.Socket
	PublicIP netip.Addr  // public address of Socket; zero: its bound addresses
	Gate     *scope.Gate // decides which candidates of other nodes are checked
}

// NewEngine makes an Engine and starts to read cfg.Socket.
func NewEngine(cfg Config) (*Engine, error) {
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	e := &Engine{socket: cfg.Socket, nat: reachedAt(cfg.PublicIP), log: log, gate: cfg.Gate}
	e.batches.New = func() any { return &batch{e.socket.NewBatch(), &e.batches} }
	e.mux = offeredMux{ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: log.NewLogger("ice"), UDPConn: cfg.Socket})}
	if l := cfg.Socket.TCPListener(); l != nil {
		e.tcp = newTCPMux(l, log.NewLogger("ice"))
	}
	if _, err := e.certificate(time.Now()); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Close stops pion's reading of the socket. Close all transports before.
func (e *Engine) Close() {
	_ = e.mux.Close() // it always returns nil
	if e.tcp != nil {
		_ = e.tcp.Close() // reports that the listener was closed before
	}
}

// Repairs returns how many packets were sent again, and how many were requested
// beyond the bounds of repair.
func (e *Engine) Repairs() (sent, withheld int64) { return e.repairs.Totals() }

// Skips returns how many packets of video and audio were not sent, as the node
// could not send them in time, those of several viewers and links counted for
// each.
func (e *Engine) Skips() (video, audio int64) { return e.skips.Totals() }

// Probes returns how many probes of viewers' connections there were, and the
// bytes of padding that they sent.
func (e *Engine) Probes() (probes, bytes int64) { return e.probes.Read() }

// Encrypted returns how many connections of viewers and links there were whose
// RTP is encrypted here, and by pion, since their keys are not known here or not
// for AES-GCM.
func (e *Engine) Encrypted() (here, byPion int64) { return e.sealed.Load(), e.byPion.Load() }

// Feedback returns the counts of RTCP requests so far.
func (e *Engine) Feedback() feedback.Counts { return e.feedback.Read() }

// A role is the use of a PeerConnection, which determines whom it checks and
// its interceptors. All are full ICE agents: of a lite one, pion's controlling
// agent nominates a pair at its next tick of 200 ms, and browsers with a further
// check; of one that checks too, all of them at once.
type role int

const (
	rolePublisher role = iota // WHIP: we receive, and check where checks come from
	roleViewer                // WHEP: we send, and check where checks come from
	roleLink                  // cascade link: both, and check the other's candidates too
)

func (e *Engine) certificate(now time.Time) (webrtc.Certificate, error) {
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

// publisher makes a transport for a client that publishes. All its packets go
// to in, instead of pion's own tracks. It is the client of the DTLS handshake if
// passive says that the publisher is not.
func (e *Engine) publisher(media *webrtc.MediaEngine, passive bool, in *Ingress) (*Transport, error) {
	registry := &interceptor.Registry{}
	registry.Add(&e.feedback)
	factory, err := report.NewReceiverInterceptor()
	if err == nil {
		in.reports, err = factory.NewInterceptor("")
	}
	if err != nil {
		return nil, err
	}
	registry.Add(made{in.reports})
	t, err := e.transport(rolePublisher, !passive, media, registry, in)
	if err == nil {
		in.requests, in.arrivals = t.requests, t.arrivals
	}
	return t, err
}

// viewer makes a transport for a client that views. It is the client of the DTLS
// handshake if passive says that the viewer is not.
func (e *Engine) viewer(media *webrtc.MediaEngine, passive bool) (*Transport, error) {
	registry := &interceptor.Registry{}
	registry.Add(&e.feedback)
	return e.transport(roleViewer, !passive, media, registry, nil)
}

// Link makes a transport for a cascade link to another node.
func (e *Engine) Link(media *webrtc.MediaEngine) (*Transport, error) {
	registry := &interceptor.Registry{}
	registry.Add(&e.feedback)
	reports, err := report.NewReceiverInterceptor()
	if err != nil {
		return nil, err
	}
	registry.Add(reports)
	return e.transport(roleLink, true, media, registry, nil)
}

// made is a factory that returns an existing interceptor.
type made struct{ interceptor.Interceptor }

func (m made) NewInterceptor(string) (interceptor.Interceptor, error) { return m.Interceptor, nil }

// transport makes a transport for role, limited to the codecs and extensions of
// media. The socket admits its peer from [Transport.SetLocal], which sets the
// credentials to look for, until it is closed. With serve this end is the server
// of the DTLS handshake if it answers.
func (e *Engine) transport(role role, serve bool, media *webrtc.MediaEngine, registry *interceptor.Registry, in *Ingress) (*Transport, error) {
	cert, err := e.certificate(time.Now())
	if err != nil {
		return nil, err
	}
	out := &outbound{engine: e, media: role != rolePublisher, control: controller{since: time.Now(), sendOnly: role == roleViewer}}
	var s webrtc.SettingEngine
	s.BufferFactory = out.control.buffer
	if in != nil {
		s.BufferFactory = in.buffer
	}
	if e.nat != nil {
		if err := s.SetICEAddressRewriteRules(*e.nat); err != nil {
			return nil, fmt.Errorf("public address: %w", err)
		}
	}
	s.LoggerFactory = e.log
	s.SetICEUDPMux(e.mux)
	networks := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if role != roleLink && e.tcp != nil {
		s.SetICETCPMux(e.tcp)
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	s.SetNetworkTypes(networks)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	peer := e.socket.NewPeer()
	if role != roleLink {
		// No packet goes to a client's candidates, which may be anybody's.
		peer.Triggered()
		s.SetICEBindingRequestHandler(nominates)
	} else {
		s.SetRemoteIPFilter(func(ip net.IP) bool {
			addr, _ := netip.AddrFromSlice(ip)
			return e.gate.Check(scope.Candidate, addr) == nil
		})
	}
	s.DisableActiveTCP(true)
	s.SetReceiveMTU(receiveMTU)
	s.SetFireOnTrackBeforeFirstRTP(true)
	s.SetDTLSRetransmissionInterval(200 * time.Millisecond)
	s.SetSRTPReplayProtectionWindow(srtp.ReplayWindow)
	keys := &srtp.KeyWatch{}
	var around *srtp.Opener
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	if serve {
		// The server of the handshake chooses the profile, and learns the keys.
		// The filter admits DTLS of checked addresses only, so that the cookie
		// exchange of RFC 6347, section 4.2.1 would be a round trip for nothing.
		s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
		if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
			return nil, err
		}
		s.SetDTLSInsecureSkipHelloVerify(true)
		keys.Watch(&s)
		if in != nil {
			around = srtp.NewOpener(in.accept, in.unopened)
		}
	}

	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s))
	pc, err := api.NewPeerConnection(webrtc.Configuration{
		Certificates: []webrtc.Certificate{cert},
		BundlePolicy: webrtc.BundlePolicyMaxBundle,
	})
	if err != nil {
		return nil, err
	}
	return newTransport(e, pc, peer, keys, out, around), nil
}

// nominates reports whether a check is a nomination, which selects its pair at
// once. pion alone would wait for its own check of that pair, whose answer may
// be read by another of our candidates, as all share one socket; and it would
// not follow a client to a pair of a lower priority.
func nominates(check *stun.Message, _, _ ice.Candidate, _ *ice.CandidatePair) bool {
	return check.Contains(stun.AttrUseCandidate)
}

// reachedAt replaces the address of all our candidates by public, with the same
// port; candidates of the other address family stay.
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
