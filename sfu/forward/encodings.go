package forward

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"weir/sfu/layer"
)

const (
	// switchPace is the number of keyframes a second that are requested so that
	// receivers can switch, of all encodings of a track together, after a burst
	// of one for each: whoever switches to and fro costs the encoder no more.
	switchPace = 1
	// switchAgain is when a keyframe that has not come is requested again.
	switchAgain = time.Second
)

// A group is the receivers of a track, whichever of its encodings they get. The
// zero value is ready.
type group struct {
	mu   sync.Mutex
	all  []*DownTrack
	pace *rate.Limiter
}

// Simulcast makes t consist of one encoding for each of rids, the preferred
// first (RFC 8853, section 5.2). Call it before anything is attached or added.
// Each packet then comes by an UpTrack of one of [Track.Encodings], and each
// DownTrack gets one encoding at a time.
func (t *Track) Simulcast(rids []string) {
	for _, rid := range rids {
		e := &Track{ID: t.ID, Codec: t.Codec, RID: rid}
		if t.Sets != nil {
			own := *t.Sets
			e.Sets = &own
		}
		t.encodings = append(t.encodings, e)
	}
}

// Encodings returns the encodings of t, in their order of preference; t alone if
// it is not simulcast.
func (t *Track) Encodings() []*Track {
	if t.encodings == nil {
		return []*Track{t}
	}
	return t.encodings
}

// Review makes each receiver of t get the layers that suit it now.
func (t *Track) Review(now time.Time) {
	if !t.video() {
		return
	}
	rungs, encodings := t.rungs(now)
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	var awaited []*Track
	for _, d := range t.group.all {
		if e := t.direct(d, rungs, encodings, now); e != nil && !slices.Contains(awaited, e) {
			awaited = append(awaited, e)
		}
	}
	// Those that do not answer must not use up the pace of the others.
	slices.SortFunc(awaited, func(a, b *Track) int { return a.asked().Compare(b.asked()) })
	for _, e := range awaited {
		t.requestSwitch(e, now)
	}
}

// Review makes d alone get the layers that suit it now, as [Track.Review] does
// for all.
func (d *DownTrack) Review(now time.Time) {
	t := d.Track
	if !t.video() {
		return
	}
	rungs, encodings := t.rungs(now)
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	if slices.Contains(t.group.all, d) {
		t.requestSwitch(t.direct(d, rungs, encodings, now), now)
	}
}

// direct makes d get the rung that suits it, and returns the encoding of which it
// awaits a keyframe for that; nil: none. Called with group.mu held.
func (t *Track) direct(d *DownTrack, rungs []layer.Rung, encodings []*Track, now time.Time) *Track {
	d.mu.Lock()
	wish, at, was := d.wish(), d.at(), d.to
	current := lastIndex(rungs, func(r *layer.Rung) bool {
		return encodings[r.Encoding] == at && r.Spatial <= d.filter.At().Spatial
	})
	i := layer.Pick(rungs, wish, current)
	to := encodings[rungs[i].Encoding]
	d.filter.Want(layer.Wanted(rungs, i, wish))
	highest := rungs[lastIndex(rungs, func(r *layer.Rung) bool { return r.Encoding == rungs[i].Encoding })].Spatial
	waits := at != nil && (at != to || d.filter.Waits(highest))
	if d.to = to; to != was {
		d.since = now
	}
	d.mu.Unlock()
	if to != was && was != nil && was != at {
		was.release(d)
	}
	if to != at || was == nil { // again if it is pending: its release from before may have overtaken that
		to.add(d, at != nil && at != to, now)
	}
	if waits && !d.Relay || at != nil && at != to {
		return to
	}
	return nil
}

func lastIndex(rungs []layer.Rung, is func(*layer.Rung) bool) int {
	for i := range slices.Backward(rungs) {
		if is(&rungs[i]) {
			return i
		}
	}
	return -1
}

// requestSwitch requests a keyframe of an encoding, nil for none, as fast as
// switchPace allows. Called with group.mu held.
func (t *Track) requestSwitch(e *Track, now time.Time) {
	if e == nil {
		return
	}
	up := e.attached()
	if up == nil {
		return
	}
	if t.group.pace == nil {
		t.group.pace = rate.NewLimiter(switchPace, len(t.Encodings()))
	}
	// What is withheld now, the next review requests.
	if !up.awaits(now) && t.group.pace.AllowN(now, 1) {
		up.requestKeyframe()
	}
}

// asked returns when a keyframe was requested last; zero: never.
func (t *Track) asked() time.Time {
	up := t.attached()
	if up == nil {
		return time.Time{}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.asked
}

// attached returns the UpTrack; nil: none yet.
func (t *Track) attached() *UpTrack {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.up
}

// Sample updates the meters of the layers.
func (t *Track) Sample(now time.Time) {
	for _, e := range t.Encodings() {
		e.mu.Lock()
		e.flow.Sample(now)
		e.mu.Unlock()
	}
}

// rungs returns all ways in which t can be sent, the least first, and the
// encodings that they name by index. There is at least one.
func (t *Track) rungs(now time.Time) ([]layer.Rung, []*Track) {
	encodings := slices.Clone(t.Encodings())
	slices.Reverse(encodings)
	rids, flows := make([]string, len(encodings)), make([]layer.Flow, len(encodings))
	for i, e := range encodings {
		e.mu.Lock()
		rids[i], flows[i] = e.RID, e.flow
		e.mu.Unlock()
	}
	return layer.Rungs(rids, flows, now), encodings
}
