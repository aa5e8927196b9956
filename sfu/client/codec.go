package client

import (
	"fmt"

	"github.com/pion/webrtc/v4"
)

// withRTX returns codec under pt, and the repair codec that goes with it.
func withRTX(codec webrtc.RTPCodecCapability, pt, rtx webrtc.PayloadType) []webrtc.RTPCodecParameters {
	return []webrtc.RTPCodecParameters{
		{RTPCodecCapability: codec, PayloadType: pt},
		{RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: codec.ClockRate, SDPFmtpLine: fmt.Sprintf("apt=%d", pt),
		}, PayloadType: rtx},
	}
}

// viewable returns the codecs that a viewer offers: those of browsers, with
// Chromium's payload types where possible.
func viewable() []webrtc.RTPCodecParameters {
	h264 := func(profile, mode string) webrtc.RTPCodecCapability {
		return videoCodec(webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode="+mode+";profile-level-id="+profile)
	}
	list := []webrtc.RTPCodecParameters{{RTPCodecCapability: opusCodec(), PayloadType: 111}}
	for _, a := range []struct {
		mime string
		pt   webrtc.PayloadType
	}{{webrtc.MimeTypeG722, 9}, {webrtc.MimeTypePCMU, 0}, {webrtc.MimeTypePCMA, 8}} {
		list = append(list, webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: a.mime, ClockRate: 8000, RTCPFeedback: opusCodec().RTCPFeedback},
			PayloadType:        a.pt,
		})
	}
	for _, v := range []struct {
		codec   webrtc.RTPCodecCapability
		pt, rtx webrtc.PayloadType
	}{
		{videoCodec(webrtc.MimeTypeVP8, ""), 96, 97},
		{h264("42001f", "1"), 102, 103},
		{h264("42001f", "0"), 104, 105},
		{h264("42e01f", "1"), 106, 107},
		{h264("42e01f", "0"), 108, 109},
		{h264("4d001f", "1"), 127, 125},
		{h264("4d001f", "0"), 39, 40},
		{h264("64001f", "1"), 112, 113},
		{videoCodec(webrtc.MimeTypeAV1, ""), 45, 46},
		{videoCodec(webrtc.MimeTypeVP9, "profile-id=0"), 98, 99},
		{videoCodec(webrtc.MimeTypeVP9, "profile-id=2"), 100, 101},
	} {
		list = append(list, withRTX(v.codec, v.pt, v.rtx)...)
	}
	return list
}
