package extension

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/sfu/forward"
)

const (
	// inactiveAfter is how long a stream sends nothing before it is inactive.
	// Opus in silence sends each 400 ms.
	inactiveAfter = 2 * time.Second
	// changeInterval is the least time between two events of one kind, other than
	// active and inactive, and bitrateInterval that between two that differ in
	// bitrates only.
	changeInterval  = time.Second
	bitrateInterval = 5 * time.Second
	// keepalive is the longest time without anything sent, so that proxies do not
	// take the connection for dead.
	keepalive = 15 * time.Second
)

// A state is what events tell of, at one moment.
type state struct {
	at      time.Time
	packets int64 // received so far
	viewers int
	layers  *layers // nil: not looked up
}

// layers are the layers of all video sections.
type layers struct {
	text  string // as the event has them
	shape string // without bitrates
}

// news is what has been sent to one reader. One goroutine uses it.
type news struct {
	wanted []string
	again  bool // it reads what another reader has read before
	began  time.Time

	seen      bool
	packets   int64
	moved     time.Time // when packets last came
	active    bool
	told      bool // active or inactive
	viewers   int
	viewersAt time.Time
	layers    layers
	layersAt  time.Time
	lookedAt  time.Time // for layers
	sentAt    time.Time
}

// due returns now, and whether layers have to be looked up for next.
func (n *news) due(now time.Time) (time.Time, bool) {
	if !slices.Contains(n.wanted, eventLayers) || now.Sub(n.lookedAt) < changeInterval {
		return now, false
	}
	n.lookedAt = now
	return now, true
}

// next returns the text of the events to send in state s; "": none.
func (n *news) next(s state) string {
	var b strings.Builder
	write := func(kind, data string) {
		if slices.Contains(n.wanted, kind) {
			fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", kind, data)
		}
	}
	if n.look(s) {
		if n.active {
			write(eventActive, "{}")
		} else {
			write(eventInactive, "{}")
		}
	}
	if (n.viewersAt.IsZero() || s.viewers != n.viewers) && s.at.Sub(n.viewersAt) >= changeInterval {
		n.viewers, n.viewersAt = s.viewers, s.at
		write(eventViewers, fmt.Sprintf(`{"viewercount":%d}`, s.viewers))
	}
	if l := s.layers; l != nil && *l != n.layers && (l.shape != n.layers.shape || s.at.Sub(n.layersAt) >= bitrateInterval) {
		n.layers, n.layersAt = *l, s.at
		write(eventLayers, l.text)
	}
	if b.Len() == 0 && s.at.Sub(n.sentAt) >= keepalive && !n.sentAt.IsZero() {
		b.WriteString(":\n\n")
	}
	if b.Len() > 0 || n.sentAt.IsZero() {
		n.sentAt = s.at
	}
	return b.String()
}

// look notes whether packets have come, and reports whether the stream has become
// active or inactive. A first reader is not told that it is inactive.
func (n *news) look(s state) (changed bool) {
	moved := n.seen && s.packets != n.packets
	n.seen, n.packets = true, s.packets
	if moved {
		n.moved = s.at
	}
	switch quiet := s.at.Sub(n.moved) >= inactiveAfter && s.at.Sub(n.began) >= inactiveAfter; {
	case moved && !(n.told && n.active):
		n.active = true
	case quiet && (n.active || n.again && !n.told):
		n.active = false
	default:
		return false
	}
	n.told = true
	return true
}

// A layerInfo is a layer as the event describes it (draft-ietf-wish-whep).
type layerInfo struct {
	RID      string `json:"rid,omitempty"`
	Spatial  uint8  `json:"spatialLayerId"`
	Temporal uint8  `json:"temporalLayerId"`
	Active   bool   `json:"active"`
	Bitrate  int64  `json:"bitrate,omitempty"` // bit/s
	Width    int    `json:"width,omitempty"`
	Height   int    `json:"height,omitempty"`
}

// layersOf describes layers by section.
func layersOf(sections map[int][]forward.Layer) *layers {
	all, shape := map[string][]layerInfo{}, map[string][]layerInfo{}
	for section, list := range sections {
		key := strconv.Itoa(section)
		all[key], shape[key] = []layerInfo{}, []layerInfo{}
		for _, l := range list {
			info := layerInfo{l.RID, l.Spatial, l.Temporal, l.Active, l.Bitrate, l.Width, l.Height}
			all[key] = append(all[key], info)
			info.Bitrate = 0
			shape[key] = append(shape[key], info)
		}
	}
	text, _ := json.Marshal(all) // cannot fail
	form, _ := json.Marshal(shape)
	return &layers{string(text), string(form)}
}
