package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

const (
	// packetSize bounds RTP payloads, in bytes, so that a packet with its
	// header, extensions, RTX number and SRTP tag stays below 1,280 bytes with
	// IP and UDP.
	packetSize = 1160
	// keyframeInterval is the least time between two keyframes sent on request:
	// a request within it is answered at its end.
	keyframeInterval = 100 * time.Millisecond
	reportInterval   = time.Second
	// maxLag is the longest delay behind the clip's clock that a publisher
	// makes up in a burst. After a longer one, the clip pauses.
	maxLag = 500 * time.Millisecond
	// tick separates the timestamps of video when a keyframe is sent early.
	tick = time.Millisecond
)

// ErrConnectionLost means that media stopped flowing after it had begun: the
// server closed the session or has fallen silent.
var ErrConnectionLost = errors.New("connection lost")

// PublishConfig configures [Publish].
type PublishConfig struct {
	URL   string  // WHIP endpoint, http or https
	Token string  // for URL's server alone; "": none
	Media *Source // one Source may be shared by many Publishers

	HTTP    *http.Client  // nil: one of its own. Its redirect policy is not used
	Wait    time.Duration // how long the offer is repeated after a 409 or 503
	Silence time.Duration // after which the server counts as lost; 0: 8 s
	TCP     bool          // media over TCP only (RFC 6544), where UDP is blocked
	Log     *slog.Logger  // nil: discarded
}

// Publisher sends a Source to a WHIP endpoint. Close ends the session, which
// makes Run return, and waits for the Publisher's goroutines; it may be called
// more than once, from any goroutine.
type Publisher struct {
	*peer
	src    *Source
	tracks []*outTrack
	log    *slog.Logger
	wake   chan struct{} // buffers one: a keyframe was requested
	asked  atomic.Bool   // a keyframe was requested and not sent yet
}

// outTrack is one sent track. Run's loop owns the fields above mu.
type outTrack struct {
	kind      string
	local     *webrtc.TrackLocalStaticRTP
	sender    *webrtc.RTPSender
	payloader rtp.Payloader
	clock     uint32
	ssrc      uint32
	seq       uint16
	base      uint32 // RTP timestamp of the time 0 of the timeline
	mid       []byte
	midID     uint8 // header extension numbers, 0: not negotiated
	captureID uint8

	mu    sync.Mutex
	stats TrackStats
	acked bool
}

// Publish offers cfg.Media and returns when media can flow; [Publisher.Run]
// sends it. ctx bounds only the offer and the setup of the connection.
//
// The error is a *[Refused], or wraps [ErrBadURL], [ErrNoConnection],
// [ErrBadAnswer], or the error of ctx.
func Publish(ctx context.Context, cfg PublishConfig) (*Publisher, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var offered []webrtc.RTPCodecParameters
	for _, t := range cfg.Media.tracks {
		if t.video() {
			offered = append(offered, withRTX(t.codec, 96, 97)...)
		} else {
			offered = append(offered, webrtc.RTPCodecParameters{RTPCodecCapability: t.codec, PayloadType: 111})
		}
	}
	base, err := newPeer(offered, false, cfg.TCP, cfg.Silence)
	if err != nil {
		return nil, err
	}
	p := &Publisher{peer: base, src: cfg.Media, log: cfg.Log, wake: make(chan struct{}, 1)}
	if err := p.negotiate(ctx, u, cfg); err != nil {
		p.close()
		return nil, fmt.Errorf("publish: %w", err)
	}
	for _, t := range p.tracks {
		p.start(func() { p.listen(t) })
	}
	return p, nil
}

func (p *Publisher) negotiate(ctx context.Context, u *url.URL, cfg PublishConfig) error {
	for _, t := range cfg.Media.tracks {
		out, err := p.addTrack(t)
		if err != nil {
			return err
		}
		p.tracks = append(p.tracks, out)
	}
	offer, err := p.offer(ctx)
	if err != nil {
		return err
	}
	if p.session, err = negotiate(ctx, withToken(httpClient(cfg.HTTP), u, cfg.Token), u, offer, cfg.Wait, cfg.Log); err != nil {
		return err
	}
	if err := p.establish(ctx); err != nil {
		return err
	}
	for _, t := range p.tracks {
		t.negotiated(p.pc)
	}
	return nil
}

func (p *Publisher) addTrack(t clipTrack) (*outTrack, error) {
	out := &outTrack{
		kind:  "audio",
		clock: t.codec.ClockRate,
		seq:   uint16(rand.Uint32()),
		base:  rand.Uint32(),
	}
	if t.video() {
		out.kind = "video"
	}
	switch strings.ToLower(t.codec.MimeType) {
	case "video/vp8":
		out.payloader = &codecs.VP8Payloader{EnablePictureID: true}
	case "video/vp9":
		out.payloader = &codecs.VP9Payloader{}
	case "video/h264":
		out.payloader = &codecs.H264Payloader{}
	case "video/av1":
		out.payloader = &codecs.AV1Payloader{}
	default:
		out.payloader = &codecs.OpusPayloader{}
	}
	var err error
	if out.local, err = webrtc.NewTrackLocalStaticRTP(t.codec, out.kind, "weir"); err != nil {
		return nil, fmt.Errorf("%s track: %w", out.kind, err)
	}
	transceiver, err := p.pc.AddTransceiverFromTrack(out.local, webrtc.RTPTransceiverInit{
		Direction: webrtc.RTPTransceiverDirectionSendonly,
	})
	if err != nil {
		return nil, fmt.Errorf("%s track: %w", out.kind, err)
	}
	out.sender = transceiver.Sender()
	out.ssrc = uint32(out.sender.GetParameters().Encodings[0].SSRC)
	out.stats = TrackStats{Kind: out.kind, Codec: t.codec.MimeType, SSRC: out.ssrc}
	return out, nil
}

// negotiated reads the negotiated parameters of the answer.
func (t *outTrack) negotiated(pc *webrtc.PeerConnection) {
	for _, x := range t.sender.GetParameters().HeaderExtensions {
		switch x.URI {
		case AbsCaptureTime:
			t.captureID = uint8(x.ID)
		case midURI:
			t.midID = uint8(x.ID)
		}
	}
	for _, tr := range pc.GetTransceivers() {
		if tr.Sender() == t.sender {
			t.mid = []byte(tr.Mid())
		}
	}
}

// Run sends the clip, again and again, until ctx ends or a clip played Once is
// over, which is no error. It returns the context's error, or one that wraps
// [ErrConnectionLost]. It is called once.
func (p *Publisher) Run(ctx context.Context) error {
	var (
		line     = newTimeline(p.src)
		start    = time.Now()
		lastJump = -keyframeInterval // when a keyframe was last sent on request
		lastSent = -tick             // due time of the video frame sent last
		report   time.Duration       // time of the next sender reports
		timer    = time.NewTimer(0)
	)
	defer timer.Stop()
	for {
		now := time.Since(start)
		track, f, due, ok := line.peek()
		if !ok {
			return nil
		}
		if now-due > maxLag {
			line.delay(now - due)
			continue
		}
		if due <= now {
			t := p.tracks[track]
			if t.kind == "video" {
				lastSent = due
				if f.key {
					p.asked.Store(false) // all requests so far are served
				}
			}
			t.send(f, due, p.since)
			line.advance(track)
			continue
		}
		if now >= lastJump+keyframeInterval && p.asked.Swap(false) &&
			// Without a keyframe in the clip, a request cannot be answered.
			line.jump(max(now, lastSent+tick)) {
			lastJump = now
			continue
		}
		if now >= report {
			p.report(start, now)
			report = now + reportInterval
		}
		next := min(due, report)
		if p.asked.Load() {
			next = min(next, lastJump+keyframeInterval)
		}
		timer.Reset(next - now)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.done:
			return fmt.Errorf("publish: %w", ErrConnectionLost)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send packetises f, due at that time of the timeline, and sends it.
func (t *outTrack) send(f frame, due time.Duration, since func(time.Time) time.Duration) {
	payloads := t.payloader.Payload(packetSize, f.data)
	header := rtp.Header{Version: 2, Timestamp: t.base + rtpTicks(due, t.clock)}
	bytes := 0
	for i, payload := range payloads {
		header.SequenceNumber = t.seq
		header.Marker = t.kind == "video" && i == len(payloads)-1
		header.Extension, header.Extensions = false, nil
		if t.midID != 0 {
			header.SetExtension(t.midID, t.mid)
		}
		if t.captureID != 0 {
			stamp, _ := rtp.NewAbsCaptureTimeExtension(time.Now()).Marshal()
			header.SetExtension(t.captureID, stamp)
		}
		// A packet that cannot be sent is lost, as it might be later on the
		// way; the state of the connection shows that it is gone.
		_ = t.local.WriteRTP(&rtp.Packet{Header: header, Payload: payload})
		t.seq++
		bytes += len(payload)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	at := since(time.Now())
	t.stats.FirstPacket = earlier(t.stats.FirstPacket, at)
	if f.key {
		t.stats.FirstKeyframe = earlier(t.stats.FirstKeyframe, at)
		t.stats.FirstFrame = earlier(t.stats.FirstFrame, at)
		if t.kind == "video" {
			t.stats.Keyframes++
		}
	}
	t.stats.Frames++
	t.stats.Packets += uint64(len(payloads))
	t.stats.Bytes += uint64(bytes)
}

// report sends a sender report for each track. All have the same NTP time and
// each track's timestamp at that time, from the timeline's clock: delays in
// sending a frame have no influence, so receivers can align tracks exactly.
func (p *Publisher) report(start time.Time, now time.Duration) {
	ntp := rtp.NewAbsCaptureTimeExtension(start.Add(now)).Timestamp
	for _, t := range p.tracks {
		t.mu.Lock()
		sr := &rtcp.SenderReport{
			SSRC:        t.ssrc,
			NTPTime:     ntp,
			RTPTime:     t.base + rtpTicks(now, t.clock),
			PacketCount: uint32(t.stats.Packets),
			OctetCount:  uint32(t.stats.Bytes),
		}
		t.mu.Unlock()
		// As for packets; the next report follows a second later.
		_ = p.pc.WriteRTCP([]rtcp.Packet{sr, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
			Source: t.ssrc,
			Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "weir"}},
		}}}})
	}
}

// listen reads the server's RTCP for t until the connection is closed. The
// NACKs it sees have been answered by then.
func (p *Publisher) listen(t *outTrack) {
	for {
		packets, _, err := t.sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet := packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				t.mu.Lock()
				t.stats.PLIs++
				t.mu.Unlock()
				p.askKeyframe()
			case *rtcp.TransportLayerNack:
				t.mu.Lock()
				for _, pair := range packet.Nacks {
					t.stats.NACKs += uint64(len(pair.PacketList()))
				}
				t.mu.Unlock()
			case *rtcp.ReceiverReport:
				t.received(packet.Reports, time.Now())
			}
		}
	}
}

// received records receiver reports received at now.
func (t *outTrack) received(reports []rtcp.ReceptionReport, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range reports {
		if r.SSRC != t.ssrc {
			continue
		}
		t.acked = true
		t.stats.Lost = uint64(max(0, int32(r.TotalLost<<8)>>8)) // 24 bits, signed
		if r.LastSenderReport != 0 {
			// RFC 3550 §6.4.1, in units of 1/65536 s.
			ntp := uint32(rtp.NewAbsCaptureTimeExtension(now).Timestamp >> 16)
			if rtt := int32(ntp - r.LastSenderReport - r.Delay); rtt >= 0 {
				t.stats.RTT = Millis(time.Duration(rtt) * time.Second / 65536)
			}
		}
	}
}

func (p *Publisher) askKeyframe() {
	p.asked.Store(true)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Stats returns the totals sent so far.
func (p *Publisher) Stats() Stats {
	s := p.stats(time.Now())
	for _, t := range p.tracks {
		t.mu.Lock()
		s.Tracks = append(s.Tracks, t.stats)
		s.Acked = s.Acked || t.acked
		t.mu.Unlock()
	}
	s.total()
	return s
}

// NodeURL returns the URL where the offer was accepted, after redirects.
func (p *Publisher) NodeURL() string { return p.session.url() }

// Done is closed once the connection has failed or been closed by either side.
func (p *Publisher) Done() <-chan struct{} { return p.done }

// Close ends the session. The error reports that the DELETE to the server
// failed.
func (p *Publisher) Close() error { return p.close() }
