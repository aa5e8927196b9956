package whip

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/sfu/sdp"
)

// SessionStatus is a session as shown by the admin API.
type SessionStatus struct {
	ID        string     `json:"id"`
	Kind      Kind       `json:"kind"`
	Stream    string     `json:"stream"`
	Remote    string     `json:"remote"`
	From      peer.ID    `json:"redirected_from,omitempty"` // the node that redirected the client here
	Since     time.Time  `json:"since"`
	Subject   string     `json:"subject,omitempty"`     // the subject of its token
	Right     *time.Time `json:"right_until,omitempty"` // when its right ends; null: never, or no access control
	State     string     `json:"state"`
	Bitrate   int64      `json:"bitrate"` // bit/s of RTP over the last seconds
	RTT       float64    `json:"rtt_ms"`  // ms, by a viewer's last receiver report; 0: unknown
	Packets   int64      `json:"packets"`
	Bytes     int64      `json:"bytes"`
	Lost      int64      `json:"lost"`
	Skipped   int64      `json:"skipped,omitempty"` // packets that this node could not send to a viewer in time
	Loss      float64    `json:"loss"`              // share of packets lost over the last seconds, 0…1
	Keyframes int64      `json:"keyframes"`
	// Of a viewer: what its connection carries by its feedback, the limit of its
	// video where there are layers to choose from, both in bit/s, and whether
	// padding is being sent to find more. 0: unknown; no limit.
	Estimate int64 `json:"estimate,omitempty"`
	Target   int64 `json:"target,omitempty"`
	Probing  bool  `json:"probing,omitempty"`
	// Layer is the layer of video that is sent to a viewer, where there are several.
	Layer *LayerStatus `json:"layer,omitempty"`
	// NotTaken are the sections and tracks without media, and why.
	NotTaken []string `json:"not_taken,omitempty"`
	// CandidatesUnused counts unused ICE candidates by reason.
	CandidatesUnused map[string]int `json:"candidates_unused,omitempty"`
	// Of a publisher: its sections, and the received packets that were not
	// forwarded, by reason.
	Sections     []sdp.SectionStatus `json:"sections,omitempty"`
	NotForwarded map[string]int64    `json:"not_forwarded,omitempty"`
}

// LayerStatus is one layer of video.
type LayerStatus struct {
	RID      string `json:"rid,omitempty"` // of simulcast
	Spatial  uint8  `json:"spatial"`
	Temporal uint8  `json:"temporal"`
	Bitrate  int64  `json:"bitrate"`         // bit/s, as it comes from the publisher; 0: not measured yet
	Width    int    `json:"width,omitempty"` // px; 0: unknown
	Height   int    `json:"height,omitempty"`
}

// layer returns the layer that is sent to a viewer; nil: there is one only.
func (s *session) layer() *LayerStatus {
	if s.viewer == nil {
		return nil
	}
	several := false
	for _, all := range s.viewer.Layers() {
		several = several || len(all) > 1
	}
	l, ok := s.viewer.Sending()
	if !several || !ok {
		return nil
	}
	return &LayerStatus{RID: capacity.Printable(l.RID, 32), Spatial: l.Spatial, Temporal: l.Temporal, Bitrate: l.Bitrate, Width: l.Width, Height: l.Height}
}

// paceOver is the time over which bitrate and loss are averaged.
const paceOver = 2 * time.Second

// A pace is the recent rate of a session's traffic. The zero value is ready.
type pace struct {
	mu      sync.Mutex
	at      time.Time
	last    Traffic
	bitrate int64
	loss    float64
}

// sample updates the rates from the session's totals at now.
func (p *pace) sample(now time.Time, t Traffic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	span := now.Sub(p.at)
	if span < paceOver {
		return
	}
	if !p.at.IsZero() {
		p.bitrate = int64(float64(8*(t.Bytes-p.last.Bytes)) / span.Seconds())
		lost, came := max(0, t.Lost-p.last.Lost), t.Packets-p.last.Packets
		p.loss = 0
		if lost+came > 0 {
			p.loss = float64(lost) / float64(lost+came)
		}
	}
	p.at, p.last = now, t
}

func (p *pace) of() (bitrate int64, loss float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bitrate, p.loss
}

// all returns the current sessions, in no order.
func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.sessions))
}

// Sessions returns the WHIP and WHEP sessions, oldest first.
func (s *Server) Sessions() []SessionStatus {
	list := []SessionStatus{}
	for _, sess := range s.all() {
		t := sess.transport.Traffic()
		st := SessionStatus{
			ID: sess.id, Kind: sess.kind, Stream: sess.stream.Name, Remote: sess.remote, From: sess.from, Since: sess.began,
			State: sess.transport.State(), Packets: t.Packets, Bytes: t.Bytes, Lost: t.Lost, Skipped: t.Skipped, Keyframes: t.Keyframes,
			NotTaken: sess.transport.NotTaken(), CandidatesUnused: sess.transport.Unused(),
		}
		st.Bitrate, st.Loss = sess.pace.of()
		if c := sess.transport.Congestion(); c.Known {
			st.Estimate, st.Target, st.Probing = c.Bitrate, c.Target, c.Probing
		}
		if g := sess.grant; g != nil {
			st.Subject = capacity.Printable(g.Subject, 128)
			if !g.Expires.IsZero() {
				st.Right = &g.Expires
			}
		}
		st.Layer = sess.layer()
		st.RTT = capacity.Milliseconds(sess.transport.RTT())
		if p := sess.publisher; p != nil {
			st.Sections, st.NotForwarded = p.Sections(time.Now()), p.NotForwarded()
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b SessionStatus) int { return a.Since.Compare(b.Since) })
	return list
}

// Lost returns the packets that current sessions have lost, by role: those of
// publishers on their way here, those of viewers by their receiver reports.
func (s *Server) Lost() map[string]int64 {
	lost := map[string]int64{}
	for _, sess := range s.all() {
		lost[sess.kind.role()] += max(0, sess.transport.Traffic().Lost)
	}
	return lost
}

// Congestion returns how many viewers there are by what their feedback says:
// "unknown", "free" of a limit, or "limited" to lower layers.
func (s *Server) Congestion() map[string]int {
	n := map[string]int{"unknown": 0, "free": 0, "limited": 0}
	for _, sess := range s.all() {
		switch c := sess.transport.Congestion(); {
		case sess.kind == WHIP:
		case !c.Known:
			n["unknown"]++
		case c.Target == 0:
			n["free"]++
		default:
			n["limited"]++
		}
	}
	return n
}

// EndSession ends one session at the operator's request, and reports whether
// there was one.
func (s *Server) EndSession(id, why string) bool {
	s.mu.Lock()
	sess := s.sessions[id]
	s.mu.Unlock()
	if sess == nil {
		return false
	}
	sess.end(why)
	<-sess.done
	return true
}

// EndStream ends the stream of that name, which must be published here, with
// its publisher's session. The sessions of its viewers end, too.
func (s *Server) EndStream(name, why string) bool {
	for _, sess := range s.all() {
		if sess.kind == WHIP && sess.stream.Name == name {
			return s.EndSession(sess.id, why)
		}
	}
	return false
}
