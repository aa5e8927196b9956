package rtc

import (
	"encoding/binary"
	"io"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"weir/sfu/congestion"
	"weir/sfu/forward"
	"weir/sfu/steering"
)

// A controller is the congestion control of one transport: it numbers the
// packets that are sent, whoever encrypts them, and reads the feedback.
type controller struct {
	estimator congestion.Estimator
	since     time.Time
	heard     func() // called after feedback; nil: nobody cares. Set before media flows
	flooded   func() // called when packets name too many SSRCs; the same
	sendOnly  bool   // RTP of the far end goes nowhere
	ssrcs     atomic.Int64
}

func (c *controller) now() time.Duration { return time.Since(c.since) }

// A stamp numbers the packets of one track in a header extension. The zero value
// numbers none.
type stamp struct {
	control *controller
	id      uint8        // of the extension
	form    forward.Form // of extensions
	number  [2]byte
}

// stamp returns that of a track, of which these extensions were negotiated.
func (c *controller) stamp(negotiated []webrtc.RTPHeaderExtensionParameter, f forward.Form) stamp {
	for _, e := range negotiated {
		if e.URI == psdp.TransportCCURI {
			return stamp{control: c, id: uint8(e.ID), form: f}
		}
	}
	return stamp{}
}

// mark numbers a packet that is about to be sent.
func (s *stamp) mark(h *rtp.Header, payload []byte) {
	if s.id == 0 {
		return
	}
	number := s.control.estimator.Sent(s.control.now(), h.MarshalSize()+len(payload))
	binary.BigEndian.PutUint16(s.number[:], number)
	s.form.Extend(h, s.id, s.number[:])
}

// feedback takes RTCP of congestion control, and reports whether b is that.
func (c *controller) feedback(b []byte) bool {
	var remb rtcp.ReceiverEstimatedMaximumBitrate
	switch {
	case congestion.IsFeedback(b):
		_ = c.estimator.Feedback(c.now(), b) // the mistakes of a far end harm only itself
	case len(b) > 16 && b[1] == byte(rtcp.TypePayloadSpecificFeedback) && string(b[12:16]) == "REMB" && remb.Unmarshal(b) == nil:
		c.estimator.REMB(c.now(), float64(remb.Bitrate))
	default:
		return false
	}
	if c.heard != nil {
		c.heard()
	}
	return true
}

// buffer is pion's BufferFactory: feedback is taken on the way into the buffer
// of RTCP. It may name any SSRC that was sent, that of retransmissions too,
// whose RTCP nobody reads. RTP of a viewer is of no use to anybody.
func (c *controller) buffer(kind packetio.BufferPacketType, _ uint32) io.ReadWriteCloser {
	if c.ssrcs.Add(1) > maxStreams && c.flooded != nil {
		c.flooded()
	}
	b := packetio.NewBuffer()
	switch {
	case kind == packetio.RTCPBufferPacket:
		b.SetLimitSize(rtcpBuffer)
		return &feedbackTap{b, c}
	case c.sendOnly:
		return discard{}
	}
	b.SetLimitSize(rtpBuffer)
	return b
}

// A discard is a buffer that keeps nothing.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Read([]byte) (int, error)    { return 0, io.EOF }
func (discard) Close() error                { return nil }

// Sizes of pion's buffers for one SSRC, in bytes.
const (
	rtpBuffer  = 1000 * 1000
	rtcpBuffer = 100 * 1000
)

// A feedbackTap is a buffer of RTCP without feedback of congestion control.
type feedbackTap struct {
	*packetio.Buffer
	control *controller
}

// Write implements io.Writer.
func (t *feedbackTap) Write(b []byte) (int, error) {
	if t.control.feedback(b) {
		return len(b), nil
	}
	return t.Buffer.Write(b)
}

// steer makes the estimate choose the layers of a viewer's video.
func (t *Client) steer() {
	control := &t.out.control
	s := &steering.Steering{Estimator: &control.estimator, Tasks: &t.tasks, Totals: &t.engine.probes, Now: control.now}
	var others []*forward.DownTrack
	for _, o := range t.outs {
		if o.Track.Codec.Kind() != forward.Video || s.Video != nil {
			others = append(others, o.DownTrack)
			continue
		}
		s.Video, s.Layers, s.Padding = o.DownTrack, o.Track.Layers, o.Padded
		s.Sent = func() int64 { return o.DownTrack.Sent().Bytes }
	}
	s.Others = func() (bytes int64) {
		for _, o := range others {
			bytes += o.Sent().Bytes
		}
		return bytes
	}
	t.steering, control.heard = s, s.Heard
	control.flooded = func() { t.end("the viewer's packets name too many SSRCs") }
}

// Congestion returns what is known of a viewer's connection, and decided for it.
func (t *Client) Congestion() (s steering.Status) {
	if t.steering != nil {
		s = t.steering.Status()
	}
	return s
}

// Tick takes note that time has passed without feedback.
func (t *Client) Tick() {
	if t.steering != nil {
		t.out.control.estimator.Tick(t.out.control.now())
		t.steering.Heard()
	}
}
