// Package client is a WHIP and WHEP client (RFC 9725 and its draft sibling)
// without a browser: a Publisher that sends a clip as a camera would, and a
// Viewer that measures the received stream. Both work with any server of these
// protocols.
package client

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// Header extensions offered.
const (
	// AbsCaptureTime is the URI of the extension that carries the wall clock at
	// sending: http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time.
	AbsCaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
	midURI         = sdp.SDESMidURI
)

const (
	defaultSilence = 8 * time.Second
	iceKeepalive   = time.Second
)

// peer is the common part of Publisher and Viewer: the PeerConnection, its
// session, and the goroutines that read from it.
type peer struct {
	pc        *webrtc.PeerConnection
	session   *session
	connected chan struct{} // closed when media can flow
	done      chan struct{} // closed when the connection failed or was closed by either side

	mu          sync.Mutex
	ice         time.Time
	connectedAt time.Time
	state       webrtc.PeerConnectionState
	closed      bool           // nothing starts once set
	wg          sync.WaitGroup // readers of RTP and RTCP, the viewer's askers

	closeOnce sync.Once
	closeErr  error
}

// newPeer makes a PeerConnection with the codecs given. A receiving one sends
// receiver reports; a sending one answers NACKs. A server that sends nothing
// for the duration silence counts as lost.
func newPeer(codecs []webrtc.RTPCodecParameters, receive, tcp bool, silence time.Duration) (*peer, error) {
	if silence == 0 {
		silence = defaultSilence
	}
	m := &webrtc.MediaEngine{}
	for _, c := range codecs {
		kind := webrtc.RTPCodecTypeVideo
		if strings.HasPrefix(c.MimeType, "audio/") {
			kind = webrtc.RTPCodecTypeAudio
		}
		if err := m.RegisterCodec(c, kind); err != nil {
			return nil, fmt.Errorf("codec %s: %w", c.MimeType, err)
		}
	}
	for _, uri := range []string{AbsCaptureTime, midURI} {
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return nil, fmt.Errorf("header extension %s: %w", uri, err)
			}
		}
	}

	// Callers get pion's errors and states, so pion prints nothing, unless
	// PION_LOG_… asks for it.
	loggers := logging.NewDefaultLoggerFactory()
	if loggers.DefaultLogLevel == logging.LogLevelError {
		loggers.DefaultLogLevel = logging.LogLevelDisabled
	}

	var factories []interceptor.Factory
	if receive {
		reporter, err := report.NewReceiverInterceptor(report.WithReceiverLoggerFactory(loggers))
		if err != nil {
			return nil, err
		}
		factories = append(factories, reporter)
	} else {
		repeater, err := nack.NewResponderInterceptor(nack.WithResponderLoggerFactory(loggers))
		if err != nil {
			return nil, err
		}
		factories = append(factories, repeater)
	}
	registry := &interceptor.Registry{}
	for _, f := range factories {
		registry.Add(f)
	}

	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	if tcp {
		s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6})
	}
	s.SetICETimeouts(silence/2, silence-silence/2, min(iceKeepalive, silence/4))
	s.SetPrflxAcceptanceMinWait(0)
	s.LoggerFactory = loggers

	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s)).
		NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return nil, fmt.Errorf("peer connection: %w", err)
	}
	p := &peer{
		pc:        pc,
		connected: make(chan struct{}),
		done:      make(chan struct{}),
		state:     webrtc.PeerConnectionStateNew,
	}
	pc.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		if state == webrtc.ICEConnectionStateConnected {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.ice.IsZero() {
				p.ice = time.Now()
			}
		}
	})
	pc.OnConnectionStateChange(p.stateChanged)
	return p, nil
}

// stateChanged may run after Close, on a goroutine of pion.
func (p *peer) stateChanged(state webrtc.PeerConnectionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := p.state == webrtc.PeerConnectionStateFailed || p.state == webrtc.PeerConnectionStateClosed
	if over {
		return
	}
	p.state = state
	switch state {
	case webrtc.PeerConnectionStateConnected:
		if p.connectedAt.IsZero() {
			p.connectedAt = time.Now()
			close(p.connected)
		}
	case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		close(p.done)
	}
}

// offer makes the offer and waits for its candidates: with host candidates only
// that takes a millisecond or two, and some servers need them, because they do
// not learn them from connectivity checks.
func (p *peer) offer(ctx context.Context) (string, error) {
	gathered := webrtc.GatheringCompletePromise(p.pc)
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("create offer: %w", err)
	}
	if err := p.pc.SetLocalDescription(offer); err != nil {
		return "", fmt.Errorf("set offer: %w", err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return "", fmt.Errorf("gather candidates: %w", ctx.Err())
	}
	return p.pc.LocalDescription().SDP, nil
}

// establish sets the session's answer and waits until media can flow.
func (p *peer) establish(ctx context.Context) error {
	answer := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: p.session.answer}
	if err := p.pc.SetRemoteDescription(answer); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBadAnswer, withoutQuery(p.session.url()), err)
	}
	p.start(p.hasten)
	select {
	case <-p.connected:
		return nil
	case <-p.done:
		return p.noMedia(nil)
	case <-ctx.Done():
		return p.noMedia(ctx.Err())
	}
}

func (p *peer) noMedia(cause error) error {
	return &unreachedError{fmt.Sprintf("%v: %s answered, but its media port does not", ErrNoMedia, withoutQuery(p.session.url())), ErrNoMedia, cause}
}

// hasten completes ICE after one round trip. A pion agent that knows a working
// pair nominates it at the next tick of 200 ms, unless the other side checks
// too, which an ICE-lite server does not; but an additional remote candidate
// makes it tick at once. The candidates added here repeat the server's address.
func (p *peer) hasten() {
	remote := firstCandidate(p.session.answer)
	if remote == "" {
		return
	}
	for i, pause := 1, time.Millisecond; pause < 200*time.Millisecond; i, pause = i+1, 2*pause {
		select {
		case <-time.After(pause):
		case <-p.connected:
			return
		case <-p.done:
			return
		}
		p.mu.Lock()
		nominated := !p.ice.IsZero()
		p.mu.Unlock()
		if nominated {
			return
		}
		// Its own related address makes it another candidate for pion; as
		// server-reflexive it has a lower priority than the one it repeats.
		again := fmt.Sprintf("candidate:hasten%d 1 udp 1 %s typ srflx raddr 0.0.0.0 rport %d", i, remote, i)
		if p.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: again}) != nil {
			return
		}
	}
}

// firstCandidate returns address and port, with a space between, of the first
// UDP host candidate in an answer; "" if there is none.
func firstCandidate(answer string) string {
	for line := range strings.Lines(answer) {
		f := strings.Fields(line)
		if len(f) >= 8 && strings.HasPrefix(f[0], "a=candidate:") && strings.EqualFold(f[2], "udp") && f[7] == "host" {
			return f[4] + " " + f[5]
		}
	}
	return ""
}

// start runs f on a goroutine that close waits for, or not at all if close has
// begun. GracefulClose does not wait for the goroutines of pion's handlers, so
// they pass their work to start.
func (p *peer) start(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wg.Go(f)
	}
}

// close ends the session at the server, then the connection, and waits for all
// goroutines of start.
func (p *peer) close() error {
	p.closeOnce.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.closeErr = p.session.end()
		if err := p.pc.GracefulClose(); err != nil && p.closeErr == nil {
			p.closeErr = fmt.Errorf("close connection: %w", err)
		}
		p.stateChanged(webrtc.PeerConnectionStateClosed)
		p.wg.Wait()
	})
	return p.closeErr
}

// stats returns the statistics of the connection at now.
func (p *peer) stats(now time.Time) Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Elapsed:   now.Sub(p.session.posted),
		Answered:  p.since(p.session.answered),
		ICE:       p.since(p.ice),
		Connected: p.since(p.connectedAt),
		URL:       p.session.url(),
		Hops:      p.session.hops,
		State:     p.state.String(),
	}
}

// since returns t as a time since the POST, 0 if t is zero.
func (p *peer) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(p.session.posted)
}
