package extension

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"weir/sfu/forward"
	"weir/sfu/problem"
)

// A selection is what a viewer wants of one video section. Without any limit it
// leaves the choice to this node.
type selection struct {
	Section     any    `json:"mediaId"` // the index of a section in the offer; none: the first of video
	RID         string `json:"rid"`
	Encoding    string `json:"encodingId"` // the name of rid in earlier drafts
	Spatial     *uint8 `json:"spatialLayerId"`
	Temporal    *uint8 `json:"temporalLayerId"`
	MaxSpatial  *uint8 `json:"maxSpatialLayerId"`
	MaxTemporal *uint8 `json:"maxTemporalLayerId"`
	MaxWidth    int    `json:"maxWidth"` // px; 0: no limit
	MaxHeight   int    `json:"maxHeight"`
}

// choose serves the layer extension.
func (s *Session) choose(w http.ResponseWriter, r *http.Request, _ string) error {
	var want selection
	if _, err := decode(w, r, &want); err != nil {
		return err
	}
	sections := s.media.Layers()
	section, err := want.section(sections)
	if err != nil {
		return err
	}
	c, err := want.among(sections[section])
	if err != nil {
		return err
	}
	if err := s.change(); err != nil {
		return err
	}
	s.media.Choose(section, c)
	w.WriteHeader(http.StatusOK)
	return nil
}

// change counts one more change of what is sent, each of which may cost the
// publisher a keyframe.
func (s *Session) change() error {
	if s.changes.Allow() {
		return nil
	}
	return problem.New(problem.TooManyChanges, "what is sent may be changed once a second").Retry(time.Second)
}

// section returns the section that is meant.
func (w *selection) section(sections map[int][]forward.Layer) (int, error) {
	all := slices.Sorted(maps.Keys(sections))
	if len(all) == 0 {
		return 0, problem.New(problem.BadParameter, "no video is sent")
	}
	index := all[0]
	switch id := w.Section.(type) {
	case nil:
	case float64:
		index = int(id)
	case string:
		n, err := strconv.Atoi(id)
		if err != nil {
			n = -1
		}
		index = n
	default:
		index = -1
	}
	if !slices.Contains(all, index) {
		return 0, problem.New(problem.BadParameter, fmt.Sprintf("mediaId is the index of a video section in the offer: %v", all))
	}
	return index, nil
}

// among returns the choice of the layers that there are, the least first.
func (w *selection) among(there []forward.Layer) (forward.Choice, error) {
	c := forward.Choice{RID: w.RID, Spatial: least(w.Spatial, w.MaxSpatial), Temporal: least(w.Temporal, w.MaxTemporal)}
	if c.RID == "" {
		c.RID = w.Encoding
	}
	if c.RID != "" && !slices.ContainsFunc(there, func(l forward.Layer) bool { return l.RID == c.RID }) {
		return c, problem.New(problem.BadParameter, fmt.Sprintf("there is no layer of that rid: there are %s", names(there)))
	}
	if w.MaxWidth <= 0 && w.MaxHeight <= 0 {
		return c, nil
	}
	fits := func(l forward.Layer) bool {
		return (w.MaxWidth <= 0 || l.Width <= w.MaxWidth) && (w.MaxHeight <= 0 || l.Height <= w.MaxHeight)
	}
	if !slices.ContainsFunc(there, func(l forward.Layer) bool { return l.Width > 0 }) {
		return c, problem.New(problem.BadParameter, "the sizes of the layers are not known: choose by rid or spatialLayerId")
	}
	best := there[0] // if none fits, the least
	for _, l := range there {
		if l.Width > 0 && fits(l) && (c.RID == "" || l.RID == c.RID) {
			best = l
		}
	}
	if c.RID == "" {
		c.RID = best.RID
	}
	c.Spatial = least(c.Spatial, &best.Spatial)
	return c, nil
}

// least returns the lower of two limits; nil: none.
func least(a, b *uint8) *uint8 {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

// names lists the RIDs of layers.
func names(there []forward.Layer) string {
	var all []string
	for _, l := range there {
		if l.RID != "" && !slices.Contains(all, l.RID) {
			all = append(all, l.RID)
		}
	}
	if all == nil {
		return "none that have one"
	}
	return fmt.Sprint(all)
}

// mediaState says which kinds of media are sent; nil: the session has none of it.
type mediaState struct {
	Audio *bool `json:"audio,omitempty"`
	Video *bool `json:"video,omitempty"`
}

func (s *Session) describe(w http.ResponseWriter, _ *http.Request, _ string) error {
	var m mediaState
	for _, k := range []struct {
		kind forward.Kind
		sent **bool
	}{{forward.Audio, &m.Audio}, {forward.Video, &m.Video}} {
		if paused, ok := s.media.Paused(k.kind); ok {
			sent := !paused
			*k.sent = &sent
		}
	}
	return reply(w, m)
}

// pause stops kinds of media that the viewer does not want now, and goes on with
// others. What is not named stays as it is.
func (s *Session) pause(w http.ResponseWriter, r *http.Request, url string) error {
	var want mediaState
	if given, err := decode(w, r, &want); err != nil {
		return err
	} else if !given {
		return problem.New(problem.BadBody, `send the kinds to pause or to go on with, such as {"video": false}`)
	}
	wants := map[forward.Kind]*bool{forward.Audio: want.Audio, forward.Video: want.Video}
	for kind, sent := range wants {
		if _, ok := s.media.Paused(kind); !ok && sent != nil {
			return problem.New(problem.BadParameter, fmt.Sprintf("the session has no %s", kind))
		}
	}
	if err := s.change(); err != nil {
		return err
	}
	for kind, sent := range wants {
		if sent != nil {
			s.media.Pause(kind, !*sent)
		}
	}
	return s.describe(w, r, url)
}
