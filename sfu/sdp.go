package sfu

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity"
)

// What a client may send. Bounds are of what the parser finds, and pion is
// given what is written anew from that, never the client's own text: what pion
// reads differently from us it would count differently too.
const (
	MaxSDP        = 64 << 10 // bytes of one offer or fragment
	maxSections   = 8        // media sections of one offer
	maxCandidates = 32       // remote ICE candidates of one session that are used, in all
	maxLines      = 4096     // of one description; browsers' have a few hundred
	maxFormats    = 128      // of one section: there are no more payload types
	maxFmtp       = 512      // bytes of one format's parameters
	maxToken      = 256      // bytes of an identifier
	maxSSRCs      = 16       // of one section
	maxRIDs       = 8        // of one section
)

// An sdpError is what is wrong with a client's SDP, told to the client.
type sdpError string

func (e sdpError) Error() string { return "bad SDP: " + string(e) }

// clip bounds what an error repeats of a client's words.
func clip(s string) string { return capacity.Printable(s, 200) }

func badSDP(format string, args ...any) sdpError { return sdpError(fmt.Sprintf(format, args...)) }

// A description is SDP as far as the SFU looks at it.
type description struct {
	bundles  [][]string // mids of each BUNDLE group (RFC 9143)
	lite     bool       // the client is ICE-lite
	mixed    bool       // a=extmap-allow-mixed
	sections []*section
	// skipped counts candidates that are of no use here, by what they are.
	skipped map[string]int
}

// transport is what a section says of how it is reached.
type transport struct {
	ufrag, pwd, fingerprint, setup string
	candidates                     []candidate
}

// A section is one media section (RFC 8829, section 5.2.1).
type section struct {
	transport
	index    int
	media    string              // audio, video, application, …
	kind     webrtc.RTPCodecType // 0: neither audio nor video
	zero     bool                // offered at port 0: not in use (RFC 3264, section 6)
	bundled  bool                // a=bundle-only: in use at port 0 if in a group
	proto    string
	formats  []string
	mid      string // "": none
	sends    bool   // the client will send
	receives bool   // the client wants to receive
	lenient  bool   // it decodes more than it says: see parseDescription
	codecs   []offered
	offers   []string // names of all that it offers, for people
	exts     []sdpExt
	ssrcs    []uint32
	repairs  map[uint32]uint32 // SSRC of retransmissions, by that of the media
	msid     string
	layers   []string // RIDs of simulcast, in the client's order of preference (RFC 8853, section 5.2)

	codec *offered // that it was taken with; nil: it is not taken
	why   string   // it is not taken
}

// name is how a section is called before people.
func (s *section) name() string {
	if s.mid == "" {
		return fmt.Sprintf("section %d (%s)", s.index, s.media)
	}
	return fmt.Sprintf("section %d (%s, mid %s)", s.index, s.media, s.mid)
}

type sdpExt struct {
	id  int
	uri string
}

// usedExtensions are the header extensions that are of use at any leg.
var usedExtensions = append([]string{
	sdp.SDESMidURI, sdp.SDESRTPStreamIDURI, sdp.SDESRepairRTPStreamIDURI, sdp.TransportCCURI,
}, extAudioLevel, extCaptureTime, extDependency, extOrientation)

// usedFeedback are the a=rtcp-fb values that are of use at any leg.
var usedFeedback = feedbackVideo

// limits are the bounds of one description.
type limits struct{ bytes, sections, lines int }

// sdpLines yields the lines of text with their numbers, without their ends and
// without those that are blank. CR, LF and both end a line, wherever they stand.
func sdpLines(text []byte) iter.Seq2[int, string] {
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

// parseDescription reads SDP (RFC 8866). It is lenient in form: lines of kinds
// that nothing here depends on may stand in any order, names of attributes are
// compared without case, and what is unknown is passed over. Any error is an
// sdpError.
func parseDescription(text []byte, most limits) (*description, error) {
	if len(text) > most.bytes {
		return nil, badSDP("longer than %d bytes", most.bytes)
	}
	d := &description{skipped: map[string]int{}}
	var (
		session = newBuilder(nil)
		all     = []*builder{}
		current = session
		count   int
		lenient bool
	)
	for n, line := range sdpLines(text) {
		if count++; count > most.lines {
			return nil, badSDP("more than %d lines", most.lines)
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
			return nil, sdpError(strings.ToValidUTF8(why, "?"))
		case line[0] == 'v' && value != "0":
			return nil, badSDP("version %q", clip(value))
		case line[0] == 'o':
			// Firefox offers H264 in constrained Baseline alone, whatever its decoders
			// take: OpenH264 has done CABAC and High since 1.5, the platform's do more.
			// Its origin line says that it is Firefox.
			lenient = strings.HasPrefix(value, "mozilla...")
		case line[0] == 'm':
			if len(all) == most.sections {
				return nil, badSDP("%d media sections, at most %d are taken", countSections(text), most.sections)
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
		return nil, sdpError("no media section")
	}
	mids := map[string]int{}
	for i, b := range all {
		s := b.finish(session)
		s.lenient = lenient
		if first, twice := mids[s.mid]; twice && s.mid != "" {
			return nil, badSDP("media section %d has no a=mid of its own: %q is that of section %d", i, s.mid, first)
		}
		mids[s.mid] = i
		d.sections = append(d.sections, s)
	}
	return d, nil
}

func countSections(text []byte) int {
	n := 0
	for _, line := range sdpLines(text) {
		if strings.HasPrefix(line, "m=") {
			n++
		}
	}
	return n
}

func parseMediaLine(index int, value string) (*section, error) {
	fields := strings.Fields(value)
	if len(fields) < 4 {
		return nil, badSDP("media section %d: m=%s lacks a port, a protocol or a format", index, clip(value))
	}
	port, _, _ := strings.Cut(fields[1], "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, badSDP("media section %d: port %q", index, clip(fields[1]))
	}
	s := &section{
		index: index, media: strings.ToLower(fields[0]), zero: n == 0, proto: fields[2], formats: fields[3:],
		repairs: map[uint32]uint32{},
	}
	if len(s.formats) > maxFormats {
		return nil, badSDP("media section %d: %d formats, at most %d are taken", index, len(s.formats), maxFormats)
	}
	for _, f := range fields {
		if !isToken(f) {
			return nil, badSDP("media section %d: %q in its m= line", index, clip(f))
		}
	}
	switch {
	case !slices.Contains(rtpProtocols, strings.ToUpper(s.proto)):
	case s.media == "audio":
		s.kind = webrtc.RTPCodecTypeAudio
	case s.media == "video":
		s.kind = webrtc.RTPCodecTypeVideo
	}
	return s, nil
}

// rtpProtocols all mean DTLS-SRTP in an offer with a fingerprint (RFC 8829,
// section 5.1.2).
var rtpProtocols = []string{
	"UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP", "TCP/DTLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVP",
}

// A builder gathers the attributes of a section, or of the session.
type builder struct {
	*section  // nil for the session
	own       transport
	direction string
	rtpmap    map[int]string
	fmtp      map[int]string
	feedback  map[int]uint64 // bits of usedFeedback
	anyFB     uint64         // of a=rtcp-fb:*
	extIDs    map[int]bool
	extURIs   map[string]bool
}

func newBuilder(s *section) *builder {
	return &builder{
		section: s, rtpmap: map[int]string{}, fmtp: map[int]string{}, feedback: map[int]uint64{},
		extIDs: map[int]bool{}, extURIs: map[string]bool{},
	}
}

// attribute takes note of one attribute, if it is of use. Nothing is kept that
// is not bounded.
func (b *builder) attribute(d *description, key, value string) error {
	switch key {
	case "ice-ufrag", "ice-pwd":
		if !isToken(value) || len(value) > maxToken {
			return badSDP("a=%s:%s", key, clip(value))
		}
		if key == "ice-ufrag" {
			b.own.ufrag = value
		} else {
			b.own.pwd = value
		}
	case "fingerprint":
		f, err := parseFingerprint(value)
		if err != nil {
			return err
		}
		// Of several the strongest counts, which is not always the first (RFC 8122, section 5).
		if strings.HasPrefix(f, "sha-256 ") || b.own.fingerprint == "" || strings.HasPrefix(b.own.fingerprint, "sha-1 ") {
			b.own.fingerprint = f
		}
	case "setup":
		b.own.setup = strings.ToLower(value)
	case "sendrecv", "sendonly", "recvonly", "inactive":
		b.direction = key
	}
	if b.section == nil {
		switch key {
		case "ice-lite":
			d.lite = true
		case "extmap-allow-mixed":
			d.mixed = true
		case "group":
			if fields := strings.Fields(value); len(fields) > 1 && strings.EqualFold(fields[0], "BUNDLE") && len(d.bundles) < maxSections {
				d.bundles = append(d.bundles, fields[1:])
			}
		}
		return nil
	}
	switch key {
	case "mid":
		if !isToken(value) || len(value) > maxToken {
			return badSDP("media section %d: a=mid:%s", b.index, clip(value))
		}
		b.mid = value
	case "candidate":
		c, why := parseCandidate(value)
		switch {
		case why != "":
			d.skipped[why]++
		case slices.Contains(b.own.candidates, c): // twice the same
		case len(b.own.candidates) == maxCandidates:
			d.skipped[overBound]++
		default:
			b.own.candidates = append(b.own.candidates, c)
		}
	case "bundle-only":
		b.bundled = true
	case "rtpmap", "fmtp", "rtcp-fb":
		pt, rest, _ := strings.Cut(value, " ")
		b.format(key, pt, strings.TrimSpace(rest))
	case "extmap":
		fields := strings.Fields(value)
		if len(fields) < 2 || !slices.Contains(usedExtensions, fields[1]) {
			return nil
		}
		id, _, _ := strings.Cut(fields[0], "/")
		n, err := strconv.ParseUint(id, 10, 8)
		if err != nil || n == 0 || n == 15 || b.extIDs[int(n)] || b.extURIs[fields[1]] {
			return nil // RFC 8285, section 4.2
		}
		b.extIDs[int(n)], b.extURIs[fields[1]] = true, true
		b.exts = append(b.exts, sdpExt{int(n), fields[1]})
	case "msid":
		if fields := strings.Fields(value); len(fields) > 0 && b.msid == "" && len(value) <= maxToken && !slices.ContainsFunc(fields, notToken) {
			b.msid = strings.Join(append(fields, b.media)[:2], " ")
		}
	case "ssrc":
		id, _, _ := strings.Cut(value, " ")
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && len(b.ssrcs) < maxSSRCs && !slices.Contains(b.ssrcs, uint32(n)) {
			b.ssrcs = append(b.ssrcs, uint32(n))
		}
	case "ssrc-group":
		fields := strings.Fields(value)
		if len(fields) == 3 && strings.EqualFold(fields[0], "FID") && len(b.repairs) < maxSSRCs {
			media, err := strconv.ParseUint(fields[1], 10, 32)
			repair, err2 := strconv.ParseUint(fields[2], 10, 32)
			if err == nil && err2 == nil {
				b.repairs[uint32(media)] = uint32(repair)
			}
		}
	case "simulcast":
		fields := strings.Fields(value)
		for i := 0; i+1 < len(fields) && len(b.layers) == 0; i++ {
			if !strings.EqualFold(fields[i], "send") {
				continue
			}
			for layer := range strings.SplitSeq(fields[i+1], ";") {
				rid, _, _ := strings.Cut(layer, ",")
				if rid = strings.TrimPrefix(rid, "~"); rid != "" && len(rid) <= maxToken && len(b.layers) < maxRIDs {
					b.layers = append(b.layers, rid)
				}
			}
		}
	}
	return nil
}

// format takes note of what is said of a payload type.
func (b *builder) format(key, pt, rest string) {
	n, err := strconv.ParseUint(pt, 10, 7)
	if pt == "*" && key == "rtcp-fb" {
		b.anyFB |= feedbackBit(rest)
		return
	}
	if err != nil {
		return
	}
	switch key {
	case "rtpmap":
		if _, twice := b.rtpmap[int(n)]; !twice {
			b.rtpmap[int(n)] = rest
		}
	case "fmtp":
		if was := b.fmtp[int(n)]; was == "" {
			b.fmtp[int(n)] = rest
		} else if len(was) <= maxFmtp+maxSprop { // past that, the format is not taken
			b.fmtp[int(n)] = was + ";" + rest
		}
	case "rtcp-fb":
		b.feedback[int(n)] |= feedbackBit(rest)
	}
}

func feedbackBit(value string) uint64 {
	kind, parameter, _ := strings.Cut(strings.ToLower(value), " ")
	for i, f := range usedFeedback {
		if f.Type == kind && f.Parameter == strings.TrimSpace(parameter) {
			return 1 << i
		}
	}
	return 0
}

// finish makes the section of what was gathered, and of what the session says
// for all.
func (b *builder) finish(session *builder) *section {
	s := b.section
	s.transport = b.own
	for _, p := range []struct {
		mine *string
		all  string
	}{{&s.ufrag, session.own.ufrag}, {&s.pwd, session.own.pwd}, {&s.fingerprint, session.own.fingerprint}, {&s.setup, session.own.setup}} {
		if *p.mine == "" {
			*p.mine = p.all
		}
	}
	direction := b.direction
	if direction == "" {
		direction = session.direction
	}
	s.sends = direction != "recvonly" && direction != "inactive"
	s.receives = direction != "sendonly" && direction != "inactive"
	s.codecs = b.codecsOf()
	return s
}

// codecsOf lists the codecs of a section that the SFU forwards, in the client's
// order of preference.
func (b *builder) codecsOf() []offered {
	rtx := map[int]webrtc.PayloadType{}
	seen := map[int]bool{}
	var listed []int
	for _, f := range b.formats {
		n, err := strconv.ParseUint(f, 10, 7)
		if err != nil || seen[int(n)] {
			continue
		}
		seen[int(n)] = true
		listed = append(listed, int(n))
		name, _, _ := strings.Cut(b.rtpmap[int(n)], "/")
		if apt, err := strconv.ParseUint(fmtpValue(b.fmtp[int(n)], "apt"), 10, 7); err == nil && n != 0 && strings.EqualFold(name, "rtx") {
			rtx[int(apt)] = webrtc.PayloadType(n)
		}
	}
	var all []offered
	for _, pt := range listed {
		b.offer(pt)
		if c, ok := b.codecOf(pt); ok {
			c.rtx = rtx[pt]
			all = append(all, c)
		}
	}
	return all
}

// maxNamed bounds the formats that an error names.
const maxNamed = 12

// offer notes how payload type pt is called before people.
func (b *builder) offer(pt int) {
	name, _, _ := strings.Cut(b.rtpmap[pt], "/")
	if name == "" {
		name = fmt.Sprintf("payload type %d", pt)
	}
	if c, ok := b.codecOf(pt); ok {
		name = describe(c.RTPCodecCapability)
	}
	name = strings.TrimSpace(clip(name))
	switch {
	case strings.EqualFold(name, "rtx"), slices.Contains(b.offers, name), len(b.offers) > maxNamed, notToken(strings.ReplaceAll(name, " ", "-")):
	case len(b.offers) == maxNamed:
		b.offers = append(b.offers, "…")
	default:
		b.offers = append(b.offers, name)
	}
}

func (b *builder) codecOf(pt int) (offered, bool) {
	mapping := b.rtpmap[pt]
	if mapping == "" {
		for _, c := range forwardable {
			if c.static == pt && kindOf(c.mime) == b.kind {
				mapping = fmt.Sprintf("%s/%d", c.name(), c.clock)
			}
		}
	}
	parts := strings.Split(mapping, "/")
	c, ok := codecNamed(b.kind, strings.TrimSpace(parts[0]))
	fmtp := b.fmtp[pt]
	if !ok || len(fmtp) > maxFmtp+maxSprop || !printable(fmtp) || len(parts) > 3 {
		return offered{}, false
	}
	if pt == 0 && c.static != 0 {
		return offered{}, false // pion takes it for PCMU, whatever a=rtpmap says
	}
	// No clock is the codec's own; one that is not is another codec.
	if len(parts) > 1 && strings.TrimSpace(parts[1]) != strconv.Itoa(int(c.clock)) {
		return offered{}, false
	}
	o := offered{pt: webrtc.PayloadType(pt)}
	if _, said := b.rtpmap[pt]; said && isToken(mapping) && len(parts) > 1 {
		o.rtpmap = mapping
	}
	o.MimeType, o.ClockRate, o.Channels = c.mime, c.clock, c.channels
	if c.mime == webrtc.MimeTypeH264 {
		o.sprop = fmtpValue(fmtp, "sprop-parameter-sets")
		fmtp = withoutParameter(fmtp, "sprop-parameter-sets")
	}
	if len(fmtp) > maxFmtp {
		return offered{}, false
	}
	o.SDPFmtpLine = fmtp
	for i, f := range usedFeedback {
		if (b.feedback[pt]|b.anyFB)&(1<<i) != 0 {
			o.RTCPFeedback = append(o.RTCPFeedback, f)
		}
	}
	return o, true
}

// isToken reports whether s is visible ASCII and no more: nothing that could
// end a line or a field.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func notToken(s string) bool { return !isToken(s) }

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// fingerprintBytes are the hashes that pion can check, by their length.
var fingerprintBytes = map[string]int{"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}

func parseFingerprint(value string) (string, error) {
	hash, digest, _ := strings.Cut(value, " ")
	hash, digest = strings.ToLower(hash), strings.TrimSpace(digest)
	n, ok := fingerprintBytes[hash]
	parts := strings.Split(digest, ":")
	if !ok || len(parts) != n || slices.ContainsFunc(parts, func(p string) bool {
		_, err := strconv.ParseUint(p, 16, 8)
		return err != nil || len(p) != 2
	}) {
		return "", badSDP("a=fingerprint:%s: want sha-256 and its 32 bytes", clip(value))
	}
	return hash + " " + strings.ToUpper(digest), nil
}

// A candidate is a remote ICE candidate that may be of use (RFC 8839, section 5.1).
type candidate struct {
	foundation string
	priority   uint32
	addr       netip.AddrPort
	typ        string
}

// overBound is why a candidate is not used that is one too many.
const overBound = "over the bound"

// String is the candidate as a=candidate has it.
func (c candidate) String() string {
	related := ""
	if c.typ != "host" {
		related = " raddr 0.0.0.0 rport 0"
	}
	return fmt.Sprintf("%s 1 udp %d %s %d typ %s%s", c.foundation, c.priority, c.addr.Addr(), c.addr.Port(), c.typ, related)
}

// parseCandidate reads the value of a=candidate. If it is of no use, why says
// so: over TCP clients connect to us, names and zones are good at the other end
// only, and RTCP has no component of its own.
func parseCandidate(value string) (c candidate, why string) {
	f := strings.Fields(value)
	if len(f) < 8 || !strings.EqualFold(f[6], "typ") || notToken(f[0]) || len(f[0]) > 32 {
		return c, "malformed"
	}
	priority, err := strconv.ParseUint(f[3], 10, 32)
	port, err2 := strconv.ParseUint(f[5], 10, 16)
	addr, err3 := netip.ParseAddr(f[4])
	switch {
	case strings.EqualFold(f[2], "tcp"):
		return c, "TCP"
	case !strings.EqualFold(f[2], "udp"):
		return c, "unknown transport"
	case f[1] != "1":
		return c, "RTCP"
	case err != nil || err2 != nil || port == 0:
		return c, "malformed"
	case err3 != nil:
		return c, "a name"
	case addr.Zone() != "":
		return c, "an address with a zone"
	}
	c = candidate{foundation: f[0], priority: uint32(priority), addr: netip.AddrPortFrom(addr.Unmap(), uint16(port)), typ: strings.ToLower(f[7])}
	if !slices.Contains([]string{"host", "srflx", "prflx", "relay"}, c.typ) {
		return c, "unknown type"
	}
	return c, ""
}

// An offer is a client's SDP on its way to an answer: each section is taken or
// not, and pion sees only those that are.
type offer struct {
	*description
	transport // of all that is taken: one for all (BUNDLE)
	taken     []*section
	group     []string // mids of the answer's BUNDLE group; nil: none was offered
}

// parseOffer reads a client's offer. Any error is an sdpError.
func parseOffer(body []byte) (*offer, error) {
	d, err := parseDescription(body, limits{MaxSDP, maxSections, maxLines})
	if err != nil {
		return nil, err
	}
	any := func(has func(*section) bool) bool { return slices.ContainsFunc(d.sections, has) }
	switch {
	case !any(func(s *section) bool { return s.kind != 0 }):
		return nil, badSDP("media section 0 is %q over %s: only audio and video are taken, over RTP", d.sections[0].media, d.sections[0].proto)
	case !any(func(s *section) bool { return s.ufrag != "" }):
		return nil, sdpError("no a=ice-ufrag")
	case !any(func(s *section) bool { return s.pwd != "" }):
		return nil, sdpError("no a=ice-pwd")
	case !any(func(s *section) bool { return s.fingerprint != "" }):
		return nil, sdpError("no a=fingerprint: media must be encrypted with DTLS-SRTP")
	}
	return &offer{description: d}, nil
}

// again is the offer before anything of it was taken.
func (o *offer) again() *offer {
	d := *o.description
	d.sections = nil
	for _, s := range o.sections {
		fresh := *s
		fresh.codec, fresh.why = nil, ""
		d.sections = append(d.sections, &fresh)
	}
	return &offer{description: &d}
}

// An unacceptable offer is sound, but there is something in it that this server
// does not take, and an answer without it would be one that nobody asked for
// (RFC 9725, section 4.4). It is told to the client.
type unacceptable string

func (e unacceptable) Error() string { return string(e) }

// inUse reports whether the section asks for media at all. Else why is set.
func (o *offer) inUse(s *section) bool {
	switch {
	case s.kind == 0:
		s.why = fmt.Sprintf("%s over %s is not taken", s.media, s.proto)
	case s.zero && (!s.bundled || o.groupOf(s) == nil):
		s.why = "it was offered at port 0"
	default:
		return true
	}
	return false
}

func (o *offer) groupOf(s *section) []string {
	for _, g := range o.bundles {
		if s.mid != "" && slices.Contains(g, s.mid) {
			return g
		}
	}
	return nil
}

// take has s answered with codec c.
func (o *offer) take(s *section, c offered) {
	s.codec = &c
	o.taken = append(o.taken, s)
}

// settle finds the one transport of all sections that were taken. There must be
// one: weir has one port, and a section that is not bundled wants its own.
func (o *offer) settle() error {
	if o.lite {
		return unacceptable("the offer is of an ICE-lite client, and this server is ICE-lite: neither would check connectivity; offer without a=ice-lite")
	}
	slices.SortFunc(o.taken, func(a, b *section) int { return a.index - b.index })
	first := o.taken[0]
	group := o.groupOf(first)
	for _, s := range o.taken[1:] {
		if !slices.Contains(group, s.mid) || s.mid == "" {
			return unacceptable(fmt.Sprintf("%s and %s are not in one BUNDLE group, and all media goes over one transport here: offer a=group:BUNDLE with their mids (RFC 9143; bundlePolicy max-bundle in browsers, bundle-policy=max-bundle in GStreamer)", first.name(), s.name()))
		}
	}
	tagged := first
	if group != nil {
		// The first in the order of the group whose transport is described
		// (RFC 9143, section 7.3.2); bundle-only ones need not describe any.
		if tagged = described(group, o.taken); tagged == nil {
			tagged = described(group, o.sections)
		}
		for _, mid := range group {
			if slices.ContainsFunc(o.taken, func(s *section) bool { return s.mid == mid }) && !slices.Contains(o.group, mid) {
				o.group = append(o.group, mid)
			}
		}
	}
	if tagged == nil || tagged.ufrag == "" || tagged.pwd == "" || tagged.fingerprint == "" {
		return badSDP("%s has no a=ice-ufrag, a=ice-pwd or a=fingerprint", first.name())
	}
	o.transport = tagged.transport
	return nil
}

// described finds the first of group among sections that says how it is reached.
func described(group []string, sections []*section) *section {
	for _, mid := range group {
		for _, s := range sections {
			if s.mid == mid && s.ufrag != "" && s.fingerprint != "" {
				return s
			}
		}
	}
	return nil
}

// refused lists the sections that are not taken, with why.
func (o *offer) refused() []string {
	var all []string
	for _, s := range o.sections {
		if s.codec == nil && s.why != "" {
			all = append(all, s.name()+": "+s.why)
		}
	}
	return all
}

// pionMid is what pion calls the section: the client's mid, if it has one.
func (s *section) pionMid() string {
	if s.mid != "" {
		return s.mid
	}
	return fmt.Sprintf("weir-%d", s.index)
}

// text is the offer for pion: what was taken of it, written anew.
func (o *offer) text() string {
	var b strings.Builder
	mids := ""
	for _, s := range o.taken {
		mids += " " + s.pionMid()
	}
	writeSession(&b, mids, o.mixed)
	used := map[int]string{}
	for i, s := range o.taken {
		t := o.transport
		if i > 0 {
			t.candidates = nil
		}
		direction := "recvonly"
		if s.sends {
			direction = "sendonly"
		}
		// The ingress tells streams apart. pion is told of none, and a line that
		// names none keeps it from looking for some itself.
		unsaid := *s
		unsaid.ssrcs = nil
		unsaid.write(&b, t, direction, []offered{*s.codec}, used)
		if s.sends {
			b.WriteString("a=ssrc:none\r\n")
		}
	}
	return b.String()
}

func writeSession(b *strings.Builder, mids string, mixed bool) {
	b.WriteString("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE" + mids + "\r\n")
	if mixed {
		b.WriteString("a=extmap-allow-mixed\r\n")
	}
}

// write is the section for pion. In used are the header extensions by ID of the
// sections before: in a BUNDLE group one ID means one thing.
func (s *section) write(b *strings.Builder, t transport, direction string, codecs []offered, used map[int]string) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\r\n", args...) }
	formats := ""
	for _, c := range codecs {
		for _, p := range c.params() {
			formats += fmt.Sprintf(" %d", p.PayloadType)
		}
	}
	line("m=%s 9 UDP/TLS/RTP/SAVPF%s", s.kind, formats)
	line("c=IN IP4 0.0.0.0")
	line("a=mid:%s", s.pionMid())
	line("a=%s", direction)
	line("a=rtcp-mux")
	line("a=rtcp-rsize")
	line("a=ice-ufrag:%s", t.ufrag)
	line("a=ice-pwd:%s", t.pwd)
	line("a=fingerprint:%s", t.fingerprint)
	if t.setup == "active" || t.setup == "passive" {
		line("a=setup:%s", t.setup)
	} else {
		line("a=setup:actpass")
	}
	for _, c := range codecs {
		for _, p := range c.params() {
			_, name, _ := strings.Cut(p.MimeType, "/")
			mapping := fmt.Sprintf("%s/%d", name, p.ClockRate)
			if p.Channels > 1 {
				mapping += fmt.Sprintf("/%d", p.Channels)
			}
			line("a=rtpmap:%d %s", p.PayloadType, mapping)
			if p.SDPFmtpLine != "" {
				line("a=fmtp:%d %s", p.PayloadType, p.SDPFmtpLine)
			}
			for _, f := range p.RTCPFeedback {
				line("a=rtcp-fb:%d %s", p.PayloadType, strings.TrimSpace(f.Type+" "+f.Parameter))
			}
		}
	}
	for _, e := range s.exts {
		if was := used[e.id]; was == "" || was == e.uri {
			used[e.id] = e.uri
			line("a=extmap:%d %s", e.id, e.uri)
		}
	}
	if direction != "recvonly" {
		if s.msid != "" {
			line("a=msid:%s", s.msid)
		}
		// One stream of media and its retransmissions: pion takes more for a
		// description of another kind.
		if len(s.ssrcs) > 0 {
			media := s.ssrcs[0]
			repair, repaired := s.repairs[media]
			if repaired {
				line("a=ssrc-group:FID %d %d", media, repair)
			}
			line("a=ssrc:%d cname:weir", media)
			if repaired {
				line("a=ssrc:%d cname:weir", repair)
			}
		}
	}
	for _, c := range t.candidates {
		line("a=candidate:%s", c)
	}
}

// answerText is the answer for the client: pion's for each section that was
// taken, under the client's own names, and port 0 in the place of the others
// (RFC 8829, section 5.3.1).
func (o *offer) answerText(answer string) string {
	var parts []string // the session's, then one for each section
	for line := range strings.Lines(answer) {
		if len(parts) == 0 || strings.HasPrefix(line, "m=") {
			parts = append(parts, "")
		}
		parts[len(parts)-1] += line
	}
	var head, candidates strings.Builder
	for line := range strings.Lines(parts[0]) {
		if !strings.HasPrefix(line, "a=group:") {
			head.WriteString(line)
		}
	}
	if len(o.group) > 0 {
		head.WriteString("a=group:BUNDLE " + strings.Join(o.group, " ") + "\r\n")
	}
	// pion puts the candidates into its first section; clients look for them in
	// the first of the group.
	texts := map[*section]string{}
	for i, s := range o.taken {
		if i+1 >= len(parts) {
			break
		}
		var b strings.Builder
		for line := range strings.Lines(parts[i+1]) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
			switch {
			case strings.HasPrefix(line, "m="):
				fields := strings.Fields(line)
				fields[2] = s.proto
				line = strings.Join(fields, " ") + "\r\n"
			case key == "a=candidate", key == "a=end-of-candidates":
				if !rtcpComponent(line) {
					candidates.WriteString(line)
				}
				continue
			case key == "a=mid":
				if s.mid == "" {
					continue
				}
			case key == "a=rtpmap" && s.codec.rtpmap != "":
				if pt, _, _ := strings.Cut(value, " "); pt == strconv.Itoa(int(s.codec.pt)) {
					line = fmt.Sprintf("a=rtpmap:%s %s\r\n", pt, s.codec.rtpmap)
				}
			}
			b.WriteString(line)
		}
		texts[s] = b.String()
	}
	out := head.String()
	for _, s := range o.sections {
		text, taken := texts[s]
		switch {
		case !taken:
			format := s.formats[0]
			if s.kind != 0 {
				format = "0" // any will do (RFC 3264, section 6); pion wants to know more of others
			}
			text = fmt.Sprintf("m=%s 0 %s %s\r\nc=IN IP4 0.0.0.0\r\n", s.media, s.proto, format)
			if s.mid != "" {
				text += "a=mid:" + s.mid + "\r\n"
			}
		case len(o.group) > 0 && s.mid == o.group[0], len(o.group) == 0 && s == o.taken[0]:
			text += candidates.String()
		}
		out += text
	}
	return out
}

// knows reports whether ufrag is one of the offer's: of the transport in use, of
// one that a section would have without BUNDLE, or of one before a restart.
func (o *offer) knows(ufrag string) bool {
	return ufrag == o.ufrag || slices.ContainsFunc(o.sections, func(s *section) bool { return s.ufrag == ufrag })
}

// restarted is the offer as if the client had sent it again with other ICE
// credentials.
func (o *offer) restarted(ufrag, pwd string) *offer {
	again := *o
	again.ufrag, again.pwd, again.candidates = ufrag, pwd, nil
	return &again
}

// maxLinkFormats bounds the formats of a section of a cascade link.
const maxLinkFormats = 16

// linkText is a peer's description for pion, within the limits of the link,
// checked and written anew as an offer is.
func linkText(text string, most limits) (string, error) {
	d, err := parseDescription([]byte(text), most)
	if err != nil {
		return "", err
	}
	var mids string
	var t *section
	for _, s := range d.sections {
		if s.kind == 0 || s.mid == "" && !s.zero || len(s.formats) > maxLinkFormats {
			return "", badSDP("%s of %d formats on a cascade link", s.name(), len(s.formats))
		}
		if !s.zero {
			mids += " " + s.mid
		}
		if t == nil && !s.zero && s.ufrag != "" && s.pwd != "" && s.fingerprint != "" {
			t = s
		}
	}
	if t == nil {
		return "", sdpError("no section with a=ice-ufrag, a=ice-pwd and a=fingerprint")
	}
	var b strings.Builder
	writeSession(&b, mids, d.mixed)
	used := map[int]string{}
	first := true
	for _, s := range d.sections {
		if s.zero || len(s.codecs) == 0 {
			fmt.Fprintf(&b, "m=%s 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\n", s.kind, s.pionMid())
			continue
		}
		tr := t.transport
		if !first {
			tr.candidates = nil
		}
		first = false
		// A link has one format of each name.
		named := map[string]bool{}
		codecs := slices.DeleteFunc(s.codecs, func(c offered) bool {
			twice := named[c.MimeType]
			named[c.MimeType] = true
			return twice
		})
		s.write(&b, tr, s.direction(), codecs, used)
	}
	return b.String(), nil
}

func (s *section) direction() string {
	switch {
	case s.sends && s.receives:
		return "sendrecv"
	case s.sends:
		return "sendonly"
	case s.receives:
		return "recvonly"
	}
	return "inactive"
}

// A fragment is the body of a WHIP or WHEP PATCH (RFC 8840, section 9):
// further candidates, or new ICE credentials, which ask for a restart.
type fragment struct {
	ufrag, pwd string
	candidates []candidate
	skipped    map[string]int
}

func parseFragment(body []byte) (*fragment, error) {
	if len(body) > MaxSDP {
		return nil, badSDP("longer than %d bytes", MaxSDP)
	}
	f := &fragment{skipped: map[string]int{}}
	found := false
	for _, line := range sdpLines(body) {
		if len(line) < 2 || line[1] != '=' {
			return nil, sdpError("not an SDP fragment")
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(key) {
		case "a=ice-ufrag", "a=ice-pwd":
			if !isToken(value) || len(value) > maxToken {
				return nil, badSDP("%s:%s", key, clip(value))
			}
			if strings.EqualFold(key, "a=ice-ufrag") {
				f.ufrag = value
			} else {
				f.pwd = value
			}
		case "a=candidate":
			found = true
			c, why := parseCandidate(value)
			switch {
			case why != "":
				f.skipped[why]++
			case slices.Contains(f.candidates, c):
			case len(f.candidates) == maxCandidates:
				f.skipped[overBound]++
			default:
				f.candidates = append(f.candidates, c)
			}
		case "a=end-of-candidates":
			found = true
		}
	}
	if f.ufrag == "" && !found {
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

// inOrder puts the candidates of a description in the order of their priority,
// so that those over TCP come last. pion has them in none.
func inOrder(text string) string {
	priority := func(line string) (n uint64) {
		if f := strings.Fields(line); len(f) > 3 {
			n, _ = strconv.ParseUint(f[3], 10, 32)
		}
		return n
	}
	lines := slices.Collect(strings.Lines(text))
	for i := 0; i < len(lines); i++ {
		first := i
		for i < len(lines) && strings.HasPrefix(lines[i], "a=candidate:") {
			i++
		}
		slices.SortStableFunc(lines[first:i], func(a, b string) int { return cmp.Compare(priority(b), priority(a)) })
	}
	return strings.Join(lines, "")
}

// rtcpComponent tells a candidate for component 2, which nobody needs where
// RTP and RTCP share a port (RFC 8843 requires that of bundled media).
func rtcpComponent(line string) bool {
	fields := strings.Fields(line)
	return strings.HasPrefix(line, "a=candidate:") && len(fields) > 1 && fields[1] == "2"
}
