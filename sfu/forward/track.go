package forward

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/keyframe"
	"weir/sfu/layer"
	"weir/sfu/paramsets"
)

const (
	// keyframeInterval is the least time between two keyframe requests to one
	// UpTrack: for requests of any number of viewers the encoder gets one. Those
	// that join meanwhile begin with the group that it makes.
	keyframeInterval = time.Second
	// keyframePatience is how long frames that a new viewer could not decode
	// are withheld from it. Past that it gets all frames: the payload may be
	// encrypted end to end, so that no keyframe can be detected (RFC 9605).
	keyframePatience = 2 * time.Second
)

// A Track is one RTP stream of a [Stream], and forwards every packet of its
// UpTrack to all of its DownTracks.
//
// Sender reports are forwarded rather than generated: every DownTrack repeats
// the publisher's own pairs of NTP and RTP time (RFC 3550, section 6.4.1),
// shifted only by that DownTrack's timestamp offset, so that audio and video
// stay in sync over any number of hops.
type Track struct {
	ID    string // "video0", numbered in the order of the publisher's offer
	Codec Codec
	// Sets are the H264 parameter sets of the offer; nil: none. Set before
	// Attach.
	Sets *paramsets.Sets

	// RID names an encoding of simulcast; "": the track is its only one.
	RID string

	packets, bytes, keyframes atomic.Int64

	encodings []*Track // of simulcast; nil: the track is its only one
	group     group    // of the whole track
	ring      ring

	mu      sync.Mutex
	up      *UpTrack
	next    *UpTrack     // takes over with its first keyframe; nil: none
	downs   []*DownTrack // a new slice with each change
	joining []*joiner    // not among downs yet
	report  senderReport
	flow    layer.Flow
	passed  uint64    // the highest position that was
	fresh   []kept    // still to be passed to the DownTracks
	passes  bool      // the goroutine runs that passes them; only while there are DownTracks
	busy    bool      // it passes some
	changed sync.Cond // signals a change of fresh, downs, passes or busy
}

// senderReport is the last one received, and when, by our clock.
type senderReport struct {
	up  *UpTrack
	ntp uint64
	rtp uint32
	at  time.Time
}

// video reports whether the track's packets depend on each other.
func (t *Track) video() bool { return t.Codec.Kind() == Video }

// Received returns the totals received from all UpTracks: packets, and bytes of
// payload.
func (t *Track) Received() (packets, bytes int64) {
	for _, e := range t.Encodings() {
		packets += e.packets.Load()
		bytes += e.bytes.Load()
	}
	return packets, bytes
}

// Attach makes r's packets the source of the track from now on. DownTracks
// continue their own numbering, and video waits for a keyframe, which is
// requested.
func (t *Track) Attach(r Receiver) *UpTrack {
	u := &UpTrack{track: t, receiver: r}
	u.source = newSource(u, nil)
	u.Take()
	return u
}

// Prepare makes r's packets the source of the track from the first on that video
// can begin with, a keyframe, which is requested. Until then it has the source
// that it has.
func (t *Track) Prepare(r Receiver) *UpTrack {
	u := &UpTrack{track: t, receiver: r}
	u.source = newSource(u, nil)
	t.mu.Lock()
	t.next = u
	t.mu.Unlock()
	if t.video() {
		u.requestKeyframe()
	}
	return u
}

// Take makes u the source of its track at once, as Attach does.
func (u *UpTrack) Take() {
	t := u.track
	t.mu.Lock()
	t.take(u)
	downs := t.downs
	t.mu.Unlock()
	now := time.Now()
	for _, d := range downs {
		d.await(now)
	}
	if t.video() && len(downs) > 0 {
		u.requestKeyframe()
	}
}

// Taken reports whether u is the source of its track.
func (u *UpTrack) Taken() bool {
	u.track.mu.Lock()
	defer u.track.mu.Unlock()
	return u.track.up == u
}

// take makes u the source. Called with mu held.
func (t *Track) take(u *UpTrack) {
	t.up, t.next, t.report = u, nil, senderReport{}
	t.settleJoiners()
}

// GoOnAs makes t take over the parameters of next, a track of another
// publisher's offer that continues as t.
func (t *Track) GoOnAs(next *Track) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Sets = next.Sets
}

// Add starts forwarding to d, of the encoding that suits it. A viewer begins
// with the newest group of the ring; if there is none to begin with, a keyframe
// is requested.
func (t *Track) Add(d *DownTrack) {
	now := time.Now()
	rungs, encodings := t.rungs(now)
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	if !slices.Contains(t.group.all, d) {
		t.group.all = append(t.group.all, d)
		t.requestSwitch(t.direct(d, rungs, encodings, now), now)
	}
}

// add starts forwarding of one encoding to d, which switches to it from another
// one, or begins with it.
func (t *Track) add(d *DownTrack, switches bool, now time.Time) {
	first := d.join(now)
	t.mu.Lock()
	if t.has(d) {
		t.mu.Unlock()
		return
	}
	caught := first && !switches && t.catchUp(d, now)
	if !caught {
		t.live(d)
	}
	t.start()
	t.changed.Broadcast()
	up := t.up
	t.mu.Unlock()
	if up != nil && t.video() && !d.Relay && !caught && !switches {
		up.requestKeyframe()
	}
}

// Remove stops forwarding to d: once it has returned, nothing is sent to it. Do
// not call it from a [Sender].
func (t *Track) Remove(d *DownTrack) {
	t.group.mu.Lock()
	t.group.all = slices.DeleteFunc(t.group.all, func(o *DownTrack) bool { return o == d })
	t.group.mu.Unlock()
	d.leave()
	for _, e := range t.Encodings() {
		e.remove(d)
	}
}

// remove stops forwarding of one encoding to d, and waits.
func (t *Track) remove(d *DownTrack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(d)
	for t.passes && t.unused() {
		t.changed.Broadcast()
		t.changed.Wait()
	}
}

// release stops forwarding of one encoding to d, which does not send it any
// more, and does not wait.
func (t *Track) release(d *DownTrack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(d)
	if t.passes {
		t.changed.Broadcast()
	}
}

// RequestKeyframe requests a keyframe from the UpTrack of each encoding, if there
// is one yet.
func (t *Track) RequestKeyframe() {
	for _, e := range t.Encodings() {
		if up := e.attached(); up != nil && t.video() {
			up.requestKeyframe()
		}
	}
}

// forward keeps one packet of u, renumbered if parameter sets are inserted
// before it, for the DownTracks.
func (t *Track) forward(u *UpTrack, p *rtp.Packet, now time.Time) Outcome {
	info := u.source.parse(p)
	// Where VP9 does not say that frames depend on others, keyframe.Is alone can tell.
	key := t.video() && keyframe.Is(t.Codec.MimeType, p.Payload) || info.Number.HasFrame && info.Key && info.Begin
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == u && (key || !t.video()) {
		t.take(u)
	}
	if t.up != u {
		return Outcome{Reason: Replaced, Keyframe: key}
	}
	if t.Sets != nil {
		for _, set := range t.Sets.Before(u, p) {
			t.keep(u.source, set, layer.Info{}, true, now)
		}
	}
	if !t.keep(u.source, p, info, key, now) {
		return Outcome{Reason: Duplicate}
	}
	if key {
		t.keyframes.Add(1)
	}
	t.flow.Count(&info, len(p.Payload), now)
	return Outcome{Keyframe: key}
}

// keep puts a packet into the ring, to be passed to the DownTracks, and reports
// false if the ring does not take it. Called with mu held.
func (t *Track) keep(s *source, p *rtp.Packet, info layer.Info, key bool, now time.Time) bool {
	k, ok := t.ring.put(s, p, info, key, now)
	if !ok || !t.passes {
		return ok
	}
	if len(t.fresh) == ringPackets {
		// More than the ring keeps waits; the DownTracks skip from here on.
		t.fresh = t.fresh[:0]
	}
	t.fresh = append(t.fresh, k)
	if !t.busy {
		t.changed.Broadcast()
	}
	return true
}

func (t *Track) lastReport() senderReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report
}

// forwardReport forwards a sender report of u to the DownTracks.
func (t *Track) forwardReport(u *UpTrack, sr senderReport) {
	t.mu.Lock()
	if t.up != u {
		t.mu.Unlock()
		return
	}
	t.report = sr
	downs := t.downs
	t.mu.Unlock()
	for _, d := range downs {
		d.report(u, &sr, sr.at)
	}
}
