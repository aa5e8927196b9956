package rtc

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/nack"
	"weir/sfu/rtc/arrival"
	"weir/sfu/srtp"
	"weir/sfu/udp"
)

// A Transport is a PeerConnection, with the socket's knowledge of its far end.
type Transport struct {
	*webrtc.PeerConnection
	engine   *Engine
	peer     *udp.Peer
	keys     *srtp.KeyWatch
	out      *outbound
	in       *srtp.Opener      // nil: pion decrypts all
	requests *nack.Requester   // for missing packets of the far end
	arrivals *arrival.Reporter // of a publisher's packets
	started  chan struct{}     // closed once the ICE agent accepts checks
}

func newTransport(e *Engine, pc *webrtc.PeerConnection, peer *udp.Peer, keys *srtp.KeyWatch, out *outbound, in *srtp.Opener) *Transport {
	t := &Transport{PeerConnection: pc, engine: e, peer: peer, keys: keys, out: out, in: in, requests: nack.NewRequester(pc.WriteRTCP), arrivals: arrival.NewReporter(pc.WriteRTCP), started: make(chan struct{})}
	if in != nil {
		peer.Take(in.Take)
	}
	ice := pc.SCTP().Transport().ICETransport()
	ice.OnSelectedCandidatePairChange(out.follow)
	pc.SCTP().Transport().OnStateChange(func(state webrtc.DTLSTransportState) {
		switch state {
		case webrtc.DTLSTransportStateConnected:
			t.secured()
			out.begin(ice)
			if pair, ok := ice.GetSelectedCandidatePairStats(); ok {
				t.requests.Begin(time.Duration(pair.CurrentRoundTripTime * float64(time.Second)))
			}
			peer.Secured()
		case webrtc.DTLSTransportStateClosed:
			out.close()
			peer.Close()
			if in != nil {
				in.Close()
			}
		}
	})
	var once sync.Once
	pc.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		if state != webrtc.ICEConnectionStateNew {
			once.Do(func() { close(t.started) })
		}
	})
	return t
}

// secured takes over the RTP both ways, if the handshake has yielded the keys.
func (t *Transport) secured() {
	keys := t.keys.Take()
	t.out.secured(keys)
	switch {
	case t.in == nil:
	case keys == nil:
		t.peer.Take(nil)
	default:
		t.in.Secured(keys)
	}
}

// GracefulClose ends the connection and waits for its goroutines.
func (t *Transport) GracefulClose() error {
	err := t.PeerConnection.GracefulClose()
	t.requests.Close()
	t.arrivals.Close()
	return err
}

// SetLocal sets the local description, waits for our candidates until ctx is
// done, and makes the socket admit the far end. It returns the description with
// all candidates in it.
func (t *Transport) SetLocal(ctx context.Context, d webrtc.SessionDescription) (string, error) {
	gathered := webrtc.GatheringCompletePromise(t.PeerConnection)
	if err := t.SetLocalDescription(d); err != nil {
		return "", err
	}
	select {
	case <-gathered: // host candidates of one socket: at once
	case <-ctx.Done():
		return "", ctx.Err()
	}
	local := t.LocalDescription().SDP
	t.expect(local)
	return local, nil
}

// expect makes the socket admit packets with the ICE credentials in local,
// which pion wrote: its ICE transport cannot be queried while it starts.
func (t *Transport) expect(local string) {
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
	t.out.expect(ufrag)
	t.peer.Expect(ufrag, pwd, time.Now())
}

// checkingPatience bounds the wait for an ICE agent to start; it takes about a
// millisecond.
const checkingPatience = 200 * time.Millisecond

// AwaitChecking waits until the ICE agent accepts connectivity checks, for at
// most checkingPatience and not past ctx. The first check can overtake an
// answer that is sent before; it is then lost and repeated only after 200 ms.
func (t *Transport) AwaitChecking(ctx context.Context) {
	patience := time.NewTimer(checkingPatience)
	defer patience.Stop()
	select {
	case <-t.started:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// Silence returns how long the far end has sent no valid connectivity check; ok
// is false before the first.
func (t *Transport) Silence(now time.Time) (d time.Duration, ok bool) { return t.peer.Silence(now) }

// RequestKeyframe sends one picture loss indication (RFC 4585, section 6.3.1) for
// each of ssrcs, and reports whether the connection was up to send it.
func (t *Transport) RequestKeyframe(ssrcs ...uint32) bool {
	if t.ConnectionState() != webrtc.PeerConnectionStateConnected {
		return false
	}
	var ask []rtcp.Packet
	for _, ssrc := range ssrcs {
		ask = append(ask, &rtcp.PictureLossIndication{MediaSSRC: ssrc})
	}
	return t.WriteRTCP(ask) == nil
}

// NewTrack makes a track that sends the packets of track over the transport,
// once it is added to the transport. Tracks with the same stream are played in
// sync.
func (t *Transport) NewTrack(track *forward.Track, stream string) *LocalTrack {
	d := forward.NewDownTrack(track)
	d.Repairs, d.Skips = &t.engine.repairs, &t.engine.skips
	return &LocalTrack{DownTrack: d, stream: stream, writeRTCP: t.WriteRTCP, out: t.out}
}
