package rtc

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/forward/repair"
	"weir/sfu/nack"
	"weir/sfu/sdp"
)

// A LocalTrack is a DownTrack as a [webrtc.TrackLocal] of pion.
type LocalTrack struct {
	*forward.DownTrack
	// PayloadType is the payload type that it is sent with; 0: any of the
	// track's codec. Set before it is added.
	PayloadType webrtc.PayloadType
	// Section is the index of its section in the viewer's offer.
	Section int
	// MID is that of its section, for its first packets; "": they do not say it.
	MID string
	// Mixed says that header extensions of one and two bytes may be mixed.
	Mixed bool

	stream    string // msid
	writeRTCP func([]rtcp.Packet) error
	out       *outbound
}

// Bind implements webrtc.TrackLocal.
func (l *LocalTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	all := ctx.CodecParameters()
	for _, codec := range all {
		blocks := blocksFor(l.Track.Codec.MimeType, codec)
		carries := strings.EqualFold(codec.MimeType, l.Track.Codec.MimeType) || blocks != nil && l.PayloadType != 0
		if !carries || l.PayloadType != 0 && codec.PayloadType != l.PayloadType {
			continue
		}
		b := forward.Binding{
			SSRC: uint32(ctx.SSRC()), PayloadType: uint8(codec.PayloadType),
			Extensions: map[string]uint8{},
			Repair:     slices.ContainsFunc(codec.RTCPFeedback, func(f webrtc.RTCPFeedback) bool { return f.Type == "nack" && f.Parameter == "" }),
		}
		apt := fmt.Sprintf("apt=%d", codec.PayloadType)
		for _, rtx := range all {
			// blocks does not know the payloads of retransmission packets.
			if blocks == nil && strings.EqualFold(rtx.MimeType, webrtc.MimeTypeRTX) && rtx.SDPFmtpLine == apt {
				b.RTX = repair.RTX{SSRC: uint32(ctx.SSRCRetransmission()), PayloadType: uint8(rtx.PayloadType)}
			}
		}
		l.extensions(&b, ctx.HeaderExtensions())
		stamp := l.out.control.stamp(ctx.HeaderExtensions(), b.Form)
		if b.Repair && b.RTX.PayloadType == 0 {
			// A packet is sent again under its own number, so it has to be the
			// same: two headers under one nonce would give away the key that
			// authenticates them (RFC 7714, section 8.1).
			stamp.id, b.MIDExtension = 0, 0
		}
		b.Sender = &trackSender{
			stamp: stamp,
			out:   l.out, pion: ctx.WriteStream(), writeRTCP: l.writeRTCP,
			blocks: blocks,
			ssrc:   b.SSRC, index: l.out.index(b.SSRC), rtx: l.out.index(b.RTX.SSRC),
		}
		l.DownTrack.Bind(b)
		return codec, nil
	}
	return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
}

// extensions sets how b sends header extensions, of which these are negotiated.
func (l *LocalTrack) extensions(b *forward.Binding, negotiated []webrtc.RTPHeaderExtensionParameter) {
	if l.Mixed {
		b.Form = forward.Mixed
	}
	carried := sdp.ForwardedExtensions[l.Kind()]
	for _, ext := range negotiated {
		switch {
		case slices.Contains(carried, ext.URI):
			b.Extensions[ext.URI] = uint8(ext.ID)
		case ext.URI == psdp.SDESMidURI && l.MID != "":
			b.MID, b.MIDExtension = []byte(l.MID), uint8(ext.ID)
		}
		if ext.ID > 14 && !l.Mixed {
			b.Form = forward.TwoByte // it has IDs for no other
		}
	}
}

// Unbind implements webrtc.TrackLocal.
func (l *LocalTrack) Unbind(webrtc.TrackLocalContext) error {
	l.DownTrack.Unbind()
	return nil
}

// ID implements webrtc.TrackLocal.
func (l *LocalTrack) ID() string { return l.Track.ID }

// RID implements webrtc.TrackLocal.
func (l *LocalTrack) RID() string { return "" }

// StreamID implements webrtc.TrackLocal. Tracks that share it are played in
// sync.
func (l *LocalTrack) StreamID() string { return l.stream }

// Kind implements webrtc.TrackLocal.
func (l *LocalTrack) Kind() webrtc.RTPCodecType { return sdp.KindOf(l.Track.Codec.MimeType) }

// ReadRTCP passes the RTCP of the far end to the DownTrack that current
// returns, nil for none, until sender ends.
func ReadRTCP(sender *webrtc.RTPSender, current func() *forward.DownTrack) {
	buf := make([]byte, receiveMTU)
	for {
		n, _, err := sender.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if d := current(); err == nil && d != nil {
			d.RTCP(packets, time.Now())
		}
	}
}

// A RemoteTrack reads one remote track of a cascade link and passes its packets
// to the UpTrack that is assigned now; without one, packets are dropped.
type RemoteTrack struct {
	drops    *forward.Drops
	remote   *webrtc.TrackRemote
	receiver *webrtc.RTPReceiver
	missing  *nack.Stream

	assigned atomic.Pointer[forward.UpTrack]
}

// NewRemoteTrack makes a RemoteTrack from the arguments of OnTrack. Packets
// that it does not forward are counted in drops.
func (t *Transport) NewRemoteTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver, drops *forward.Drops) *RemoteTrack {
	r := &RemoteTrack{drops: drops, remote: remote, receiver: receiver}
	// Links send all codecs again; before the first packet pion knows of none.
	r.missing = t.requests.Stream(uint32(remote.SSRC()), func(_ int, lost bool) {
		if up := r.assigned.Load(); lost && up != nil {
			up.Lack()
		}
	})
	return r
}

// SSRC returns the SSRC of the far end.
func (r *RemoteTrack) SSRC() uint32 { return uint32(r.remote.SSRC()) }

// Assign makes u receive the packets from now on; nil: drop them.
func (r *RemoteTrack) Assign(u *forward.UpTrack) { r.assigned.Store(u) }

// extensionsOf maps the header extension IDs of a receiver to their URIs.
func extensionsOf(r *webrtc.RTPReceiver) map[uint8]string {
	exts := map[uint8]string{}
	for _, e := range r.GetParameters().HeaderExtensions {
		exts[uint8(e.ID)] = e.URI
	}
	return exts
}

// ReadRTP passes packets on until the remote track ends.
func (r *RemoteTrack) ReadRTP() {
	defer r.missing.Close()
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
		if p.Unmarshal(buf[:n]) != nil {
			r.drops.Add(forward.Malformed)
			continue
		}
		seq, now := p.SequenceNumber, time.Now() // Forward may renumber p
		r.missing.Came(seq, now)
		up := r.assigned.Load()
		if up == nil {
			current = nil
			r.drops.Add(forward.Unassigned)
			continue
		}
		if up != current {
			current = up
			up.Extensions(extensionsOf(r.receiver))
		}
		out := up.Forward(&p, now)
		if out.Reason != forward.Forwarded {
			r.drops.Add(out.Reason)
		}
		if out.Keyframe {
			r.missing.Keyframe(seq)
		}
	}
}

// ReadRTCP forwards the far end's sender reports until the track ends.
func (r *RemoteTrack) ReadRTCP() {
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
