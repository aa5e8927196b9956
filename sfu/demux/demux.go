package demux

import (
	"slices"
	"time"

	"weir/sfu/forward"
)

const (
	// takeoverAfter is how long the source that is forwarded in a section has
	// to be silent before another source of the section takes over. It doubles
	// with every change, up to takeoverMost, and is reset after takeoverRest
	// without a change: two sources that alternate do not flap.
	takeoverAfter = 300 * time.Millisecond
	takeoverMost  = 5 * time.Second
	takeoverRest  = 15 * time.Second
	// renewal is the least time between two changes to a new SSRC that a client
	// makes while its old one still sends.
	renewal = time.Second
)

// A Demux assigns each RTP packet of one publisher to its media section: by
// MID, by SSRC where the offer declares them, by payload type (RFC 8843,
// section 9.2); and in a media section of simulcast to its layer, by RID or
// declared SSRC. In each layer one source is forwarded at a time; see
// [Section.takes]. A Demux has no lock, and takes the time from its caller. The
// zero value has no sections.
type Demux struct {
	lines   [][]*Section // the layers of each media section
	byMID   map[string][]*Section
	sources map[uint32]*Source
}

// A Section is one negotiated media section that a publisher sends in, or one
// layer of it (simulcast, RFC 8853).
type Section struct {
	MID         string // "": none
	RID         string // of its layer; "": it is the only one, or known by SSRC
	PayloadType uint8
	RTX         uint8             // payload type of retransmissions (RFC 4588); 0: none
	SSRCs       []uint32          // SSRCs that the offer declares for it
	Repairs     map[uint32]uint32 // declared media SSRC, by the SSRC of its retransmissions

	first    uint32    // the SSRC forwarded first
	current  *Source   // the source forwarded; nil before the first packet
	switched time.Time // when current last changed
	switches int       // changes within takeoverRest of each other
	changes  int       // changes in total
	sources  []*Source // all sources ever seen in the section
}

// A Source is the packets that a publisher sends under one SSRC.
type Source struct {
	SSRC uint32
	RID  string // RID of its simulcast layer; "": not known

	section *Section // nil: not known yet
	named   bool     // section is known by a MID
	moved   bool     // moved once to that section from a guessed one
	came    bool
	bye     bool
	repairs bool // retransmissions by RTX
	last    time.Time
}

// A Mark holds the fields of one packet that decide where it belongs.
type Mark struct {
	PayloadType uint8
	MID         []byte // header extensions (RFC 8843, section 15; RFC 8852); empty: none
	RID         []byte
	RepairedRID []byte
	Size        int // of the payload, in bytes
}

// A Route is the destination of a packet.
type Route struct {
	Section *Section       // nil: none
	Reason  forward.Reason // Forwarded: as media of Section's current source, or as its repair
	Repair  bool           // it is a retransmission
	Probe   bool           // it is padding, a bandwidth probe of a browser, and is not forwarded
	Changed bool           // it made its source the forwarded one, instead of Was
	Was     *Source        // nil: its source is the first of the section
	Silence time.Duration
}

// Add adds one media section, which is one Section, or its layers, the preferred
// first.
func (d *Demux) Add(layers ...*Section) {
	d.lines = append(d.lines, layers)
	if mid := layers[0].MID; mid != "" {
		if d.byMID == nil {
			d.byMID = map[string][]*Section{}
		}
		d.byMID[mid] = layers
	}
}

// Source returns the source of ssrc.
func (d *Demux) Source(ssrc uint32) *Source {
	s := d.sources[ssrc]
	if s == nil {
		if d.sources == nil {
			d.sources = map[uint32]*Source{}
		}
		s = &Source{SSRC: ssrc}
		d.sources[ssrc] = s
	}
	return s
}

// Route returns the destination of a packet of s that was received at now.
func (d *Demux) Route(s *Source, m Mark, now time.Time) Route {
	t, why := d.sectionOf(s, m, now)
	if t == nil {
		return Route{Reason: why}
	}
	if was := s.section; was != t {
		if was != nil {
			s.moved = true
			was.sources = slices.DeleteFunc(was.sources, func(o *Source) bool { return o == s })
		}
		s.section = t
		t.sources = append(t.sources, s)
	}
	r := Route{Section: t, Reason: forward.PayloadType}
	switch {
	case m.PayloadType == t.PayloadType:
		r = t.media(s, m, now)
	case m.PayloadType == t.RTX && t.RTX != 0:
		s.repairs = true
		r = t.repair(s, m, now)
	}
	s.came, s.last = true, now
	return r
}

// sectionOf returns the section of a packet, or the reason why there is none.
func (d *Demux) sectionOf(s *Source, m Mark, now time.Time) (*Section, forward.Reason) {
	line, why := d.lineOf(s, m, now)
	if line == nil {
		return nil, why
	}
	t, why := layerOf(line, s, m)
	if t != nil && s.moved && t != s.section {
		return nil, forward.UnknownSSRC
	}
	if t != nil && len(m.MID) > 0 {
		s.named = true
	}
	return t, why
}

// layerOf returns the one of the layers of a media section that a packet is of.
// What bears no RID and is declared by no SSRC is of the preferred layer: it is
// of a client that sends one only.
func layerOf(line []*Section, s *Source, m Mark) (*Section, forward.Reason) {
	if len(line) == 1 {
		return line[0], forward.Forwarded
	}
	rid := string(m.RID)
	if rid == "" {
		rid = string(m.RepairedRID)
	}
	if rid != "" {
		if i := slices.IndexFunc(line, func(t *Section) bool { return t.RID == rid }); i >= 0 {
			return line[i], forward.Forwarded
		}
		return nil, forward.OtherLayer
	}
	if slices.Contains(line, s.section) {
		return s.section, forward.Forwarded
	}
	for _, t := range line {
		of, repairs := t.Repairs[s.SSRC]
		if t.declares(s) || repairs && (t.current != nil && t.current.SSRC == of || slices.Contains(t.SSRCs, of)) {
			return t, forward.Forwarded
		}
	}
	if m.PayloadType == line[0].RTX && line[0].RTX != 0 {
		return nil, forward.Unpaired
	}
	return line[0], forward.Forwarded
}

// lineOf returns the media section of a packet, or the reason why there is none.
func (d *Demux) lineOf(s *Source, m Mark, now time.Time) ([]*Section, forward.Reason) {
	if len(m.MID) > 0 {
		if line := d.byMID[string(m.MID)]; line != nil {
			return line, forward.Forwarded
		}
		return nil, forward.NoSection
	}
	var fit [][]*Section
	for _, line := range d.lines {
		if s.section != nil {
			if slices.Contains(line, s.section) {
				return line, forward.Forwarded
			}
			continue
		}
		if slices.ContainsFunc(line, func(t *Section) bool { return t.declares(s) }) {
			return line, forward.Forwarded
		}
		if t := line[0]; m.PayloadType == t.PayloadType || t.RTX != 0 && m.PayloadType == t.RTX {
			fit = append(fit, line)
		}
	}
	switch {
	case len(fit) == 0:
		return nil, forward.PayloadType
	case len(fit) == 1:
		return fit[0], forward.Forwarded
	}
	// Several sections have this codec, and the packet names none: fill them in
	// order; later continue a silent one.
	var silent [][]*Section
	for _, line := range fit {
		switch t := line[0]; {
		case m.PayloadType != t.PayloadType:
		case t.current == nil && len(t.SSRCs) == 0:
			return line, forward.Forwarded
		case t.current != nil && now.Sub(t.current.last) >= takeoverAfter:
			silent = append(silent, line)
		}
	}
	if len(silent) == 1 {
		return silent[0], forward.Forwarded
	}
	return nil, forward.UnknownSSRC
}

// Goodbye records that the publisher has sent BYE for ssrc (RFC 3550, section
// 6.6): another source may take over at once.
func (d *Demux) Goodbye(ssrc uint32) {
	if s := d.sources[ssrc]; s != nil {
		s.bye = true
	}
}

// Current returns the section in which ssrc is forwarded, or nil.
func (d *Demux) Current(ssrc uint32) *Section {
	if s := d.sources[ssrc]; s != nil && s.section != nil && s.section.current == s {
		return s.section
	}
	return nil
}

// media routes a media packet of s.
func (t *Section) media(s *Source, m Mark, now time.Time) Route {
	if len(m.RID) > 0 && string(m.RID) != s.RID {
		s.RID = string(m.RID)
	}
	r := Route{Section: t}
	if s != t.current {
		if !t.takes(s, now) {
			r.Reason = forward.SecondStream
			if t.declares(t.current) && t.declares(s) {
				r.Reason = forward.OtherLayer
			}
			return r
		}
		r.Changed, r.Was = true, t.current
		if r.Was != nil {
			r.Silence = now.Sub(r.Was.last)
		}
		t.change(s, now)
	}
	s.bye = false
	return r
}

// change makes s the forwarded source.
func (t *Section) change(s *Source, now time.Time) {
	if t.current != nil {
		t.changes++
		if now.Sub(t.switched) > takeoverRest {
			t.switches = 0
		}
		t.switches++
	}
	t.current, t.switched = s, now
	if t.first == 0 {
		t.first = s.SSRC
	}
}

// repair routes a retransmission of s.
func (t *Section) repair(s *Source, m Mark, now time.Time) Route {
	r := Route{Section: t, Repair: true}
	of, declared := t.Repairs[s.SSRC]
	switch {
	case m.Size < 2: // no sequence number of an original
		r.Probe = true
	case t.current == nil:
		r.Reason = forward.Unpaired
	case declared && of != t.current.SSRC:
		r.Reason = forward.OtherLayer
	case !declared && len(m.RepairedRID) == 0 && t.several(now):
		r.Reason = forward.Unpaired
	}
	return r
}

// takes reports whether s, which sends, is to be forwarded in the section
// instead of the current source: when the current source is silent or has left;
// and when s is new and carries the section's MID, since a client changes its
// SSRC that way.
func (t *Section) takes(s *Source, now time.Time) bool {
	if t.current == nil || t.current.bye || t.current.section != t {
		return true
	}
	patience := min(takeoverAfter<<min(t.switches, 5), takeoverMost)
	if now.Sub(t.switched) > takeoverRest {
		patience = takeoverAfter
	}
	if now.Sub(t.current.last) >= patience {
		return true
	}
	return !s.came && s.named && s.RID == t.current.RID && !t.declares(s) && now.Sub(t.switched) >= max(renewal, patience)
}

// declares reports whether the offer names the SSRC of s.
func (t *Section) declares(s *Source) bool { return slices.Contains(t.SSRCs, s.SSRC) }

// several reports whether more than one media source flows in the section.
func (t *Section) several(now time.Time) bool {
	n := 0
	for _, s := range t.sources {
		if !s.repairs && now.Sub(s.last) < takeoverAfter {
			n++
		}
	}
	return n > 1
}

// Current returns the source that is forwarded; nil before the first packet.
func (t *Section) Current() *Source { return t.current }

// Changes returns how often another source has taken over.
func (t *Section) Changes() int { return t.changes }

// AskUnder returns the SSRCs under which to request a keyframe: a client that
// changes its SSRC without notice may accept requests for the first one only.
// It is empty until something is forwarded.
func (t *Section) AskUnder() []uint32 {
	ask := []uint32{t.current.SSRC}
	if t.current.RID == "" && t.first != t.current.SSRC {
		ask = append(ask, t.first)
	}
	return ask
}
