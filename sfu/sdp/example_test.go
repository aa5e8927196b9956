package sdp_test

import (
	"fmt"

	"github.com/pion/webrtc/v4"

	"weir/sfu/sdp"
	"weir/sfu/sdp/sdptest"
)

// A publisher's sections are accepted with the codec that it prefers, and those
// without one that is forwarded are refused by name.
func ExampleParseOffer() {
	screen := "m=video 9 UDP/TLS/RTP/SAVPF 100\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:100 H263/90000\r\n"
	offer, err := sdp.ParseOffer([]byte(sdptest.Offer("a=group:BUNDLE 0 1 2\r\n", sdptest.Audio("0", "sendonly"), sdptest.Video("1", "sendonly"), screen)))
	if err != nil {
		fmt.Println(err)
		return
	}
	used := map[webrtc.PayloadType]string{}
	for _, section := range offer.Sections {
		if codec, ok := section.Preferred(used); ok {
			sdp.ClaimPayloadTypes(used, &codec)
			offer.Take(section, codec)
		} else {
			fmt.Println(section.NotTaken("offer one of " + sdp.CodecNames(section.Kind)))
		}
	}
	if err := offer.Settle(); err != nil {
		fmt.Println(err)
		return
	}
	for _, section := range offer.Taken {
		fmt.Println(section.Name(), sdp.Describe(section.Codec.RTPCodecCapability))
	}

	// Output:
	// no codec in common: section 2 (video, mid 2) offers H263; offer one of VP8, H264, VP9, AV1, H265
	// section 0 (audio, mid 0) opus
	// section 1 (video, mid 1) VP8
}
