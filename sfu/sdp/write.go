package sdp

import (
	"fmt"
	"slices"
	"strings"
)

// PionMID returns the section's mid for pion: the client's mid, if it has one.
func (s *Section) PionMID() string {
	if s.MID != "" {
		return s.MID
	}
	return fmt.Sprintf("weir-%d", s.Index)
}

// Text returns the offer for pion: the accepted part, rewritten, without the
// client's candidates.
func (o *Offer) Text() string {
	var b strings.Builder
	mids := ""
	for _, s := range o.Taken {
		mids += " " + s.PionMID()
	}
	writeSession(&b, mids, allMixed(o.Taken))
	used := map[int]string{}
	t := o.transport
	t.Candidates = nil
	for _, s := range o.Taken {
		direction := "recvonly"
		if s.Sends {
			direction = "sendonly"
		}
		// The ingress distinguishes streams itself. pion gets no SSRCs, and a
		// line without one keeps it from probing for some.
		unsaid := *s
		unsaid.SSRCs = nil
		unsaid.write(&b, t, direction, []Codec{*s.Codec}, used)
		if s.Sends {
			b.WriteString("a=ssrc:none\r\n")
		}
	}
	return b.String()
}

// allMixed reports whether header extensions of both forms may be mixed in all
// sections: pion knows that of the session only.
func allMixed(sections []*Section) bool {
	return !slices.ContainsFunc(sections, func(s *Section) bool { return !s.Mixed })
}

func writeSession(b *strings.Builder, mids string, mixed bool) {
	b.WriteString("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE" + mids + "\r\n")
	if mixed {
		b.WriteString("a=extmap-allow-mixed\r\n")
	}
}

// write writes the section for pion. Used holds the header extensions by ID of
// the sections before: in a BUNDLE group one ID has one meaning.
func (s *Section) write(b *strings.Builder, t transport, direction string, codecs []Codec, used map[int]string) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\r\n", args...) }
	formats := ""
	for _, c := range codecs {
		for _, p := range c.Params() {
			formats += fmt.Sprintf(" %d", p.PayloadType)
		}
	}
	line("m=%s 9 UDP/TLS/RTP/SAVPF%s", s.Kind, formats)
	line("c=IN IP4 0.0.0.0")
	line("a=mid:%s", s.PionMID())
	line("a=%s", direction)
	line("a=rtcp-mux")
	line("a=rtcp-rsize")
	line("a=ice-ufrag:%s", t.Ufrag)
	line("a=ice-pwd:%s", t.Pwd)
	line("a=fingerprint:%s", t.fingerprint)
	if t.setup == "active" || t.setup == "passive" {
		line("a=setup:%s", t.setup)
	} else {
		line("a=setup:actpass")
	}
	for _, c := range codecs {
		for _, p := range c.Params() {
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
	for _, e := range s.Extensions {
		if was := used[e.ID]; was == "" || was == e.URI {
			used[e.ID] = e.URI
			line("a=extmap:%d %s", e.ID, e.URI)
		}
	}
	if direction != "recvonly" {
		if s.msid != "" {
			line("a=msid:%s", s.msid)
		}
		// One stream of media and its retransmissions: with more, pion assumes
		// a description of another kind.
		if len(s.SSRCs) > 0 {
			media := s.SSRCs[0]
			repair, repaired := s.Repairs[media]
			if repaired {
				line("a=ssrc-group:FID %d %d", media, repair)
			}
			line("a=ssrc:%d cname:weir", media)
			if repaired {
				line("a=ssrc:%d cname:weir", repair)
			}
		}
	}
	for _, c := range t.Candidates {
		line("a=candidate:%s", c)
	}
}
