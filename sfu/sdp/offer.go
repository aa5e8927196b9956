package sdp

import (
	"fmt"
	"slices"
)

// An Offer is a client's SDP that is to be answered: each section is accepted
// or not, and pion sees only the accepted ones.
type Offer struct {
	*Description
	transport // of all accepted sections: one for all (BUNDLE)
	Taken     []*Section
	group     []string // mids of the answer's BUNDLE group; nil: none offered
}

// ParseOffer parses a client's offer. Any error is an Error.
func ParseOffer(body []byte) (*Offer, error) {
	d, err := ParseDescription(body, Limits{MaxBytes, MaxSections, MaxLines})
	if err != nil {
		return nil, err
	}
	any := func(has func(*Section) bool) bool { return slices.ContainsFunc(d.Sections, has) }
	switch {
	case !any(func(s *Section) bool { return s.Kind != 0 }):
		return nil, bad("media section 0 is %q over %s: only audio and video are taken, over RTP", d.Sections[0].Media, d.Sections[0].Proto)
	case !any(func(s *Section) bool { return s.Ufrag != "" }):
		return nil, Error("no a=ice-ufrag")
	case !any(func(s *Section) bool { return s.Pwd != "" }):
		return nil, Error("no a=ice-pwd")
	case !any(func(s *Section) bool { return s.fingerprint != "" }):
		return nil, Error("no a=fingerprint: media must be encrypted with DTLS-SRTP")
	}
	return &Offer{Description: d}, nil
}

// Untaken returns the offer without any accepted section.
func (o *Offer) Untaken() *Offer {
	d := *o.Description
	d.Sections = nil
	for _, s := range o.Sections {
		fresh := *s
		fresh.Codec, fresh.Why = nil, ""
		d.Sections = append(d.Sections, &fresh)
	}
	return &Offer{Description: &d}
}

// Passive reports whether the client insists on being the server of the DTLS
// handshake (RFC 8842, section 5.2). Valid after Settle.
func (o *Offer) Passive() bool { return o.setup == "passive" }

// An Unacceptable offer is well-formed, but contains something that this server
// does not accept, and an answer without that part would be of no use to the
// client (RFC 9725, section 4.4). The text is for the client.
type Unacceptable string

func (e Unacceptable) Error() string { return string(e) }

// InUse reports whether the section wants media at all. If not, it sets why.
func (o *Offer) InUse(s *Section) bool {
	switch {
	case s.Kind == 0:
		s.Why = fmt.Sprintf("%s over %s is not taken", s.Media, s.Proto)
	case s.zero && (!s.bundled || o.groupOf(s) == nil):
		s.Why = "it was offered at port 0"
	default:
		return true
	}
	return false
}

func (o *Offer) groupOf(s *Section) []string {
	for _, g := range o.bundles {
		if s.MID != "" && slices.Contains(g, s.MID) {
			return g
		}
	}
	return nil
}

// Take accepts s with codec c.
func (o *Offer) Take(s *Section, c Codec) {
	s.Codec = &c
	o.Taken = append(o.Taken, s)
}

// Settle finds the one transport of all accepted sections. There must be one:
// weir has one port, and a section that is not bundled needs its own.
func (o *Offer) Settle() error {
	if o.lite {
		return Unacceptable("the offer is of an ICE-lite client, and this server checks only addresses that checks come from: neither would begin; offer without a=ice-lite")
	}
	slices.SortFunc(o.Taken, func(a, b *Section) int { return a.Index - b.Index })
	first := o.Taken[0]
	group := o.groupOf(first)
	for _, s := range o.Taken[1:] {
		if !slices.Contains(group, s.MID) || s.MID == "" {
			return Unacceptable(fmt.Sprintf("%s and %s are not in one BUNDLE group, and all media goes over one transport here: offer a=group:BUNDLE with their mids (RFC 9143; bundlePolicy max-bundle in browsers, bundle-policy=max-bundle in GStreamer)", first.Name(), s.Name()))
		}
	}
	tagged := first
	if group != nil {
		// The first in the order of the group whose transport is described (RFC
		// 9143, section 7.3.2); bundle-only ones need not describe any.
		if tagged = described(group, o.Taken); tagged == nil {
			tagged = described(group, o.Sections)
		}
		for _, mid := range group {
			if slices.ContainsFunc(o.Taken, func(s *Section) bool { return s.MID == mid }) && !slices.Contains(o.group, mid) {
				o.group = append(o.group, mid)
			}
		}
	}
	if tagged == nil || tagged.Ufrag == "" || tagged.Pwd == "" || tagged.fingerprint == "" {
		return bad("%s has no a=ice-ufrag, a=ice-pwd or a=fingerprint", first.Name())
	}
	o.transport = tagged.transport
	return nil
}

// described finds the first of group among sections that describes its
// transport.
func described(group []string, sections []*Section) *Section {
	for _, mid := range group {
		for _, s := range sections {
			if s.MID == mid && s.Ufrag != "" && s.fingerprint != "" {
				return s
			}
		}
	}
	return nil
}

// Refused lists the sections that are not accepted, and why.
func (o *Offer) Refused() []string {
	var all []string
	for _, s := range o.Sections {
		if s.Codec == nil && s.Why != "" {
			all = append(all, s.Name()+": "+s.Why)
		}
	}
	return all
}

// Knows reports whether ufrag is one of the offer's: of the transport in use,
// of one that a section would have without BUNDLE, or of one before a restart.
func (o *Offer) Knows(ufrag string) bool {
	return ufrag == o.Ufrag || slices.ContainsFunc(o.Sections, func(s *Section) bool { return s.Ufrag == ufrag })
}

// Restarted returns the offer as if the client had sent it again with other ICE
// credentials.
func (o *Offer) Restarted(ufrag, pwd string) *Offer {
	again := *o
	again.Ufrag, again.Pwd, again.Candidates = ufrag, pwd, nil
	return &again
}
