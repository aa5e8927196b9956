package sdp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pion/webrtc/v4"
)

// Header extensions that are forwarded from hop to hop unread.
const (
	AudioLevel           = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"                                             // RFC 6464
	CaptureTime          = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"                           //
	DependencyDescriptor = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension" // AV1 RTP spec
	Orientation          = "urn:3gpp:video-orientation"                                                              // 3GPP TS 26.114
	PlayoutDelay         = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"                              //
	ColorSpace           = "http://www.webrtc.org/experiments/rtp-hdrext/color-space"                                //
)

// ForwardedExtensions are the header extensions that go on to viewers and links.
var ForwardedExtensions = map[webrtc.RTPCodecType][]string{
	webrtc.RTPCodecTypeAudio: {AudioLevel, CaptureTime},
	webrtc.RTPCodecTypeVideo: {CaptureTime, DependencyDescriptor, Orientation, PlayoutDelay, ColorSpace},
}

// A known codec is one that weir forwards. Nothing is transcoded, so the name
// of a codec suffices.
type known struct {
	Mime     string
	clock    uint32
	channels uint16             // of cascade links, and of every stream unless it is multiopus
	static   int                // static payload type, without a=rtpmap (RFC 3551, section 6); -1: none
	fmtp     string             // on cascade links
	pt, rtx  webrtc.PayloadType // on cascade links
}

const (
	// maxSprop bounds the parameter sets of an offer, in bytes of base64.
	maxSprop = 2048
	// maxChannels bounds the channels of an audio codec.
	maxChannels = 8
)

// sprop are the format parameters that hold parameter sets, by codec.
var sprop = map[string][]string{
	webrtc.MimeTypeH264: {"sprop-parameter-sets"},
	webrtc.MimeTypeH265: {"sprop-vps", "sprop-sps", "sprop-pps"},
}

// mimeMultiopus is Opus of more than two channels, as Chromium names it. Its
// parameters are those of RFC 7845, section 5.1.1.
const mimeMultiopus = "audio/multiopus"

// MimeRED is redundant audio (RFC 2198), here of Opus alone.
const MimeRED = "audio/red"

// forwardable are the codecs that weir forwards. RFC 3551 assigns payload types
// 0 to 34.
var forwardable = []known{
	{webrtc.MimeTypeOpus, 48000, 2, -1, "minptime=10;useinbandfec=1", 111, 0},
	{webrtc.MimeTypePCMU, 8000, 1, 0, "", 0, 0},
	{webrtc.MimeTypePCMA, 8000, 1, 8, "", 8, 0},
	{webrtc.MimeTypeG722, 8000, 1, 9, "", 9, 0}, // 16 kHz; its RTP clock is 8000 Hz by an old mistake (RFC 3551, section 4.5.2)
	{mimeMultiopus, 48000, 6, -1, "", 114, 0},
	{MimeRED, 48000, 2, -1, "111/111", 63, 0},
	{webrtc.MimeTypeVP8, 90000, 0, -1, "", 96, 97},
	{webrtc.MimeTypeH264, 90000, 0, -1, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 98, 99},
	{webrtc.MimeTypeVP9, 90000, 0, -1, "profile-id=0", 100, 101},
	{webrtc.MimeTypeAV1, 90000, 0, -1, "", 102, 103},
	{webrtc.MimeTypeH265, 90000, 0, -1, "profile-id=1;tier-flag=0;tx-mode=SRST", 104, 105},
}

// LinkCodecs returns the codecs of a cascade link. Payloads are opaque there
// and the parent describes each track, so one payload type for each name
// suffices.
func LinkCodecs() []Codec {
	var all []Codec
	for _, c := range forwardable {
		o := Codec{PT: c.pt, RTX: c.rtx}
		o.MimeType, o.ClockRate, o.Channels, o.SDPFmtpLine = c.Mime, c.clock, c.channels, c.fmtp
		all = append(all, o)
	}
	return all
}

// ForwardableCodecs lists the MIME types of all codecs that weir forwards.
func ForwardableCodecs() []string {
	var all []string
	for _, c := range forwardable {
		all = append(all, c.Mime)
	}
	return all
}

// InEveryRelease reports whether every release of weir forwards the codec.
func InEveryRelease(mime string) bool {
	return IsForwardable(mime) && mime != mimeMultiopus && mime != webrtc.MimeTypeH265 && mime != MimeRED
}

// codecNamed finds a forwardable codec by its encoding name, in any case (RFC
// 8866, section 6.6).
func codecNamed(kind webrtc.RTPCodecType, name string) (known, bool) {
	for _, c := range forwardable {
		if KindOf(c.Mime) == kind && strings.EqualFold(c.name(), name) {
			return c, true
		}
	}
	return known{}, false
}

// IsForwardable reports whether mime is a codec that weir forwards, in weir's
// spelling.
func IsForwardable(mime string) bool {
	kind, name, _ := strings.Cut(mime, "/")
	c, ok := codecNamed(webrtc.NewRTPCodecType(kind), name)
	return ok && c.Mime == mime
}

func (c known) name() string {
	_, name, _ := strings.Cut(c.Mime, "/")
	return name
}

// CodecNames lists the forwardable codecs of one kind, for people.
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
	PT, RTX webrtc.PayloadType // RTX 0: no retransmissions
	rtpmap  string             // in the client's spelling; "": none, for a static payload type
	Sprop   string             // parameter sets of H264 and H265, separated by commas
	Inner   *Codec             // of the blocks of redundant audio; nil for other codecs, and on links, which have it beside
}

// Params returns c, its retransmissions and what it contains as codecs of pion.
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
	if c.Inner != nil {
		all = append(all, c.Inner.Params()...)
	}
	return all
}

var (
	feedbackVideo = []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "transport-cc"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	// Browsers do not offer nack for audio, but cascade links and our own
	// client do: a hop that loses a packet sends NACKs for it (without RTX, RFC
	// 4585 alone).
	feedbackAudio = []webrtc.RTCPFeedback{{Type: "transport-cc"}, {Type: "nack"}}
)

// KindOf returns the kind of a codec by its MIME type.
func KindOf(mime string) webrtc.RTPCodecType {
	if len(mime) > 6 && mime[:6] == "audio/" {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// WithFeedback returns c with all the RTCP feedback that weir answers or sends.
func (c Codec) WithFeedback() Codec {
	c.RTCPFeedback = feedbackAudio
	if KindOf(c.MimeType) == webrtc.RTPCodecTypeVideo {
		c.RTCPFeedback = feedbackVideo
	}
	if c.Inner != nil {
		inner := c.Inner.WithFeedback()
		c.Inner = &inner
	}
	return c
}

// Describe returns the name of a codec for people, for example "H264
// (profile-level-id=640028;packetization-mode=1)".
func Describe(c webrtc.RTPCodecCapability) string {
	_, name, _ := strings.Cut(c.MimeType, "/")
	if c.Channels > 2 {
		name = fmt.Sprintf("%s/%d/%d", name, c.ClockRate, c.Channels)
	}
	var telling []string
	for _, key := range []string{"profile-level-id", "packetization-mode", "profile-id", "profile", "tx-mode", "channel_mapping"} {
		if v := FmtpValue(c.SDPFmtpLine, key); v != "" {
			telling = append(telling, key+"="+v)
		}
	}
	if telling == nil {
		return name
	}
	return name + " (" + strings.Join(telling, ";") + ")"
}

// Preferred returns the codec for a publisher's section: the first one it
// offers, except that H264 is taken in packetization mode 1 if it can be, which
// encoders prefer too, and in mode 2 only if there is nothing else: no browser
// accepts it (interleaved; RFC 6184, section 6.4). It skips payload types to which used gives another meaning in the
// same offer: in a BUNDLE group one has one meaning (RFC 9143, section 10.1.2).
func (s *Section) Preferred(used map[webrtc.PayloadType]string) (Codec, bool) {
	var best Codec
	found := false
	interleaved := func(c Codec) bool { return c.MimeType == webrtc.MimeTypeH264 && h264Mode(c.SDPFmtpLine) == 2 }
	for _, c := range s.codecs {
		if !free(used, c) || severalStreams(c.SDPFmtpLine) {
			continue
		}
		better := c.MimeType == best.MimeType && h264Mode(best.SDPFmtpLine) != 1 && h264Mode(c.SDPFmtpLine) == 1
		if !found || better || interleaved(best) && !interleaved(c) {
			best, found = c, true
		}
	}
	return best, found
}

// Match finds the codec of the section that can carry want and that the other
// end can decode, the nearest profile first.
func (s *Section) Match(want webrtc.RTPCodecCapability, used map[webrtc.PayloadType]string) (Codec, bool) {
	best, bestScore := Codec{}, 0
	for _, c := range s.codecs {
		if score := c.fits(want, s.lenient); score > bestScore && free(used, c) {
			best, bestScore = c, score
		}
	}
	return best, bestScore > 0
}

// fits returns how well c can carry want; 0: not at all. Redundant audio fits
// Opus without its redundancy.
func (c Codec) fits(want webrtc.RTPCodecCapability, lenient bool) int {
	switch {
	case want.MimeType != MimeRED:
		return Decodes(c.RTPCodecCapability, want, lenient)
	case c.Inner != nil:
		return 2
	case c.MimeType == webrtc.MimeTypeOpus:
		return 1
	}
	return 0
}

// Decodes returns how well a decoder of have decodes a stream of want; 0: not
// at all. Levels are ignored: nothing is transcoded, decoders do what they can,
// and browsers offer 3.1 whatever they decode.
//
// A profile is decoded by those that contain it. H264 Baseline is treated as
// its constrained form, which all others contain: no encoder in use produces
// more. Lenient decoders, and those that name no profile, decode any profile of
// 8 bits and 4:2:0.
func Decodes(have, want webrtc.RTPCodecCapability, lenient bool) int {
	if !strings.EqualFold(have.MimeType, want.MimeType) || have.ClockRate != want.ClockRate {
		return 0
	}
	score := 1
	switch {
	case strings.EqualFold(want.MimeType, webrtc.MimeTypeH264):
		// A receiver in mode 1 accepts mode 0 (RFC 6184, section 6.3).
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
		// A receiver without a profile, like GStreamer's, excludes no profile.
		case !lenient && FmtpValue(have.SDPFmtpLine, "profile-level-id") != "", !h264Contains(0x64, w):
			return 0
		}
		if a, b := FmtpValue(have.SDPFmtpLine, "profile-level-id"), FmtpValue(want.SDPFmtpLine, "profile-level-id"); len(a) >= 4 && len(b) >= 4 && strings.EqualFold(a[:4], b[:4]) {
			score++ // the same constraints
		}
	case strings.EqualFold(want.MimeType, webrtc.MimeTypeH265):
		h, w := h265Profile(have.SDPFmtpLine), h265Profile(want.SDPFmtpLine)
		if severalStreams(have.SDPFmtpLine) || !h265Contains(h, w) {
			return 0
		}
		if h == w {
			score += 2
		}
		if number(have.SDPFmtpLine, "tier-flag") == number(want.SDPFmtpLine, "tier-flag") {
			score++
		}
	case strings.EqualFold(want.MimeType, mimeMultiopus):
		for _, key := range []string{"channel_mapping", "num_streams", "coupled_streams"} {
			if FmtpValue(have.SDPFmtpLine, key) != FmtpValue(want.SDPFmtpLine, key) {
				return 0
			}
		}
		if have.Channels != want.Channels {
			return 0
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

// h264Mode returns the packetization mode; without one it is 0 (RFC 6184,
// section 8.1).
func h264Mode(fmtp string) int { return number(fmtp, "packetization-mode") }

// h264Profile returns profile_idc; without one it is Baseline. Only the first
// two digits are used: FFmpeg writes seven for its constrained Baseline.
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

// h264Contains reports whether a decoder of profile_idc a decodes b.
func h264Contains(a, b int) bool {
	// Main, High, High 10, High 4:2:2, High 4:4:4 Predictive: each contains those
	// before it (ITU-T H.264, annex A.2).
	rank := map[int]int{0x42: 0, 0x4d: 1, 0x64: 2, 0x6e: 3, 0x7a: 4, 0xf4: 5}
	ra, known := rank[a]
	rb, known2 := rank[b]
	return b == 0x42 || known && known2 && ra >= rb
}

// severalStreams reports whether an H265 payload is split over several RTP
// streams, which no browser offers (RFC 7798, section 7.1, tx-mode).
func severalStreams(fmtp string) bool {
	mode := FmtpValue(fmtp, "tx-mode")
	return mode != "" && !strings.EqualFold(mode, "SRST")
}

// h265Profile returns general_profile_idc; without one it is Main (RFC 7798,
// section 7.1).
func h265Profile(fmtp string) int {
	if FmtpValue(fmtp, "profile-id") == "" {
		return 1
	}
	return number(fmtp, "profile-id")
}

// h265Contains reports whether a decoder of profile a decodes b: Main decodes
// Main Still Picture, and Main 10 both (ITU-T H.265, annex A.3).
func h265Contains(a, b int) bool {
	return a == b || b == 3 && (a == 1 || a == 2) || b == 1 && a == 2
}

// free reports whether c's payload type has no other meaning in used.
func free(used map[webrtc.PayloadType]string, c Codec) bool {
	meaning := used[c.PT]
	return (meaning == "" || meaning == c.meaning()) && (c.Inner == nil || free(used, *c.Inner))
}

func (c Codec) meaning() string {
	return fmt.Sprintf("%s/%d/%d", c.MimeType, c.ClockRate, c.Channels)
}

// ClaimPayloadTypes marks c's payload types as used. It drops the
// retransmissions of c if their payload type has another meaning already.
func ClaimPayloadTypes(used map[webrtc.PayloadType]string, c *Codec) {
	used[c.PT] = c.meaning()
	if c.Inner != nil {
		ClaimPayloadTypes(used, c.Inner)
	}
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

// number returns a parameter of fmtp as a small number; 0 if there is none.
func number(fmtp, key string) int {
	n, err := strconv.ParseUint(FmtpValue(fmtp, key), 10, 8)
	if err != nil {
		return 0
	}
	return int(n)
}

// FmtpValue returns the value of key in a format parameter line.
func FmtpValue(line, key string) string {
	for part := range strings.SplitSeq(line, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(k, key) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// withoutParameter returns line without one parameter.
func withoutParameter(line, key string) string {
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		if k, _, _ := strings.Cut(strings.TrimSpace(part), "="); !strings.EqualFold(k, key) {
			kept = append(kept, part)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ";"))
}
