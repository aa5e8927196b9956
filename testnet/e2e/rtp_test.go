package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/client"
)

// A rtpPublisher sends RTP packets from a test: VP8 as payload type 96, and
// Opus as 111 if it has audio.
type rtpPublisher struct {
	t        *testing.T
	pc       *webrtc.PeerConnection
	keyframe atomic.Int64 // keyframe requests received

	dead atomic.Bool // it sends nothing any more

	mu      sync.Mutex
	streams []*rtpSource
	ticks   int // times that each stream has sent a frame
}

// A rtpSocket is a publisher's UDP socket.
type rtpSocket struct {
	*net.UDPConn
	dead *atomic.Bool
}

func (s *rtpSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	if s.dead.Load() {
		return len(b), nil
	}
	return s.UDPConn.WriteTo(b, to)
}

// A rtpSource is one RTP stream of a publisher, sent while on is set.
type rtpSource struct {
	audio, on bool
	h         rtp.Header
	mid, rid  string // sent as header extensions, if not empty
	frames    int
	layer     byte // last byte of the payload of video, if packets is set
	packets   int  // of 1,100 bytes in a frame of video; 0: one of a few bytes
}

// rtpTrack gives its publisher the writer of a section.
type rtpTrack struct {
	codec  webrtc.RTPCodecParameters
	bound  atomic.Pointer[rtpSource]
	writer webrtc.TrackLocalWriter
}

func (r *rtpTrack) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	r.writer = c.WriteStream()
	r.bound.Store(&rtpSource{h: rtp.Header{Version: 2, SSRC: uint32(c.SSRC()), PayloadType: uint8(r.codec.PayloadType)}})
	return r.codec, nil
}
func (r *rtpTrack) Unbind(webrtc.TrackLocalContext) error { return nil }
func (r *rtpTrack) ID() string                            { return r.Kind().String() }
func (r *rtpTrack) RID() string                           { return "" }
func (r *rtpTrack) StreamID() string                      { return "rtp" }
func (r *rtpTrack) Kind() webrtc.RTPCodecType {
	if r.codec.PayloadType == 111 {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// The header extensions of its offers.
var rtpExtensions = []string{sdp.SDESMidURI, sdp.SDESRTPStreamIDURI}

// publishRTP publishes a video section and, with audio, an audio section; munge
// changes the offer. The streams send until the test ends, once they are on.
func publishRTP(t *testing.T, url string, audio bool, munge func(string) string) *rtpPublisher {
	t.Helper()
	p, ok := tryPublishRTP(t, url, audio, munge)
	if !ok {
		t.Fatalf("%s: the name is taken", url)
	}
	return p
}

// tryPublishRTP reports false if the name is taken.
func tryPublishRTP(t *testing.T, url string, audio bool, munge func(string) string) (*rtpPublisher, bool) {
	t.Helper()
	media := &webrtc.MediaEngine{}
	tracks := []*rtpTrack{{codec: webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}},
	}}}}
	if audio {
		tracks = append(tracks, &rtpTrack{codec: webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
		}}})
	}
	for _, tr := range tracks {
		if err := media.RegisterCodec(tr.codec, tr.Kind()); err != nil {
			t.Fatal(err)
		}
		for _, uri := range rtpExtensions {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, tr.Kind()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	loggers := logging.NewDefaultLoggerFactory()
	loggers.DefaultLogLevel = logging.LogLevelDisabled
	s.LoggerFactory = loggers
	p := &rtpPublisher{t: t}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: &rtpSocket{socket, &p.dead}, Logger: loggers.NewLogger("ice")})
	s.SetICEUDPMux(mux)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(s)).
		NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		t.Fatal(err)
	}
	p.pc = pc
	sent := make(chan struct{})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	t.Cleanup(func() {
		_ = pc.GracefulClose()
		_ = mux.Close()
		close(stop)
		<-sent
		readers.Wait()
	})
	for _, tr := range tracks {
		transceiver, err := pc.AddTransceiverFromTrack(tr, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			close(sent)
			t.Fatal(err)
		}
		readers.Go(func() {
			for {
				packets, _, err := transceiver.Sender().ReadRTCP()
				if err != nil {
					return
				}
				for _, packet := range packets {
					if _, ok := packet.(*rtcp.PictureLossIndication); ok {
						p.keyframe.Add(1)
					}
				}
			}
		})
	}
	go func() {
		defer close(sent)
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.send(tracks)
			case <-stop:
				return
			}
		}
	}()

	offer := offerOf(t, pc, nil)
	if munge != nil {
		offer = munge(offer)
	}
	resp, answer := send(t, http.MethodPost, url, "application/sdp", offer, nil)
	if resp.StatusCode == http.StatusConflict {
		return nil, false
	}
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s\n%s", resp.Status, answer, offer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	eventually(t, "the publisher is connected", func() bool { return pc.ConnectionState() == webrtc.PeerConnectionStateConnected })
	for _, tr := range tracks {
		src := tr.bound.Load()
		src.audio = tr.Kind() == webrtc.RTPCodecTypeAudio
		p.streams = append(p.streams, src)
	}
	return p, true
}

// send sends one packet of each stream that is on.
func (p *rtpPublisher) send(tracks []*rtpTrack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		if !s.on {
			continue
		}
		payload, w, ticks := []byte{0x78, 1, 2, 3}, tracks[len(tracks)-1].writer, uint32(48000/30)
		if !s.audio {
			w, ticks = tracks[0].writer, 90000/30
			payload = []byte{0x10, 0x31, 0x02, 0x00}
			if s.frames%30 == 0 || s.packets > 0 && s.frames%15 == 0 {
				payload = []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}
			}
		}
		s.frames++
		s.h.Timestamp += ticks
		s.h.Extension, s.h.Extensions = false, nil
		for i, text := range []string{s.mid, s.rid} {
			if text != "" {
				_ = s.h.SetExtension(uint8(i+1), []byte(text))
			}
		}
		for i := range max(1, s.packets) {
			s.h.SequenceNumber++
			s.h.Marker = !s.audio && i+1 >= s.packets
			if i > 0 {
				payload = []byte{0x00}
			}
			if s.packets > 0 {
				payload = append(payload, make([]byte, 1100-len(payload))...)
				payload[len(payload)-1] = s.layer
			}
			_, _ = w.WriteRTP(&s.h, payload)
		}
	}
	p.ticks++
}

// edit changes the publisher's fields under its lock.
func (p *rtpPublisher) edit(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// on starts all streams, or stops them.
func (p *rtpPublisher) on(on bool) {
	p.edit(func() {
		for _, s := range p.streams {
			s.on = on
		}
	})
}

// anew continues with another SSRC and other sequence numbers.
func (s *rtpSource) anew() {
	s.h.SSRC, s.h.SequenceNumber, s.h.Timestamp, s.frames = rand.Uint32(), uint16(rand.Uint32()), rand.Uint32(), 0
}

var ssrcLines = regexp.MustCompile(`(?m)^a=ssrc(-group)?:.*\r?\n`)

func undeclared(offer string) string { return ssrcLines.ReplaceAllString(offer, "") }

// numbered gives the header extensions the IDs that send uses.
func numbered(offer string) string {
	var b strings.Builder
	for line := range strings.Lines(offer) {
		for i, uri := range rtpExtensions {
			if strings.HasPrefix(line, "a=extmap:") && strings.Contains(line, uri) {
				line = fmt.Sprintf("a=extmap:%d %s\r\n", i+1, uri)
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// got waits until v has received n further packets of each kind, with
// continuous sequence numbers.
func got(t *testing.T, v *client.Viewer, n uint64, kinds int) {
	t.Helper()
	before := map[string]uint64{}
	for _, tr := range v.Stats().Tracks {
		before[tr.Kind] = tr.Packets
	}
	eventually(t, fmt.Sprintf("%d packets of %d kinds", n, kinds), func() bool {
		enough := 0
		for _, tr := range v.Stats().Tracks {
			if tr.Packets >= before[tr.Kind]+n {
				enough++
			}
		}
		return enough == kinds
	})
	continuous(t, v)
	for _, tr := range v.Stats().Tracks {
		if tr.Lost > 0 {
			t.Errorf("%s: %d packets are missing in the numbering", tr.Kind, tr.Lost)
		}
	}
}

// A stream whose offer was answered with 201 is forwarded, however the client
// identifies its streams; a stream that is not is reported.
func TestRTPOfEveryKind(t *testing.T) {
	w := up(t, 2, nil)
	w.see(t)
	n, relay := w.n(1), w.n(2)
	log := n.follow(t)
	session := func(t *testing.T, stream string) (found struct {
		state   string
		ssrc    uint32
		dropped map[string]int64
	}) {
		t.Helper()
		for _, s := range n.sessions(t) {
			if s.Kind == "whip" && s.Stream == stream {
				found.dropped = s.NotForwarded
				for _, section := range s.Sections {
					if section.Kind == "video" {
						found.state, found.ssrc = section.State, section.SSRC
					}
				}
			}
		}
		return found
	}
	t.Run("all", func(t *testing.T) {
		for _, c := range []struct {
			name         string
			audio, mids  bool
			declared, on bool
		}{
			{name: "one section, undeclared"},
			{name: "two sections, by payload type", audio: true},
			{name: "two sections, by MID", audio: true, mids: true},
			{name: "two sections, declared", audio: true, declared: true},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				stream := strings.NewReplacer(" ", "-", ",", "").Replace(c.name)
				p := publishRTP(t, n.whip(stream), c.audio, func(offer string) string {
					if !c.declared {
						offer = undeclared(offer)
					}
					return numbered(offer)
				})
				kinds := len(p.streams)
				p.edit(func() {
					for i, s := range p.streams {
						s.on = true
						if c.mids {
							s.mid = fmt.Sprint(i)
						}
					}
				})
				v := view(t, n.whep(stream))
				got(t, v, 20, kinds)
				// The same under another SSRC.
				asked := p.keyframe.Load()
				p.edit(p.streams[0].anew)
				got(t, v, 20, kinds)
				eventually(t, "a keyframe is asked for", func() bool { return p.keyframe.Load() > asked })
				if s := session(t, stream); s.state != "flowing" || s.ssrc != p.streams[0].h.SSRC {
					t.Errorf("the node says %+v", s)
				}
				if e := log.of(event.MediaChanged, stream); len(e) != 1 {
					t.Errorf("%d events of a change, want 1: %v", len(e), e)
				}
			})
		}

		t.Run("layers, of which the best stops", func(t *testing.T) {
			t.Parallel()
			p := publishRTP(t, n.whip("layers"), false, func(offer string) string {
				return numbered(undeclared(offer)) + "a=rid:h send\r\na=rid:l send\r\na=simulcast:send h;l\r\n"
			})
			p.edit(func() {
				h, l := p.streams[0], *p.streams[0]
				l.anew()
				h.mid, h.rid, h.on = "0", "h", true
				l.mid, l.rid, l.on = "0", "l", true
				p.streams = append(p.streams, &l)
			})
			v := view(t, n.whep("layers"))
			got(t, v, 40, 1)
			p.edit(func() { p.streams[0].on = false }) // h stops
			got(t, v, 40, 1)
			eventually(t, "the viewer is told to get l", func() bool {
				for _, s := range n.sessions(t) {
					if s.Kind == "whep" && s.Stream == "layers" {
						return s.Layer != nil && s.Layer.RID == "l"
					}
				}
				return false
			})
			for reason, packets := range session(t, "layers").dropped {
				if packets > 0 {
					t.Errorf("%d packets were not forwarded: %s", packets, reason)
				}
			}
			if e := log.of(event.MediaDropped, "layers"); len(e) > 0 {
				t.Errorf("events of what is not forwarded: %v", e)
			}
			says(t, n.get(t, "/metrics"), `weir_media_packets_not_forwarded_total{reason="no_section"} 0`)
		})

		t.Run("a section that sends nothing", func(t *testing.T) {
			t.Parallel()
			p := publishRTP(t, n.whip("half"), true, nil)
			p.edit(func() { p.streams[1].on = true })
			eventually(t, "it is told", func() bool { return len(log.of(event.MediaStalled, "half")) > 0 })
			if e := log.of(event.MediaStalled, "half")[0]; e.Reason != "never-sent" || !strings.Contains(e.Detail, "section 0 (video, VP8)") {
				t.Errorf("told %+v", e)
			}
			if s := session(t, "half"); s.state != "stalled" {
				t.Errorf("the node says %+v", s)
			}
			p.on(true)
			eventually(t, "that it flows is told", func() bool { return len(log.of(event.MediaResumed, "half")) > 0 })
		})

		t.Run("a publisher that is killed and comes back", func(t *testing.T) {
			t.Parallel()
			first := publishRTP(t, n.whip("back"), true, nil)
			first.on(true)
			v := view(t, n.whep("back"))
			relay.finds(t, "back")
			far := view(t, relay.whep("back"))
			got(t, v, 20, 2)
			first.dead.Store(true)
			pc := newPeer(t)
			offer := strings.ReplaceAll(offerOf(t, pc, nil), "recvonly", "sendonly")
			resp, body := send(t, http.MethodPost, n.whip("back"), "application/sdp", offer, nil)
			if resp.StatusCode != http.StatusConflict {
				t.Errorf("at once: %s %s, want 409", resp.Status, body)
			}
			// This publisher never sends anything, and does not keep the name.
			began := time.Now()
			eventually(t, "the name is given to another", func() bool {
				resp, _ := send(t, http.MethodPost, n.whip("never"), "application/sdp", offer, nil)
				return resp.StatusCode == http.StatusCreated && time.Since(began) > 3*time.Second
			})
			second := publishRTP(t, n.whip("back"), true, undeclared)
			second.on(true)
			got(t, v, 30, 2)
			got(t, far, 30, 2)
			if e := log.of(event.PublisherReplaced, "back"); len(e) != 1 {
				t.Errorf("events: %v, want one of the change", e)
			}
			// The previous session has ended, and its stream has not.
			eventually(t, "one publisher is left", func() bool {
				left := 0
				for _, s := range n.sessions(t) {
					if s.Kind == "whip" && s.Stream == "back" {
						left++
					}
				}
				return left == 1
			})
			got(t, v, 30, 2)
		})
	})
}
