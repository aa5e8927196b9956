package sdp

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity"
)

// Bounds of a client's SDP. They count what the parser finds, and pion gets
// text that is rewritten from that, never the client's own: pion might parse,
// and count, the client's text differently.
const (
	MaxBytes      = 64 << 10 // bytes of one offer or fragment
	MaxSections   = 8        // media sections of one offer
	MaxCandidates = 32       // used remote ICE candidates of one session, in total
	MaxLines      = 4096     // lines of one description; those of browsers have a few hundred
	MaxFormats    = 128      // formats of one section: there are no more payload types
	MaxFmtp       = 512      // bytes of one format's parameters
	maxToken      = 256      // bytes of an identifier
	maxSSRCs      = 16       // of one section
	maxLayers     = 4        // of simulcast in one section
)

// An Error is a fault in a client's SDP, in words for the client.
type Error string

func (e Error) Error() string { return "bad SDP: " + string(e) }

// clip bounds a client's text that an error repeats.
func clip(s string) string { return capacity.Printable(s, 200) }

func bad(format string, args ...any) Error { return Error(fmt.Sprintf(format, args...)) }

// A Description is the part of SDP that the SFU uses.
type Description struct {
	bundles  [][]string // mids of each BUNDLE group (RFC 9143)
	lite     bool       // the client is ICE-lite
	Sections []*Section
	// Skipped counts unusable candidates by reason.
	Skipped map[string]int
}

// transport holds the ICE and DTLS parameters of a section.
type transport struct {
	Ufrag, Pwd, fingerprint, setup string
	Candidates                     []Candidate
}

// A Section is one media section (RFC 8829, section 5.2.1).
type Section struct {
	transport
	Index      int
	Media      string              // audio, video, application, …
	Kind       webrtc.RTPCodecType // 0: neither audio nor video
	zero       bool                // offered at port 0: not in use (RFC 3264, section 6)
	bundled    bool                // a=bundle-only: in use at port 0 if in a group
	Proto      string
	Formats    []string
	MID        string // "": none
	Sends      bool   // the client will send
	Receives   bool   // the client wants to receive
	lenient    bool   // it decodes more than it declares: see ParseDescription
	codecs     []Codec
	Offers     []string // names of all formats that it offers, for people
	Extensions []Extension
	Mixed      bool // header extensions of one and two bytes may be mixed (RFC 8285, section 6)
	SSRCs      []uint32
	Repairs    map[uint32]uint32 // SSRC of retransmissions, by the SSRC of the media
	msid       string
	Layers     []string          // RIDs of simulcast, in the client's order of preference (RFC 8853, section 5.2)
	rids       map[string]string // restrictions of the RIDs that it sends (RFC 8851)
	Sim        []uint32          // SSRCs of simulcast without RIDs, the least first (ssrc-group:SIM)
	// Simulcast are the RIDs of Layers that are answered; nil: none.
	Simulcast []string

	Codec *Codec // the codec it was accepted with; nil: not accepted
	Why   string // why it is not accepted
}

// Name returns the name of a section for people.
func (s *Section) Name() string {
	if s.MID == "" {
		return fmt.Sprintf("section %d (%s)", s.Index, s.Media)
	}
	return fmt.Sprintf("section %d (%s, mid %s)", s.Index, s.Media, s.MID)
}

// ErrNoCodec means that client and stream have no codec in common.
var ErrNoCodec = errors.New("no codec in common")

// NotTaken returns the error for a section whose media would be lost.
func (s *Section) NotTaken(instead string) error {
	offers := strings.Join(s.Offers, ", ")
	if offers == "" {
		offers = "nothing that has a name"
	}
	return fmt.Errorf("%w: %s offers %s; %s", ErrNoCodec, s.Name(), offers, instead)
}

// An Extension is one header extension (RFC 8285) of a section.
type Extension struct {
	ID  int
	URI string
}

// usedExtensions are the header extensions that weir uses on any transport.
var usedExtensions = append([]string{
	sdp.SDESMidURI, sdp.SDESRTPStreamIDURI, sdp.SDESRepairRTPStreamIDURI, sdp.TransportCCURI,
}, AudioLevel, CaptureTime, DependencyDescriptor, Orientation, PlayoutDelay, ColorSpace)

// usedFeedback are the a=rtcp-fb values that weir uses on any transport.
var usedFeedback = feedbackVideo

// Limits are the bounds of one description.
type Limits struct{ Bytes, Sections, Lines int }

// lines yields the non-blank lines of text, without line ends, with their
// numbers. CR, LF and both end a line, anywhere.
func lines(text []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		n := 0
		text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // a byte order mark
		for len(text) > 0 {
			n++
			end := bytes.IndexAny(text, "\r\n")
			line := text
			if end < 0 {
				text = nil
			} else {
				line = text[:end]
				if text[end] == '\r' && end+1 < len(text) && text[end+1] == '\n' {
					end++
				}
				text = text[end+1:]
			}
			if s := strings.TrimRight(string(line), " \t"); s != "" && !yield(n, s) {
				return
			}
		}
	}
}

// ParseDescription parses SDP (RFC 8866). It is lenient in form: lines of kinds
// that nothing here depends on may stand in any order, names of attributes are
// compared without case, and unknown ones are skipped. Any error is an Error.
func ParseDescription(text []byte, most Limits) (*Description, error) {
	if len(text) > most.Bytes {
		return nil, bad("longer than %d bytes", most.Bytes)
	}
	d := &Description{Skipped: map[string]int{}}
	var (
		session = newBuilder(nil)
		all     = []*builder{}
		current = session
		count   int
		lenient bool
	)
	for n, line := range lines(text) {
		if count++; count > most.Lines {
			return nil, bad("more than %d lines", most.Lines)
		}
		value, ok := strings.CutPrefix(line[1:], "=")
		switch {
		case !ok || count == 1 && line[0] != 'v':
			if len(line) > 40 {
				line = line[:40] + "…"
			}
			why := fmt.Sprintf("line %d is %q", n, line)
			if len(all) == 0 {
				why = "no media section: " + why + ", and SDP begins with v=0"
			}
			return nil, Error(strings.ToValidUTF8(why, "?"))
		case line[0] == 'v' && value != "0":
			return nil, bad("version %q", clip(value))
		case line[0] == 'o':
			// Firefox offers H264 in constrained Baseline only, whatever its
			// decoders can decode: OpenH264 has decoded CABAC and High since
			// 1.5, the platform's decoders more. Its origin line identifies
			// Firefox.
			lenient = strings.HasPrefix(value, "mozilla...")
		case line[0] == 'm':
			if len(all) == most.Sections {
				return nil, bad("%d media sections, at most %d are taken", countSections(text), most.Sections)
			}
			s, err := parseMediaLine(len(all), value)
			if err != nil {
				return nil, err
			}
			current = newBuilder(s)
			all = append(all, current)
		case line[0] == 'a':
			key, v, _ := strings.Cut(value, ":")
			if err := current.attribute(d, strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(v)); err != nil {
				return nil, err
			}
		}
	}
	if len(all) == 0 {
		return nil, Error("no media section")
	}
	mids := map[string]int{}
	for i, b := range all {
		s := b.finish(session)
		s.lenient = lenient
		if first, twice := mids[s.MID]; twice && s.MID != "" {
			return nil, bad("media section %d has no a=mid of its own: %q is that of section %d", i, s.MID, first)
		}
		mids[s.MID] = i
		d.Sections = append(d.Sections, s)
	}
	return d, nil
}

func countSections(text []byte) int {
	n := 0
	for _, line := range lines(text) {
		if strings.HasPrefix(line, "m=") {
			n++
		}
	}
	return n
}

func parseMediaLine(index int, value string) (*Section, error) {
	fields := strings.Fields(value)
	if len(fields) < 4 {
		return nil, bad("media section %d: m=%s lacks a port, a protocol or a format", index, clip(value))
	}
	port, _, _ := strings.Cut(fields[1], "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, bad("media section %d: port %q", index, clip(fields[1]))
	}
	s := &Section{
		Index: index, Media: strings.ToLower(fields[0]), zero: n == 0, Proto: fields[2], Formats: fields[3:],
		Repairs: map[uint32]uint32{},
	}
	if len(s.Formats) > MaxFormats {
		return nil, bad("media section %d: %d formats, at most %d are taken", index, len(s.Formats), MaxFormats)
	}
	for _, f := range fields {
		if !isToken(f) {
			return nil, bad("media section %d: %q in its m= line", index, clip(f))
		}
	}
	switch {
	case !slices.Contains(rtpProtocols, strings.ToUpper(s.Proto)):
	case s.Media == "audio":
		s.Kind = webrtc.RTPCodecTypeAudio
	case s.Media == "video":
		s.Kind = webrtc.RTPCodecTypeVideo
	}
	return s, nil
}

// rtpProtocols all mean DTLS-SRTP in an offer with a fingerprint (RFC 8829,
// section 5.1.2).
var rtpProtocols = []string{
	"UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP", "TCP/DTLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVP",
}
