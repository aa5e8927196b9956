package rtc

import (
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/sdp"
)

// NewMedia is a MediaEngine that knows the extensions which are carried, and no
// codec yet.
func NewMedia() (*webrtc.MediaEngine, error) {
	media := &webrtc.MediaEngine{}
	for kind, uris := range sdp.Carried {
		for _, uri := range append([]string{psdp.SDESMidURI}, uris...) {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return nil, err
			}
		}
	}
	return media, nil
}

// Register adds one codec to media, and its retransmissions if there are any.
func Register(media *webrtc.MediaEngine, c sdp.Codec) error {
	for _, p := range c.WithFeedback().Params() {
		if err := media.RegisterCodec(p, sdp.KindOf(c.MimeType)); err != nil {
			return err
		}
	}
	return nil
}

// LinkMedia is what a cascade link can do.
func LinkMedia() (*webrtc.MediaEngine, error) {
	media, err := NewMedia()
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

// CapabilityOf is c as pion has it.
func CapabilityOf(c forward.Codec) webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, SDPFmtpLine: c.Fmtp}
}

// CodecOf is a codec of pion's as a track has it. Feedback is of a hop.
func CodecOf(c webrtc.RTPCodecCapability) forward.Codec {
	return forward.Codec{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, Fmtp: c.SDPFmtpLine}
}
