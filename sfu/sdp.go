package sfu

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// What a client may send. Parsing is expensive: 955 KiB of SDP cost pion more
// than a second, so lines are counted before anything is parsed.
const (
	MaxSDP        = 64 << 10 // bytes of one offer or fragment
	maxSections   = 8        // media sections of one offer
	maxCandidates = 32       // remote ICE candidates of one session, in all
)

// An sdpError is what is wrong with a client's SDP, told to the client.
type sdpError string

func (e sdpError) Error() string { return "bad SDP: " + string(e) }

// An offer is a client's SDP as far as the SFU looks at it itself.
type offer struct {
	sdp      string // what is handed to pion: the client's, less simulcast
	sections []section
	ufrag    string
}

// A section is one media section (RFC 8829, section 5.2.1).
type section struct {
	kind     webrtc.RTPCodecType
	mid      string
	sends    bool // the client will send
	receives bool // the client wants to receive
	codecs   []offered
}

// offered is one codec of a section.
type offered struct {
	webrtc.RTPCodecCapability
	pt, rtx webrtc.PayloadType
}

// forwardable are the codecs that the SFU forwards, by SDP encoding name.
var forwardable = map[string]string{
	"opus": webrtc.MimeTypeOpus,
	"vp8":  webrtc.MimeTypeVP8,
	"h264": webrtc.MimeTypeH264,
	"vp9":  webrtc.MimeTypeVP9,
	"av1":  webrtc.MimeTypeAV1,
}

// parseOffer reads a client's offer. Any error is an sdpError.
//
// Simulcast is taken out of it: an answer without it makes the client send
// one layer (RFC 8853, section 5.3).
func parseOffer(body []byte) (*offer, error) {
	if len(body) > MaxSDP {
		return nil, sdpError(fmt.Sprintf("longer than %d bytes", MaxSDP))
	}
	if n := countLines(body, "m="); n > maxSections {
		return nil, sdpError(fmt.Sprintf("%d media sections, at most %d are taken", n, maxSections))
	} else if n == 0 {
		return nil, sdpError("no media section")
	}
	if n := countLines(body, "a=candidate:"); n > maxCandidates {
		return nil, sdpError(fmt.Sprintf("%d candidates, at most %d are taken", n, maxCandidates))
	}
	text := withoutLines(string(body), "a=simulcast:", "a=rid:")

	var parsed sdp.SessionDescription
	if err := parsed.UnmarshalString(text); err != nil {
		return nil, sdpError(err.Error())
	}
	o := &offer{sdp: text}
	fingerprint := false
	attribute := func(key string, media *sdp.MediaDescription) string {
		if v, ok := media.Attribute(key); ok {
			return v
		}
		v, _ := parsed.Attribute(key)
		return v
	}
	mids := map[string]bool{}
	for i, media := range parsed.MediaDescriptions {
		s := section{sends: true, receives: true}
		switch media.MediaName.Media {
		case "audio":
			s.kind = webrtc.RTPCodecTypeAudio
		case "video":
			s.kind = webrtc.RTPCodecTypeVideo
		default:
			return nil, sdpError(fmt.Sprintf("media section %d is %q: only audio and video are taken", i, media.MediaName.Media))
		}
		s.mid, _ = media.Attribute("mid")
		if s.mid == "" || mids[s.mid] {
			return nil, sdpError(fmt.Sprintf("media section %d has no a=mid of its own", i))
		}
		mids[s.mid] = true
		for _, a := range append(slices.Clone(parsed.Attributes), media.Attributes...) {
			switch a.Key {
			case "sendrecv":
				s.sends, s.receives = true, true
			case "sendonly":
				s.sends, s.receives = true, false
			case "recvonly":
				s.sends, s.receives = false, true
			case "inactive":
				s.sends, s.receives = false, false
			}
		}
		if ufrag := attribute("ice-ufrag", media); ufrag != "" && o.ufrag == "" {
			o.ufrag = ufrag
		}
		fingerprint = fingerprint || attribute("fingerprint", media) != ""
		s.codecs = sectionCodecs(media, s.kind)
		o.sections = append(o.sections, s)
	}
	if o.ufrag == "" {
		return nil, sdpError("no a=ice-ufrag")
	}
	if !fingerprint {
		return nil, sdpError("no a=fingerprint: media must be encrypted with DTLS-SRTP")
	}
	return o, nil
}

// sectionCodecs lists the codecs of a section that the SFU forwards, in the
// client's order of preference.
func sectionCodecs(media *sdp.MediaDescription, kind webrtc.RTPCodecType) []offered {
	rtpmap, fmtp := map[string]string{}, map[string]string{}
	for _, a := range media.Attributes {
		switch a.Key {
		case "rtpmap", "fmtp":
			pt, rest, ok := strings.Cut(a.Value, " ")
			if !ok {
				continue
			}
			if a.Key == "rtpmap" {
				rtpmap[pt] = rest
			} else {
				fmtp[pt] = rest
			}
		}
	}
	rtx := map[string]webrtc.PayloadType{}
	for pt, mapping := range rtpmap {
		if apt, ok := strings.CutPrefix(fmtp[pt], "apt="); ok && strings.HasPrefix(strings.ToLower(mapping), "rtx/") {
			if n, err := strconv.ParseUint(pt, 10, 7); err == nil {
				apt, _, _ = strings.Cut(apt, ";")
				rtx[apt] = webrtc.PayloadType(n)
			}
		}
	}
	var codecs []offered
	for _, pt := range media.MediaName.Formats {
		parts := strings.Split(rtpmap[pt], "/")
		mime, ok := forwardable[strings.ToLower(parts[0])]
		if !ok || len(parts) < 2 || kindOf(mime) != kind {
			continue
		}
		n, err := strconv.ParseUint(pt, 10, 7)
		clock, err2 := strconv.ParseUint(parts[1], 10, 32)
		if err != nil || err2 != nil || clock == 0 {
			continue
		}
		c := offered{pt: webrtc.PayloadType(n), rtx: rtx[pt]}
		c.MimeType, c.ClockRate, c.SDPFmtpLine = mime, uint32(clock), fmtp[pt]
		if len(parts) > 2 {
			if ch, err := strconv.ParseUint(parts[2], 10, 8); err == nil {
				c.Channels = uint16(ch)
			}
		}
		codecs = append(codecs, c)
	}
	return codecs
}

// preferred is the codec a publisher's section will be held to: the first that
// it offers, but H264 in packetization mode 1, which its encoders prefer too.
func (s *section) preferred() (offered, bool) {
	if len(s.codecs) == 0 {
		return offered{}, false
	}
	best := s.codecs[0]
	for _, c := range s.codecs {
		if c.MimeType == best.MimeType && fmtpValue(best.SDPFmtpLine, "packetization-mode") != "1" &&
			fmtpValue(c.SDPFmtpLine, "packetization-mode") == "1" {
			best = c
		}
	}
	return best, true
}

// match finds the codec of the section that can carry want: the same name,
// and as near a profile as there is. Different levels are no hindrance, since
// nothing is transcoded and decoders take what they can.
func (s *section) match(want webrtc.RTPCodecCapability) (offered, bool) {
	best, bestScore := offered{}, 0
	for _, c := range s.codecs {
		if !strings.EqualFold(c.MimeType, want.MimeType) || c.ClockRate != want.ClockRate {
			continue
		}
		score := 1
		for _, key := range []string{"packetization-mode", "profile-id", "profile"} {
			if or0(fmtpValue(c.SDPFmtpLine, key)) == or0(fmtpValue(want.SDPFmtpLine, key)) {
				score += 4
			}
		}
		// profile-level-id is profile_idc, constraints, level_idc (RFC 6184, section 8.1).
		a, b := fmtpValue(c.SDPFmtpLine, "profile-level-id"), fmtpValue(want.SDPFmtpLine, "profile-level-id")
		switch {
		case len(a) == 6 && len(b) == 6 && strings.EqualFold(a[:4], b[:4]):
			score += 2
		case len(a) == 6 && len(b) == 6 && strings.EqualFold(a[:2], b[:2]):
			score++
		}
		if score > bestScore {
			best, bestScore = c, score
		}
	}
	return best, bestScore > 0
}

func or0(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// fmtpValue is the value of key in a format parameter line.
func fmtpValue(line, key string) string {
	for part := range strings.SplitSeq(line, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

func countLines(text []byte, prefix string) int {
	n := 0
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(prefix)) {
			n++
		}
	}
	return n
}

func withoutLines(text string, prefixes ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A fragment is the body of a WHIP or WHEP PATCH (RFC 8840, section 9):
// further candidates, or new ICE credentials, which ask for a restart.
type fragment struct {
	ufrag, pwd string
	candidates []webrtc.ICECandidateInit
}

func parseFragment(body []byte) (*fragment, error) {
	if len(body) > MaxSDP {
		return nil, sdpError(fmt.Sprintf("longer than %d bytes", MaxSDP))
	}
	f := &fragment{}
	mid := ""
	for line := range strings.Lines(string(body)) {
		line = strings.TrimRight(line, "\r\n")
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "a=ice-ufrag":
			f.ufrag = value
		case "a=ice-pwd":
			f.pwd = value
		case "a=mid":
			mid = value
		case "a=candidate":
			if len(f.candidates) == maxCandidates {
				return nil, sdpError(fmt.Sprintf("more than %d candidates", maxCandidates))
			}
			c := webrtc.ICECandidateInit{Candidate: "candidate:" + value}
			if mid != "" {
				c.SDPMid = &mid
			}
			f.candidates = append(f.candidates, c)
		default:
			if line != "" && (len(line) < 2 || line[1] != '=') {
				return nil, sdpError("not an SDP fragment")
			}
		}
	}
	if f.ufrag == "" && len(f.candidates) == 0 {
		return nil, errors.New("bad SDP: the fragment has neither candidates nor a=ice-ufrag")
	}
	return f, nil
}

// restartFragment is the answer to an ICE restart: the new credentials and the
// server's candidates, out of the whole answer.
func restartFragment(answer string) string {
	var b strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(answer) {
		for _, p := range []string{"a=ice-lite", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"} {
			if strings.HasPrefix(line, p) && !seen[line] && !rtcpComponent(line) {
				seen[line] = true
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// withCredentials puts other ICE credentials into an offer, as if the client
// had sent it again for a restart.
func withCredentials(offer, ufrag, pwd string) string {
	var b strings.Builder
	for line := range strings.Lines(withoutLines(offer, "a=candidate:", "a=end-of-candidates")) {
		switch {
		case strings.HasPrefix(line, "a=ice-ufrag:"):
			line = "a=ice-ufrag:" + ufrag + "\r\n"
		case strings.HasPrefix(line, "a=ice-pwd:"):
			line = "a=ice-pwd:" + pwd + "\r\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// rtcpComponent tells a candidate for component 2, which nobody needs where
// RTP and RTCP share a port (RFC 8843 requires that of bundled media).
func rtcpComponent(line string) bool {
	fields := strings.Fields(line)
	return strings.HasPrefix(line, "a=candidate:") && len(fields) > 1 && fields[1] == "2"
}

// completeAnswer mends what pion leaves open where it rejects the first media
// section: the candidates stand in that section, where clients do not look
// (RFC 8839, section 4.4.1.1.1: a rejected section has none), and rejected
// sections lack their a=mid (RFC 9143, section 7.3.3).
func completeAnswer(answer string, o *offer) string {
	var parts []string // the session's, then one for each section
	for line := range strings.Lines(answer) {
		if len(parts) == 0 || strings.HasPrefix(line, "m=") {
			parts = append(parts, "")
		}
		parts[len(parts)-1] += line
	}
	rejected := func(part string) bool {
		fields := strings.Fields(part)
		return len(fields) > 1 && fields[1] == "0"
	}
	moved, to := "", 0
	for i := 1; i < len(parts); i++ {
		if !rejected(parts[i]) {
			if to == 0 {
				to = i
			}
			continue
		}
		for line := range strings.Lines(parts[i]) {
			if strings.HasPrefix(line, "a=candidate:") || strings.HasPrefix(line, "a=end-of-candidates") {
				moved += line
			}
		}
		parts[i] = withoutLines(parts[i], "a=candidate:", "a=end-of-candidates")
		if i <= len(o.sections) && !strings.Contains(parts[i], "\na=mid:") {
			parts[i] += "a=mid:" + o.sections[i-1].mid + "\r\n"
		}
	}
	if to > 0 {
		parts[to] += moved
	}
	return strings.Join(parts, "")
}
