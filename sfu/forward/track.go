package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/keyframe"
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

	packets, bytes, keyframes atomic.Int64

	ring ring

	mu      sync.Mutex
	up      *UpTrack
	downs   []*DownTrack // a new slice with each change
	joining []*joiner    // not among downs yet
	report  senderReport
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
func (t *Track) Received() (packets, bytes int64) { return t.packets.Load(), t.bytes.Load() }

// Attach makes r's packets the source of the track from now on. DownTracks
// continue their own numbering, and video waits for a keyframe, which is
// requested.
func (t *Track) Attach(r Receiver) *UpTrack {
	u := &UpTrack{track: t, receiver: r}
	u.source = newSource(u, nil)
	t.mu.Lock()
	t.up = u
	t.report = senderReport{}
	t.settleJoiners()
	downs := t.downs
	t.mu.Unlock()
	now := time.Now()
	for _, d := range downs {
		d.await(now)
	}
	if t.video() && len(downs) > 0 {
		u.requestKeyframe()
	}
	return u
}

// GoOnAs makes t take over the parameters of next, a track of another
// publisher's offer that continues as t.
func (t *Track) GoOnAs(next *Track) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Sets = next.Sets
}

// Add starts forwarding to d. A viewer begins with the newest group of the ring;
// if there is none to begin with, a keyframe is requested.
func (t *Track) Add(d *DownTrack) {
	now := time.Now()
	first := d.join(now)
	t.mu.Lock()
	if t.has(d) {
		t.mu.Unlock()
		return
	}
	caught := first && t.catchUp(d, now)
	if !caught {
		t.live(d)
	}
	t.start()
	t.changed.Broadcast()
	up := t.up
	t.mu.Unlock()
	if up != nil && t.video() && !d.Relay && !caught {
		up.requestKeyframe()
	}
}

// Remove stops forwarding to d: once it has returned, nothing is sent to it. Do
// not call it from a [Sender].
func (t *Track) Remove(d *DownTrack) {
	d.leave()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(d)
	for t.passes && t.unused() {
		t.changed.Broadcast()
		t.changed.Wait()
	}
}

// RequestKeyframe requests a keyframe from the UpTrack, if there is one yet.
func (t *Track) RequestKeyframe() {
	t.mu.Lock()
	up := t.up
	t.mu.Unlock()
	if up != nil && t.video() {
		up.requestKeyframe()
	}
}

// forward keeps one packet of u, renumbered if parameter sets are inserted
// before it, for the DownTracks.
func (t *Track) forward(u *UpTrack, p *rtp.Packet, now time.Time) Outcome {
	key := t.video() && keyframe.Is(t.Codec.MimeType, p.Payload)
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up != u {
		return Outcome{Reason: Replaced, Keyframe: key}
	}
	if t.Sets != nil {
		for _, set := range t.Sets.Before(u, p) {
			t.keep(u.source, set, true, now)
		}
	}
	if !t.keep(u.source, p, key, now) {
		return Outcome{Reason: Duplicate}
	}
	if key {
		t.keyframes.Add(1)
	}
	return Outcome{Keyframe: key}
}

// keep puts a packet into the ring, to be passed to the DownTracks, and reports
// false if the ring does not take it. Called with mu held.
func (t *Track) keep(s *source, p *rtp.Packet, key bool, now time.Time) bool {
	k, ok := t.ring.put(s, p, key, now)
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
