package client

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/keyframe"
	"weir/sfu/nack"
)

const (
	// keyframePatience is how long a viewer waits for a keyframe before each
	// request: a server should have requested one long before.
	keyframePatience = 500 * time.Millisecond
	// readSize exceeds any RTP packet that crosses the internet unfragmented,
	// in bytes.
	readSize = 2048
)

// TrackInfo describes a track that a viewer receives.
type TrackInfo struct {
	Kind  string // audio or video
	Codec string // such as video/VP8
	Clock uint32 // RTP timestamp units per second
	SSRC  uint32
	MID   string
}

// ViewConfig configures [View].
type ViewConfig struct {
	URL   string // WHEP endpoint, http or https
	Token string // for URL's server alone; "": none

	NoAudio, NoVideo bool         // do not offer to receive it
	HTTP             *http.Client // nil: one of its own. Its redirect policy is not used
	Wait             time.Duration
	Silence          time.Duration // after which the server counts as lost; 0: 8 s
	TCP              bool          // media over TCP only (RFC 6544), where UDP is blocked
	Log              *slog.Logger  // nil: discarded

	// OnRTP, if not nil, is called with each packet and its arrival time,
	// duplicates included: for each track from one goroutine, in order of
	// arrival. The packet belongs to the viewer and is only valid during the
	// call. A viewer cannot be closed from within.
	OnRTP func(track TrackInfo, packet *rtp.Packet, arrival time.Time)
}

// Viewer receives a stream from a WHEP endpoint and measures it, without
// decoding. Close ends the session and waits for its goroutines; it may be
// called more than once.
type Viewer struct {
	*peer
	cfg        ViewConfig
	firstFrame chan struct{}
	requests   *nack.Requester
	video      bool // the server may send it; set before media flows

	tracksMu sync.Mutex
	tracks   []*inTrack
	framed   bool // firstFrame is closed
}

// inTrack is one received track.
type inTrack struct {
	TrackInfo
	captureID uint8
	missing   *nack.Stream // nil: lost packets may not be requested

	mu      sync.Mutex
	stats   TrackStats
	seq     sequence
	highest uint16 // sequence number of the newest packet
	stamp   uint32 // its timestamp
	arrival time.Time
	key     keyProgress
	latency histogram
	sync    senderSync
}

// View offers to receive and returns when media can flow; media is received
// from then on. ctx bounds only the offer and the setup of the connection. The
// errors are those of [Publish].
func View(ctx context.Context, cfg ViewConfig) (*Viewer, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	base, err := newPeer(viewable(), true, cfg.TCP, cfg.Silence)
	if err != nil {
		return nil, err
	}
	v := &Viewer{peer: base, cfg: cfg, firstFrame: make(chan struct{}), requests: nack.NewRequester(base.pc.WriteRTCP)}
	if err := v.negotiate(ctx, u); err != nil {
		_ = v.Close()
		return nil, fmt.Errorf("view: %w", err)
	}
	if v.video {
		v.start(v.askKeyframes)
	}
	return v, nil
}

func (v *Viewer) negotiate(ctx context.Context, u *url.URL) error {
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if kind == webrtc.RTPCodecTypeAudio && v.cfg.NoAudio || kind == webrtc.RTPCodecTypeVideo && v.cfg.NoVideo {
			continue
		}
		init := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
		if _, err := v.pc.AddTransceiverFromKind(kind, init); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	v.pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		v.start(func() { v.receive(remote, receiver) })
	})
	offer, err := v.offer(ctx)
	if err != nil {
		return err
	}
	if v.session, err = negotiate(ctx, withToken(httpClient(v.cfg.HTTP), u, v.cfg.Token), u, offer, v.cfg.Wait, v.cfg.Log); err != nil {
		return err
	}
	v.video = sendsVideo(v.session.answer)
	return v.establish(ctx)
}

// receive reads remote until the connection is closed.
func (v *Viewer) receive(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	t := &inTrack{TrackInfo: TrackInfo{
		Kind:  remote.Kind().String(),
		Codec: remote.Codec().MimeType,
		Clock: remote.Codec().ClockRate,
		SSRC:  uint32(remote.SSRC()),
	}}
	for _, tr := range v.pc.GetTransceivers() {
		if tr.Receiver() == receiver {
			t.MID = tr.Mid()
		}
	}
	for _, x := range receiver.GetParameters().HeaderExtensions {
		if x.URI == AbsCaptureTime {
			t.captureID = uint8(x.ID)
		}
	}
	if slices.Contains(remote.Codec().RTCPFeedback, webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBNACK}) {
		t.missing = v.requests.Stream(t.SSRC, t.requested)
		defer t.missing.Close()
	}
	t.stats = TrackStats{Kind: t.Kind, Codec: t.Codec, SSRC: t.SSRC}
	v.tracksMu.Lock()
	v.tracks = append(v.tracks, t)
	v.tracksMu.Unlock()
	v.start(func() { v.listen(t, receiver) })

	buf := make([]byte, readSize)
	var packet rtp.Packet
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		if err := packet.Unmarshal(buf[:n]); err != nil {
			continue // counted as lost
		}
		t.missing.Came(packet.SequenceNumber, now)
		if t.observe(&packet, now, v.since(now)) {
			v.frame(t)
		}
		if v.cfg.OnRTP != nil {
			v.cfg.OnRTP(t.TrackInfo, &packet, now)
		}
	}
}

// requested counts packets requested by NACK.
func (t *inTrack) requested(packets int, _ bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stats.NACKs += uint64(packets)
}

// observe counts packet, which arrived at now, which is at since the POST. It
// reports whether it completes the track's first frame that can be decoded on
// its own.
func (t *inTrack) observe(packet *rtp.Packet, now time.Time, at time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.stats.Packets == 0
	resets := t.seq.resets
	if !t.seq.observe(packet.SequenceNumber) {
		t.stats.Duplicates++
		return false
	}
	t.stats.Packets++
	t.stats.Bytes += uint64(len(packet.Payload))
	t.stats.FirstPacket = earlier(t.stats.FirstPacket, at)
	if !first {
		t.stats.LongestGap = max(t.stats.LongestGap, now.Sub(t.arrival))
	}
	t.arrival, t.stats.LastPacket = now, at
	if t.captureID != 0 {
		var stamp rtp.AbsCaptureTimeExtension
		if stamp.Unmarshal(packet.GetExtension(t.captureID)) == nil {
			t.latency.observe(now.Sub(stamp.CaptureTime()))
		}
	}

	if first || t.seq.resets != resets || int16(packet.SequenceNumber-t.highest) > 0 {
		t.newest(packet, now, first)
	}
	if len(packet.Payload) == 0 {
		return false // padding, of no frame
	}
	return t.frame(packet, at)
}

// newest records a packet later than all before.
func (t *inTrack) newest(packet *rtp.Packet, now time.Time, first bool) {
	if first || packet.Timestamp != t.stamp {
		t.sync.arrived(packet.Timestamp, now, t.Clock)
		if !first && int32(packet.Timestamp-t.stamp) < 0 {
			t.stats.Backwards++
		}
	}
	t.highest, t.stamp = packet.SequenceNumber, packet.Timestamp
}

// frame counts frames and reports whether packet completes the first that can
// be decoded on its own.
func (t *inTrack) frame(packet *rtp.Packet, at time.Duration) bool {
	if t.Kind == "audio" {
		if t.stats.Frames++; t.stats.Frames > 1 {
			return false
		}
		t.stats.FirstKeyframe, t.stats.FirstFrame = at, at
		return true
	}
	if packet.Marker {
		t.stats.Frames++
	}
	if t.key.observe(packet, keyframe.Is(t.Codec, packet.Payload)) {
		t.stats.Keyframes++
		t.stats.FirstKeyframe = earlier(t.stats.FirstKeyframe, at)
	}
	if t.stats.FirstFrame == 0 && t.key.complete(&t.seq) {
		t.stats.FirstFrame = at
		return true
	}
	return false
}

// keyProgress tracks the packets of the newest keyframe.
type keyProgress struct {
	started   bool
	stamp     uint32
	start     uint16 // sequence number of its first packet
	marked    bool
	mark      uint16 // sequence number of the last marker seen
	markStamp uint32
}

// observe records a packet that has not been seen before; key reports that a
// keyframe begins in it. It returns whether that is another keyframe than the
// one before.
func (k *keyProgress) observe(p *rtp.Packet, key bool) bool {
	if p.Marker {
		k.marked, k.mark, k.markStamp = true, p.SequenceNumber, p.Timestamp
	}
	if !key || k.started && int32(p.Timestamp-k.stamp) <= 0 {
		return false
	}
	k.started, k.stamp, k.start = true, p.Timestamp, p.SequenceNumber
	return true
}

// complete reports whether seq has seen every packet of the keyframe.
func (k *keyProgress) complete(seq *sequence) bool {
	return k.started && k.marked && k.markStamp == k.stamp && seq.hasAll(k.start, k.mark)
}

// frame closes firstFrame if t is of the awaited kind: video, if any is
// expected.
func (v *Viewer) frame(t *inTrack) {
	if t.Kind == "audio" && v.video {
		return
	}
	v.tracksMu.Lock()
	defer v.tracksMu.Unlock()
	if !v.framed {
		v.framed = true
		close(v.firstFrame)
	}
}

// sendsVideo reports whether an answer lets the server send video.
func sendsVideo(answer string) bool {
	var d sdp.SessionDescription
	if d.UnmarshalString(answer) != nil {
		return false
	}
	for _, m := range d.MediaDescriptions {
		_, inactive := m.Attribute("inactive")
		_, recvonly := m.Attribute("recvonly")
		if m.MediaName.Media == "video" && m.MediaName.Port.Value != 0 && !inactive && !recvonly {
			return true
		}
	}
	return false
}

// listen reads sender reports of t until the connection is closed.
func (v *Viewer) listen(t *inTrack, receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			if sr, ok := packet.(*rtcp.SenderReport); ok && sr.SSRC == t.SSRC {
				t.mu.Lock()
				t.sync.report(sr)
				t.mu.Unlock()
			}
		}
	}
}

// askKeyframes sends a PLI for each video track that has no complete keyframe
// keyframePatience after its first packet, and again until it has.
func (v *Viewer) askKeyframes() {
	tick := time.NewTicker(keyframePatience)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-v.firstFrame:
			return
		case <-v.done:
			return
		}
		v.tracksMu.Lock()
		var asked []rtcp.Packet
		for _, t := range v.tracks {
			t.mu.Lock()
			if t.Kind == "video" && t.stats.FirstFrame == 0 {
				t.stats.PLIs++
				asked = append(asked, &rtcp.PictureLossIndication{MediaSSRC: t.SSRC})
			}
			t.mu.Unlock()
		}
		v.tracksMu.Unlock()
		if len(asked) > 0 {
			_ = v.pc.WriteRTCP(asked) // sent again at the next tick
		}
	}
}

// Stats returns the totals received so far.
func (v *Viewer) Stats() Stats {
	s := v.stats(time.Now())
	v.tracksMu.Lock()
	defer v.tracksMu.Unlock()
	var all histogram
	var audio, video *senderSync
	for _, t := range v.tracks {
		t.mu.Lock()
		defer t.mu.Unlock()
		stats := t.stats
		stats.Lost, stats.Resets = t.seq.lost(), t.seq.resets
		stats.Latency = t.latency.latency()
		all.add(&t.latency)
		s.Tracks = append(s.Tracks, stats)
		if t.Kind == "audio" {
			audio = &t.sync
		} else {
			video = &t.sync
		}
	}
	s.Latency = all.latency()
	s.Skew = skew(video, audio)
	s.total()
	return s
}

// FirstFrame is closed once the first frame that can be decoded on its own is
// complete: of video, or of audio where there is no video.
func (v *Viewer) FirstFrame() <-chan struct{} { return v.firstFrame }

// NodeURL returns the URL where the offer was accepted, after redirects.
func (v *Viewer) NodeURL() string { return v.session.url() }

// Done is closed once the connection has failed or been closed by either side.
func (v *Viewer) Done() <-chan struct{} { return v.done }

// Close ends the session. The error reports that the DELETE to the server
// failed.
func (v *Viewer) Close() error {
	err := v.close()
	v.requests.Close()
	return err
}

// senderSync maps a track's packets to the sender's clock by its sender reports
// (RFC 3550 §6.4.1), and averages their transit time.
type senderSync struct {
	known   bool
	ntp     time.Time // NTP time of the last report, by the sender's clock
	rtp     uint32
	fresh   bool          // transit holds a value
	transit time.Duration // arrival minus sender's time, smoothed over about 16 frames
}

func (s *senderSync) report(sr *rtcp.SenderReport) {
	s.known = true
	s.ntp = rtp.AbsCaptureTimeExtension{Timestamp: sr.NTPTime}.CaptureTime()
	s.rtp = sr.RTPTime
}

// arrived records the first packet of a frame.
func (s *senderSync) arrived(stamp uint32, now time.Time, clock uint32) {
	if !s.known || clock == 0 {
		return
	}
	since := time.Duration(int64(int32(stamp-s.rtp)) * int64(time.Second) / int64(clock))
	transit := now.Sub(s.ntp.Add(since))
	if !s.fresh {
		s.fresh, s.transit = true, transit
		return
	}
	s.transit += (transit - s.transit) / 16
}

// skew returns how much later video arrives than audio of the same time.
func skew(video, audio *senderSync) *time.Duration {
	if video == nil || audio == nil || !video.fresh || !audio.fresh {
		return nil
	}
	d := video.transit - audio.transit
	return &d
}
