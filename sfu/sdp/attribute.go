package sdp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/webrtc/v4"
)

// A builder collects the attributes of a section, or of the session.
type builder struct {
	*Section  // nil for the session
	own       transport
	direction string
	rtpmap    map[int]string
	fmtp      map[int]string
	feedback  map[int]uint64 // bits of usedFeedback
	anyFB     uint64         // feedback bits of a=rtcp-fb:*
	mixed     bool           // a=extmap-allow-mixed
	extIDs    map[int]bool
	extURIs   map[string]bool
}

func newBuilder(s *Section) *builder {
	return &builder{
		Section: s, rtpmap: map[int]string{}, fmtp: map[int]string{}, feedback: map[int]uint64{},
		extIDs: map[int]bool{}, extURIs: map[string]bool{},
	}
}

// attribute records one attribute if it is of use. Everything it keeps is
// bounded.
func (b *builder) attribute(d *Description, key, value string) error {
	switch key {
	case "ice-ufrag", "ice-pwd":
		if !isToken(value) || len(value) > maxToken {
			return bad("a=%s:%s", key, clip(value))
		}
		if key == "ice-ufrag" {
			b.own.Ufrag = value
		} else {
			b.own.Pwd = value
		}
	case "fingerprint":
		f, err := parseFingerprint(value)
		if err != nil {
			return err
		}
		// Of several fingerprints the strongest counts, which is not always the
		// first (RFC 8122, section 5).
		if strings.HasPrefix(f, "sha-256 ") || b.own.fingerprint == "" || strings.HasPrefix(b.own.fingerprint, "sha-1 ") {
			b.own.fingerprint = f
		}
	case "setup":
		b.own.setup = strings.ToLower(value)
	case "sendrecv", "sendonly", "recvonly", "inactive":
		b.direction = key
	case "extmap-allow-mixed":
		b.mixed = true
	}
	if b.Section == nil {
		switch key {
		case "ice-lite":
			d.lite = true
		case "group":
			if fields := strings.Fields(value); len(fields) > 1 && strings.EqualFold(fields[0], "BUNDLE") && len(d.bundles) < MaxSections {
				d.bundles = append(d.bundles, fields[1:])
			}
		}
		return nil
	}
	switch key {
	case "mid":
		if !isToken(value) || len(value) > maxToken {
			return bad("media section %d: a=mid:%s", b.Index, clip(value))
		}
		b.MID = value
	case "candidate":
		c, why := parseCandidate(value)
		switch {
		case why != "":
			d.Skipped[why]++
		case slices.Contains(b.own.Candidates, c): // a duplicate
		case len(b.own.Candidates) == MaxCandidates:
			d.Skipped[TooMany]++
		default:
			b.own.Candidates = append(b.own.Candidates, c)
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
		b.Extensions = append(b.Extensions, Extension{int(n), fields[1]})
	case "msid":
		if fields := strings.Fields(value); len(fields) > 0 && b.msid == "" && len(value) <= maxToken && !slices.ContainsFunc(fields, notToken) {
			b.msid = strings.Join(append(fields, b.Media)[:2], " ")
		}
	case "ssrc":
		id, _, _ := strings.Cut(value, " ")
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && len(b.SSRCs) < maxSSRCs && !slices.Contains(b.SSRCs, uint32(n)) {
			b.SSRCs = append(b.SSRCs, uint32(n))
		}
	case "ssrc-group":
		b.ssrcGroup(strings.Fields(value))
	case "rid":
		b.rid(strings.Fields(value))
	case "simulcast":
		b.simulcast(strings.Fields(value))
	}
	return nil
}

// ssrcGroup records retransmissions (RFC 4588) and the simulcast of clients that
// know no RIDs: old Chromium's, and OBS's.
func (b *builder) ssrcGroup(fields []string) {
	var ssrcs []uint32
	for _, f := range fields[min(1, len(fields)):] {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil || slices.Contains(ssrcs, uint32(n)) {
			return
		}
		ssrcs = append(ssrcs, uint32(n))
	}
	switch {
	case len(ssrcs) == 2 && strings.EqualFold(fields[0], "FID") && len(b.Repairs) < maxSSRCs:
		b.Repairs[ssrcs[0]] = ssrcs[1]
	case len(ssrcs) > 1 && strings.EqualFold(fields[0], "SIM") && b.Sim == nil:
		b.Sim = ssrcs[:min(len(ssrcs), maxLayers)]
	}
}

// rid records the restrictions of a layer that is sent. That to payload types is
// left out: the answer has one.
func (b *builder) rid(fields []string) {
	if len(fields) < 2 || !strings.EqualFold(fields[1], "send") || len(b.rids) == maxLayers || slices.ContainsFunc(fields, notToken) {
		return
	}
	var kept []string
	if len(fields) > 2 {
		for r := range strings.SplitSeq(strings.Join(fields[2:], ""), ";") {
			if !strings.HasPrefix(r, "pt=") && r != "" {
				kept = append(kept, r)
			}
		}
	}
	if text := strings.Join(kept, ";"); len(text) <= maxToken && len(fields[0]) <= maxToken {
		if b.rids == nil {
			b.rids = map[string]string{}
		}
		b.rids[fields[0]] = text
	}
}

// simulcast records the layers that are sent, paused ones (~) too, and of
// alternatives the first (RFC 8853, section 5.1). Firefox once wrote "rid=" before
// them.
func (b *builder) simulcast(fields []string) {
	for i := 0; i+1 < len(fields) && len(b.Layers) == 0; i++ {
		if !strings.EqualFold(fields[i], "send") {
			continue
		}
		for layer := range strings.SplitSeq(strings.TrimPrefix(fields[i+1], "rid="), ";") {
			rid, _, _ := strings.Cut(layer, ",")
			rid = strings.TrimPrefix(rid, "~")
			if isToken(rid) && len(rid) <= maxToken && len(b.Layers) < maxLayers && !slices.Contains(b.Layers, rid) {
				b.Layers = append(b.Layers, rid)
			}
		}
	}
}

// format records an attribute of a payload type.
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
		} else if len(was) <= MaxFmtp+maxSprop { // longer ones make the format unusable
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

// finish makes the section from its own attributes and those of the session.
func (b *builder) finish(session *builder) *Section {
	s := b.Section
	s.transport = b.own
	for _, p := range []struct {
		mine *string
		all  string
	}{{&s.Ufrag, session.own.Ufrag}, {&s.Pwd, session.own.Pwd}, {&s.fingerprint, session.own.fingerprint}, {&s.setup, session.own.setup}} {
		if *p.mine == "" {
			*p.mine = p.all
		}
	}
	direction := b.direction
	if direction == "" {
		direction = session.direction
	}
	s.Sends = direction != "recvonly" && direction != "inactive"
	s.Receives = direction != "sendonly" && direction != "inactive"
	s.Mixed = b.mixed || session.mixed
	s.codecs = b.codecsOf()
	return s
}

// codecsOf returns the forwardable codecs of a section, in the client's order
// of preference.
func (b *builder) codecsOf() []Codec {
	rtx := map[int]webrtc.PayloadType{}
	seen := map[int]bool{}
	var listed []int
	for _, f := range b.Formats {
		n, err := strconv.ParseUint(f, 10, 7)
		if err != nil || seen[int(n)] {
			continue
		}
		seen[int(n)] = true
		listed = append(listed, int(n))
		name, _, _ := strings.Cut(b.rtpmap[int(n)], "/")
		if apt, err := strconv.ParseUint(FmtpValue(b.fmtp[int(n)], "apt"), 10, 7); err == nil && n != 0 && strings.EqualFold(name, "rtx") {
			rtx[int(apt)] = webrtc.PayloadType(n)
		}
	}
	var all []Codec
	for _, pt := range listed {
		b.offer(pt)
		if c, ok := b.codecOf(pt); ok {
			c.RTX = rtx[pt]
			all = append(all, c)
		}
	}
	opus := slices.Clone(all)
	for i := range all {
		if c := &all[i]; c.MimeType == MimeRED {
			c.Inner, c.RTX = innerOf(*c, opus), 0
		}
	}
	return slices.DeleteFunc(all, func(c Codec) bool { return c.MimeType == MimeRED && c.Inner == nil })
}

// innerOf returns the codec among all that the blocks of redundant audio are of:
// of its parameters "111/111" (RFC 2198, section 5) all have to name it. Nil:
// there is none.
func innerOf(c Codec, all []Codec) *Codec {
	first, _, _ := strings.Cut(c.SDPFmtpLine, "/")
	for name := range strings.SplitSeq(c.SDPFmtpLine, "/") {
		if name != first {
			return nil
		}
	}
	i := slices.IndexFunc(all, func(o Codec) bool {
		return o.MimeType == webrtc.MimeTypeOpus && strconv.Itoa(int(o.PT)) == first
	})
	if i < 0 {
		return nil
	}
	return &all[i]
}

// maxNamed bounds the formats that an error names.
const maxNamed = 12

// offer records the name of payload type pt for people.
func (b *builder) offer(pt int) {
	name, _, _ := strings.Cut(b.rtpmap[pt], "/")
	if name == "" {
		name = fmt.Sprintf("payload type %d", pt)
	}
	if c, ok := b.codecOf(pt); ok {
		name = Describe(c.RTPCodecCapability)
	}
	name = strings.TrimSpace(clip(name))
	switch {
	case strings.EqualFold(name, "rtx"), slices.Contains(b.Offers, name), len(b.Offers) > maxNamed, notToken(strings.ReplaceAll(name, " ", "-")):
	case len(b.Offers) == maxNamed:
		b.Offers = append(b.Offers, "…")
	default:
		b.Offers = append(b.Offers, name)
	}
}

func (b *builder) codecOf(pt int) (Codec, bool) {
	mapping := b.rtpmap[pt]
	if mapping == "" {
		for _, c := range forwardable {
			if c.static == pt && KindOf(c.Mime) == b.Kind {
				mapping = fmt.Sprintf("%s/%d", c.name(), c.clock)
			}
		}
	}
	parts := strings.Split(mapping, "/")
	c, ok := codecNamed(b.Kind, strings.TrimSpace(parts[0]))
	fmtp := b.fmtp[pt]
	if !ok || len(fmtp) > MaxFmtp+maxSprop || !printable(fmtp) || len(parts) > 3 {
		return Codec{}, false
	}
	if pt == 0 && c.static != 0 {
		return Codec{}, false // pion treats it as PCMU, whatever a=rtpmap says
	}
	// Without a clock rate it is the codec's own; another rate is another
	// codec.
	if len(parts) > 1 && strings.TrimSpace(parts[1]) != strconv.Itoa(int(c.clock)) {
		return Codec{}, false
	}
	o := Codec{PT: webrtc.PayloadType(pt)}
	if _, said := b.rtpmap[pt]; said && isToken(mapping) && len(parts) > 1 {
		o.rtpmap = mapping
	}
	o.MimeType, o.ClockRate, o.Channels = c.Mime, c.clock, c.channels
	if c.Mime == mimeMultiopus {
		if len(parts) < 3 {
			return Codec{}, false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(parts[2]), 10, 8)
		if err != nil || n == 0 || n > maxChannels {
			return Codec{}, false
		}
		o.Channels = uint16(n)
	}
	var sets []string
	for _, key := range sprop[c.Mime] {
		if v := FmtpValue(fmtp, key); v != "" && h264Mode(fmtp) != 2 {
			sets = append(sets, v)
		}
		fmtp = withoutParameter(fmtp, key)
	}
	o.Sprop = strings.Join(sets, ",")
	if len(fmtp) > MaxFmtp {
		return Codec{}, false
	}
	o.SDPFmtpLine = fmtp
	for i, f := range usedFeedback {
		if (b.feedback[pt]|b.anyFB)&(1<<i) != 0 {
			o.RTCPFeedback = append(o.RTCPFeedback, f)
		}
	}
	return o, true
}
