package sfu

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/sdp"
)

// capabilityOf is c as pion has it.
func capabilityOf(c forward.Codec) webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, SDPFmtpLine: c.Fmtp}
}

// codecOf is a codec of pion's as a track has it. Feedback is of a hop.
func codecOf(c webrtc.RTPCodecCapability) forward.Codec {
	return forward.Codec{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, Fmtp: c.SDPFmtpLine}
}

// A localTrack is a DownTrack as pion wants it, a [webrtc.TrackLocal].
type localTrack struct {
	*forward.DownTrack
	stream string             // msid
	pt     webrtc.PayloadType // a viewer's section's; 0: any of the track's codec
	// writeRTCP sends on the PeerConnection.
	writeRTCP func([]rtcp.Packet) error
}

// newLocalTrack sends t, whose repairs are counted in repairs.
func newLocalTrack(t *forward.Track, stream string, writeRTCP func([]rtcp.Packet) error, repairs *forward.Repairs) *localTrack {
	d := forward.NewDownTrack(t)
	d.Repairs = repairs
	return &localTrack{DownTrack: d, stream: stream, writeRTCP: writeRTCP}
}

// A localSender is where pion takes a localTrack's packets.
type localSender struct {
	writer    webrtc.TrackLocalWriter
	writeRTCP func([]rtcp.Packet) error
}

func (s localSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	return s.writer.WriteRTP(h, payload)
}
func (s localSender) WriteRTCP(packets []rtcp.Packet) error { return s.writeRTCP(packets) }

// Bind implements webrtc.TrackLocal.
func (l *localTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	all := ctx.CodecParameters()
	for _, codec := range all {
		if !strings.EqualFold(codec.MimeType, l.Track.Codec.MimeType) || l.pt != 0 && codec.PayloadType != l.pt {
			continue
		}
		b := forward.Binding{
			Sender: localSender{ctx.WriteStream(), l.writeRTCP}, SSRC: uint32(ctx.SSRC()), PayloadType: uint8(codec.PayloadType),
			Extensions: map[string]uint8{},
			Repair:     slices.ContainsFunc(codec.RTCPFeedback, func(f webrtc.RTCPFeedback) bool { return f.Type == "nack" && f.Parameter == "" }),
		}
		apt := fmt.Sprintf("apt=%d", codec.PayloadType)
		for _, rtx := range all {
			if strings.EqualFold(rtx.MimeType, webrtc.MimeTypeRTX) && rtx.SDPFmtpLine == apt {
				b.RTX = forward.RTX{SSRC: uint32(ctx.SSRCRetransmission()), PayloadType: uint8(rtx.PayloadType)}
			}
		}
		carried := sdp.Carried[l.Kind()]
		for _, ext := range ctx.HeaderExtensions() {
			if slices.Contains(carried, ext.URI) {
				b.Extensions[ext.URI] = uint8(ext.ID)
			}
		}
		l.DownTrack.Bind(b)
		return codec, nil
	}
	return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
}

// Unbind implements webrtc.TrackLocal.
func (l *localTrack) Unbind(webrtc.TrackLocalContext) error {
	l.DownTrack.Unbind()
	return nil
}

// ID implements webrtc.TrackLocal.
func (l *localTrack) ID() string { return l.Track.ID }

// RID implements webrtc.TrackLocal.
func (l *localTrack) RID() string { return "" }

// StreamID implements webrtc.TrackLocal. Tracks that share it are played in
// sync.
func (l *localTrack) StreamID() string { return l.stream }

// Kind implements webrtc.TrackLocal.
func (l *localTrack) Kind() webrtc.RTPCodecType { return sdp.KindOf(l.Track.Codec.MimeType) }

// readRTCP hands the RTCP of the far end to the DownTrack that current returns,
// until r ends.
func readRTCP(r io.Reader, current func() *forward.DownTrack) {
	buf := make([]byte, receiveMTU)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if d := current(); err == nil && d != nil {
			d.RTCP(packets, time.Now())
		}
	}
}

// senderReader adapts a pion sender's RTCP to io.Reader.
type senderReader struct{ *webrtc.RTPSender }

func (s senderReader) Read(b []byte) (int, error) {
	n, _, err := s.RTPSender.Read(b)
	return n, err
}

// A remoteTrack reads one remote track of a cascade link and feeds the UpTrack
// that it is assigned to at the moment; none, and the packets are dropped.
type remoteTrack struct {
	drops    *forward.Drops
	ssrc     atomic.Uint32 // remote's; 0 until it is there
	remote   *webrtc.TrackRemote
	receiver *webrtc.RTPReceiver

	assigned atomic.Pointer[forward.UpTrack]
}

// extensionsOf maps the header extension IDs of a receiver to their URIs.
func extensionsOf(r *webrtc.RTPReceiver) map[uint8]string {
	exts := map[uint8]string{}
	for _, e := range r.GetParameters().HeaderExtensions {
		exts[uint8(e.ID)] = e.URI
	}
	return exts
}

// readRTP feeds packets until the remote track ends.
func (r *remoteTrack) readRTP() {
	buf := make([]byte, receiveMTU)
	var (
		p       rtp.Packet
		current *forward.UpTrack
	)
	for {
		n, _, err := r.remote.Read(buf)
		if err != nil {
			return
		}
		up := r.assigned.Load()
		if up == nil {
			current = nil
			r.drops.Add(forward.Unassigned)
			continue
		}
		if p.Unmarshal(buf[:n]) != nil {
			r.drops.Add(forward.Malformed)
			continue
		}
		if up != current {
			current = up
			up.Extensions(extensionsOf(r.receiver))
		}
		if out := up.Forward(&p, time.Now()); out.Reason != forward.Forwarded {
			r.drops.Add(out.Reason)
		}
	}
}

// readRTCP passes the far end's sender reports on until the track ends.
func (r *remoteTrack) readRTCP() {
	buf := make([]byte, receiveMTU)
	for {
		n, _, err := r.receiver.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		up := r.assigned.Load()
		if err != nil || up == nil {
			continue
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == uint32(r.remote.SSRC()) {
				up.SenderReport(sr, time.Now())
			}
		}
	}
}

// askKeyframe sends one picture loss indication (RFC 4585, section 6.3.1) for
// each of ssrcs, and reports whether the connection was up to send it.
func askKeyframe(pc *webrtc.PeerConnection, ssrcs ...uint32) bool {
	if pc.ConnectionState() != webrtc.PeerConnectionStateConnected {
		return false
	}
	var ask []rtcp.Packet
	for _, ssrc := range ssrcs {
		ask = append(ask, &rtcp.PictureLossIndication{MediaSSRC: ssrc})
	}
	return pc.WriteRTCP(ask) == nil
}
