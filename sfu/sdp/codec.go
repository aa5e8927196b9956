package sdp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pion/webrtc/v4"
)

// Header extensions that are carried from hop to hop unread.
const (
	AudioLevel           = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"                                             // RFC 6464
	CaptureTime          = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"                           //
	DependencyDescriptor = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension" // AV1 RTP spec
	Orientation          = "urn:3gpp:video-orientation"                                                              // 3GPP TS 26.114
)

var Carried = map[webrtc.RTPCodecType][]string{
	webrtc.RTPCodecTypeAudio: {AudioLevel, CaptureTime},
	webrtc.RTPCodecTypeVideo: {CaptureTime, DependencyDescriptor, Orientation},
}

// A codec is one that weir forwards. Nothing is transcoded, so all it needs to
// know of one is how it is named.
type known struct {
	Mime     string
	clock    uint32
	channels uint16
	static   int                // payload type that means it without a=rtpmap (RFC 3551, section 6); -1: none
	fmtp     string             // on cascade links
	pt, rtx  webrtc.PayloadType // on cascade links
}

// maxSprop bounds the H264 parameter sets of an offer, in bytes of base64.
const maxSprop = 2048

// forwardable are the codecs that weir forwards. Payload types 0 to 34 are
// taken by RFC 3551.
var forwardable = []known{
	{webrtc.MimeTypeOpus, 48000, 2, -1, "minptime=10;useinbandfec=1", 111, 0},
	{webrtc.MimeTypePCMU, 8000, 1, 0, "", 0, 0},
	{webrtc.MimeTypePCMA, 8000, 1, 8, "", 8, 0},
	{webrtc.MimeTypeG722, 8000, 1, 9, "", 9, 0}, // 16 kHz, by an old mistake called 8000
	{webrtc.MimeTypeVP8, 90000, 0, -1, "", 96, 97},
	{webrtc.MimeTypeH264, 90000, 0, -1, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 98, 99},
	{webrtc.MimeTypeVP9, 90000, 0, -1, "profile-id=0", 100, 101},
	{webrtc.MimeTypeAV1, 90000, 0, -1, "", 102, 103},
}

// LinkCodecs are the codecs of a cascade link. Payloads are opaque there and the
// parent says what each is, so one payload type for each name is enough.
func LinkCodecs() []Codec {
	var all []Codec
	for _, c := range forwardable {
		o := Codec{PT: c.pt, RTX: c.rtx}
		o.MimeType, o.ClockRate, o.Channels, o.SDPFmtpLine = c.Mime, c.clock, c.channels, c.fmtp
		all = append(all, o)
	}
	return all
}

// codecNamed finds a forwardable codec by its encoding name, in any case
// (RFC 8866, section 6.6).
func codecNamed(kind webrtc.RTPCodecType, name string) (known, bool) {
	for _, c := range forwardable {
		if KindOf(c.Mime) == kind && strings.EqualFold(c.name(), name) {
			return c, true
		}
	}
	return known{}, false
}

// IsForwardable reports whether mime is a codec that weir forwards, spelled as
// weir spells it.
func IsForwardable(mime string) bool {
	kind, name, _ := strings.Cut(mime, "/")
	c, ok := codecNamed(webrtc.NewRTPCodecType(kind), name)
	return ok && c.Mime == mime
}

func (c known) name() string {
	_, name, _ := strings.Cut(c.Mime, "/")
	return name
}

// CodecNames lists what is taken of one kind, for people.
func CodecNames(kind webrtc.RTPCodecType) string {
	var names []string
	for _, c := range forwardable {
		if KindOf(c.Mime) == kind {
			names = append(names, c.name())
		}
	}
	return strings.Join(names, ", ")
}

// A Codec is one codec of a section, under the client's payload type.
type Codec struct {
	webrtc.RTPCodecCapability
	PT, RTX webrtc.PayloadType // rtx 0: no retransmissions
	rtpmap  string             // as the client spelled it; "" if it relied on RFC 3551
	Sprop   string             // H264's sprop-parameter-sets
}

// Params are c and its retransmissions as pion wants them.
func (c Codec) Params() []webrtc.RTPCodecParameters {
	all := []webrtc.RTPCodecParameters{{RTPCodecCapability: c.RTPCodecCapability, PayloadType: c.PT}}
	if c.RTX != 0 {
		all = append(all, webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeRTX, ClockRate: c.ClockRate, SDPFmtpLine: fmt.Sprintf("apt=%d", c.PT),
			},
			PayloadType: c.RTX,
		})
	}
	return all
}

var (
	feedbackVideo = []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "transport-cc"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	// Browsers do not offer nack for audio, but cascade links and our own
	// client do: a hop that loses a packet is asked for it again (without RTX,
	// RFC 4585 alone).
	feedbackAudio = []webrtc.RTCPFeedback{{Type: "transport-cc"}, {Type: "nack"}}
)

// KindOf is the kind of a codec by its MIME type.
func KindOf(mime string) webrtc.RTPCodecType {
	if len(mime) > 6 && mime[:6] == "audio/" {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// WithFeedback is c with all the feedback that weir serves or asks for.
func (c Codec) WithFeedback() Codec {
	c.RTCPFeedback = feedbackAudio
	if KindOf(c.MimeType) == webrtc.RTPCodecTypeVideo {
		c.RTCPFeedback = feedbackVideo
	}
	return c
}

// Describe names a codec for people: "H264 (profile-level-id=640028;packetization-mode=1)".
func Describe(c webrtc.RTPCodecCapability) string {
	_, name, _ := strings.Cut(c.MimeType, "/")
	var telling []string
	for _, key := range []string{"profile-level-id", "packetization-mode", "profile-id", "profile"} {
		if v := FmtpValue(c.SDPFmtpLine, key); v != "" {
			telling = append(telling, key+"="+v)
		}
	}
	if telling == nil {
		return name
	}
	return name + " (" + strings.Join(telling, ";") + ")"
}

// Preferred is the codec that a publisher's section will be held to: the first
// that it offers, but H264 in packetization mode 1, which its encoders prefer
// too. Payload types that used says mean something else in the same offer are
// passed over: in a BUNDLE group one means one thing (RFC 9143, section 10.1.2).
func (s *Section) Preferred(used map[webrtc.PayloadType]string) (Codec, bool) {
	var best Codec
	found := false
	for _, c := range s.codecs {
		if h264Mode(c.SDPFmtpLine) == 2 && c.MimeType == webrtc.MimeTypeH264 {
			continue // interleaved (RFC 6184, section 6.4): no browser takes it
		}
		if !free(used, c) {
			continue
		}
		better := c.MimeType == best.MimeType && h264Mode(best.SDPFmtpLine) != 1 && h264Mode(c.SDPFmtpLine) == 1
		if !found || better {
			best, found = c, true
		}
	}
	return best, found
}

// Match finds the codec of the section that can carry want and be decoded at
// the other end, the nearest profile first.
func (s *Section) Match(want webrtc.RTPCodecCapability, used map[webrtc.PayloadType]string) (Codec, bool) {
	best, bestScore := Codec{}, 0
	for _, c := range s.codecs {
		if score := Decodes(c.RTPCodecCapability, want, s.lenient); score > bestScore && free(used, c) {
			best, bestScore = c, score
		}
	}
	return best, bestScore > 0
}

// Decodes tells how well a decoder of have takes a stream of want: 0, not at
// all. Levels play no part: nothing is transcoded, decoders take what they can,
// and browsers offer 3.1 whatever they decode.
//
// A profile is decoded by those that contain it. All of H264's Baseline is
// taken for its constrained form, which all others contain: no encoder in use
// makes what is beyond. lenient decoders, and those that name no profile, take
// any of 8 bits and 4:2:0.
func Decodes(have, want webrtc.RTPCodecCapability, lenient bool) int {
	if !strings.EqualFold(have.MimeType, want.MimeType) || have.ClockRate != want.ClockRate {
		return 0
	}
	score := 1
	switch {
	case strings.EqualFold(want.MimeType, webrtc.MimeTypeH264):
		// A receiver in mode 1 takes what is sent in mode 0 (RFC 6184, section 6.3).
		hm, wm := h264Mode(have.SDPFmtpLine), h264Mode(want.SDPFmtpLine)
		if hm != wm && (hm != 1 || wm != 0) {
			return 0
		}
		if hm == wm {
			score += 8
		}
		h, w := h264Profile(have.SDPFmtpLine), h264Profile(want.SDPFmtpLine)
		switch {
		case h == w:
			score += 4
		case h264Contains(h, w):
			score += 2
		// A receiver that names no profile names none that it lacks: GStreamer's.
		case !lenient && FmtpValue(have.SDPFmtpLine, "profile-level-id") != "", !h264Contains(0x64, w):
			return 0
		}
		if a, b := FmtpValue(have.SDPFmtpLine, "profile-level-id"), FmtpValue(want.SDPFmtpLine, "profile-level-id"); len(a) >= 4 && len(b) >= 4 && strings.EqualFold(a[:4], b[:4]) {
			score++ // the same constraints
		}
	case strings.EqualFold(want.MimeType, webrtc.MimeTypeVP9):
		if number(have.SDPFmtpLine, "profile-id") != number(want.SDPFmtpLine, "profile-id") {
			return 0
		}
	case strings.EqualFold(want.MimeType, webrtc.MimeTypeAV1): // High contains Main, Professional both
		h, w := number(have.SDPFmtpLine, "profile"), number(want.SDPFmtpLine, "profile")
		if h < w {
			return 0
		}
		if h == w {
			score++
		}
	}
	return score
}

// h264Mode is the packetization mode; none is 0 (RFC 6184, section 8.1).
func h264Mode(fmtp string) int { return number(fmtp, "packetization-mode") }

// h264Profile is profile_idc; none is Baseline. Only the first two digits are
// looked at: FFmpeg writes seven for its constrained Baseline.
func h264Profile(fmtp string) int {
	id := FmtpValue(fmtp, "profile-level-id")
	if len(id) < 2 {
		return 0x42
	}
	n, err := strconv.ParseUint(id[:2], 16, 8)
	if err != nil {
		return 0x42
	}
	return int(n)
}

// h264Contains reports whether a decoder of profile_idc a takes b.
func h264Contains(a, b int) bool {
	// Main, High, High 10, High 4:2:2, High 4:4:4 Predictive: each contains those
	// before it (ITU-T H.264, annex A.2).
	rank := map[int]int{0x42: 0, 0x4d: 1, 0x64: 2, 0x6e: 3, 0x7a: 4, 0xf4: 5}
	ra, known := rank[a]
	rb, known2 := rank[b]
	return b == 0x42 || known && known2 && ra >= rb
}

// free reports whether c's payload type has no other meaning.
func free(used map[webrtc.PayloadType]string, c Codec) bool {
	meaning := used[c.PT]
	return meaning == "" || meaning == c.meaning()
}

func (c Codec) meaning() string { return fmt.Sprintf("%s/%d", c.MimeType, c.ClockRate) }

// Claim notes c's payload types as used; one of retransmissions that means
// something else already is given up.
func Claim(used map[webrtc.PayloadType]string, c *Codec) {
	used[c.PT] = c.meaning()
	if c.RTX == 0 {
		return
	}
	meaning := fmt.Sprintf("rtx of %d", c.PT)
	if was := used[c.RTX]; was != "" && was != meaning {
		c.RTX = 0
		return
	}
	used[c.RTX] = meaning
}

// number is a parameter of fmtp as a small number; 0 if there is none.
func number(fmtp, key string) int {
	n, err := strconv.ParseUint(FmtpValue(fmtp, key), 10, 8)
	if err != nil {
		return 0
	}
	return int(n)
}

// FmtpValue is the value of key in a format parameter line.
func FmtpValue(line, key string) string {
	for part := range strings.SplitSeq(line, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(k, key) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// withoutParameter is line less one parameter.
func withoutParameter(line, key string) string {
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		if k, _, _ := strings.Cut(strings.TrimSpace(part), "="); !strings.EqualFold(k, key) {
			kept = append(kept, part)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ";"))
}
