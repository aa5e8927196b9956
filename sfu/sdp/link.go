package sdp

import (
	"fmt"
	"slices"
	"strings"
)

// MaxLinkFormats bounds the formats of a section of a cascade link.
const MaxLinkFormats = 16

// LinkText returns a peer's description for pion, within the limits of the
// link, checked and rewritten like an offer.
func LinkText(text string, most Limits) (string, error) {
	d, err := ParseDescription([]byte(text), most)
	if err != nil {
		return "", err
	}
	var mids string
	var t *Section
	for _, s := range d.Sections {
		if s.Kind == 0 || s.MID == "" && !s.zero || len(s.Formats) > MaxLinkFormats {
			return "", bad("%s of %d formats on a cascade link", s.Name(), len(s.Formats))
		}
		if !s.zero {
			mids += " " + s.MID
		}
		if t == nil && !s.zero && s.Ufrag != "" && s.Pwd != "" && s.fingerprint != "" {
			t = s
		}
	}
	if t == nil {
		return "", Error("no section with a=ice-ufrag, a=ice-pwd and a=fingerprint")
	}
	var b strings.Builder
	writeSession(&b, mids, allMixed(d.Sections))
	used := map[int]string{}
	first := true
	for _, s := range d.Sections {
		if s.zero || len(s.codecs) == 0 {
			fmt.Fprintf(&b, "m=%s 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\n", s.Kind, s.PionMID())
			continue
		}
		tr := t.transport
		if !first {
			tr.Candidates = nil
		}
		first = false
		// A link has one format for each name.
		named := map[string]bool{}
		for i := range s.codecs {
			s.codecs[i].Inner = nil
		}
		codecs := slices.DeleteFunc(s.codecs, func(c Codec) bool {
			twice := named[c.MimeType]
			named[c.MimeType] = true
			return twice
		})
		s.write(&b, tr, s.direction(), codecs, used)
	}
	return b.String(), nil
}

func (s *Section) direction() string {
	switch {
	case s.Sends && s.Receives:
		return "sendrecv"
	case s.Sends:
		return "sendonly"
	case s.Receives:
		return "recvonly"
	}
	return "inactive"
}
