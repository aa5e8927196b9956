package sdp

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// AnswerText returns the answer for the client: pion's for each accepted
// section, under the client's own names, and port 0 in place of the others (RFC
// 8829, section 5.3.1).
func (o *Offer) AnswerText(answer string) string {
	var parts []string // that of the session, then one for each section
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
	idle, group := o.idle(), o.group
	if idle != nil {
		group = append([]string{idle.MID}, group...)
	}
	if len(group) > 0 {
		head.WriteString("a=group:BUNDLE " + strings.Join(group, " ") + "\r\n")
	}
	// pion puts the candidates into its first section; clients expect them in
	// the first of the BUNDLE group.
	texts := map[*Section]string{}
	for i, s := range o.Taken {
		if i+1 >= len(parts) {
			break
		}
		var b strings.Builder
		for line := range strings.Lines(parts[i+1]) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
			switch {
			case strings.HasPrefix(line, "m="):
				fields := strings.Fields(line)
				fields[2] = s.Proto
				line = strings.Join(fields, " ") + "\r\n"
			case key == "a=candidate", key == "a=end-of-candidates":
				if !rtcpComponent(line) {
					candidates.WriteString(line)
				}
				continue
			case key == "a=mid":
				if s.MID == "" {
					continue
				}
			case key == "a=rtpmap" && s.Codec.rtpmap != "":
				if pt, _, _ := strings.Cut(value, " "); pt == strconv.Itoa(int(s.Codec.PT)) {
					line = fmt.Sprintf("a=rtpmap:%s %s\r\n", pt, s.Codec.rtpmap)
				}
			}
			b.WriteString(line)
		}
		b.WriteString(s.simulcastText())
		texts[s] = b.String()
	}
	if idle != nil {
		texts[idle] = idle.inactiveText(texts[o.Taken[0]])
	}
	out := head.String()
	for _, s := range o.Sections {
		text, taken := texts[s]
		switch {
		case !taken:
			format := s.Formats[0]
			if s.Kind != 0 {
				format = "0" // any format is valid (RFC 3264, section 6); pion would want details of others
			}
			text = fmt.Sprintf("m=%s 0 %s %s\r\nc=IN IP4 0.0.0.0\r\n", s.Media, s.Proto, format)
			if s.MID != "" {
				text += "a=mid:" + s.MID + "\r\n"
			}
		case len(group) > 0 && s.MID == group[0], len(group) == 0 && s == o.Taken[0]:
			text += candidates.String()
		}
		out += text
	}
	return out
}

// idle returns a section that is answered as inactive although nothing flows in
// it; nil: none. It is the first of a group: if that is rejected, Chromium with the
// policy max-bundle, which cannot be told from the offer, refuses the answer.
func (o *Offer) idle() *Section {
	group := o.groupOf(o.Taken[0])
	if group == nil {
		return nil
	}
	for _, s := range o.Sections {
		if s.MID == group[0] && s.Codec == nil && s.Kind != 0 && len(s.codecs) > 0 && !s.zero {
			return s
		}
	}
	return nil
}

// inactiveText returns an answer of the section in which nothing flows, over the
// transport of another one's answer.
func (s *Section) inactiveText(other string) string {
	c := s.codecs[0]
	mapping := c.rtpmap
	if mapping == "" {
		_, name, _ := strings.Cut(c.MimeType, "/")
		mapping = fmt.Sprintf("%s/%d", name, c.ClockRate)
	}
	text := fmt.Sprintf("m=%s 9 %s %d\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\na=inactive\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:%d %s\r\n", s.Media, s.Proto, c.PT, s.MID, c.PT, mapping)
	if c.SDPFmtpLine != "" {
		text += fmt.Sprintf("a=fmtp:%d %s\r\n", c.PT, c.SDPFmtpLine)
	}
	for line := range strings.Lines(other) {
		switch key, _, _ := strings.Cut(line, ":"); key {
		case "a=setup", "a=ice-ufrag", "a=ice-pwd", "a=fingerprint":
			text += line
		}
	}
	return text
}

// simulcastText returns the lines of an answer that accept layers (RFC 8853,
// section 5.3.2; RFC 8851, section 6.3).
func (s *Section) simulcastText() string {
	if len(s.Simulcast) == 0 {
		return ""
	}
	text := ""
	for _, rid := range s.Simulcast {
		text += strings.TrimRight("a=rid:"+rid+" recv "+s.rids[rid], " ") + "\r\n"
	}
	return text + "a=simulcast:recv " + strings.Join(s.Simulcast, ";") + "\r\n"
}

// SortCandidates sorts the candidates of a description by priority, so that
// those over TCP come last. pion does not order them.
func SortCandidates(text string) string {
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

// rtcpComponent reports whether line is a candidate for component 2, which is
// unused where RTP and RTCP share a port (RFC 8843 requires that of bundled
// media).
func rtcpComponent(line string) bool {
	fields := strings.Fields(line)
	return strings.HasPrefix(line, "a=candidate:") && len(fields) > 1 && fields[1] == "2"
}
