package rtc

import (
	"slices"

	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/sdp"
)

// NewMedia makes a MediaEngine of a client, with the forwarded header extensions,
// MID and that of congestion control, and without codecs.
func NewMedia() (*webrtc.MediaEngine, error) {
	return mediaWith(psdp.SDESMidURI, psdp.TransportCCURI)
}

// mediaWith makes a MediaEngine with header extensions of one hop, and those that
// are forwarded.
func mediaWith(own ...string) (*webrtc.MediaEngine, error) {
	media := &webrtc.MediaEngine{}
	for kind, uris := range sdp.ForwardedExtensions {
		for _, uri := range slices.Concat(own, uris) {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return nil, err
			}
		}
	}
	return media, nil
}

// Register adds one codec to media, and its retransmissions if it has any.
func Register(media *webrtc.MediaEngine, c sdp.Codec) error {
	for _, p := range c.WithFeedback().Params() {
		if err := media.RegisterCodec(p, sdp.KindOf(c.MimeType)); err != nil {
			return err
		}
	}
	return nil
}

// LinkMedia makes the MediaEngine of a cascade link, without congestion control:
// nothing is chosen by the estimate of a link.
func LinkMedia() (*webrtc.MediaEngine, error) {
	media, err := mediaWith(psdp.SDESMidURI)
	if err != nil {
		return nil, err
	}
	for _, c := range sdp.LinkCodecs() {
		if err := Register(media, c); err != nil {
			return nil, err
		}
	}
	return media, nil
}

// CapabilityOf returns c as a capability of pion.
func CapabilityOf(c forward.Codec) webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, SDPFmtpLine: c.Fmtp}
}

// CodecOf returns a capability of pion as the codec of a track, without RTCP
// feedback, which belongs to one hop.
func CodecOf(c webrtc.RTPCodecCapability) forward.Codec {
	return forward.Codec{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, Fmtp: c.SDPFmtpLine}
}
