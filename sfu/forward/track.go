package forward

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/keyframe"
)

const (
	// keyframeInterval is the least time between two keyframe requests to one
	// UpTrack: for requests of any number of viewers the encoder gets one.
	keyframeInterval = 250 * time.Millisecond
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
	Sets *ParameterSets

	packets, bytes, keyframes atomic.Int64

	// mu is held while a packet is passed to the DownTracks. Their writes end
	// in a UDP socket, which does not block.
	mu     sync.Mutex
	up     *UpTrack
	downs  []*DownTrack
	report senderReport
}

// senderReport is the last one received, and when, by our clock.
type senderReport struct {
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
	t.mu.Lock()
	t.up = u
	t.report = senderReport{}
	need := t.video() && len(t.downs) > 0
	now := time.Now()
	for _, d := range t.downs {
		d.since = now
	}
	t.mu.Unlock()
	if need {
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

// Add starts forwarding to d, and requests a keyframe for a viewer.
func (t *Track) Add(d *DownTrack) {
	t.mu.Lock()
	if slices.Contains(t.downs, d) {
		t.mu.Unlock()
		return
	}
	d.since = time.Now()
	t.downs = append(t.downs, d)
	up := t.up
	t.mu.Unlock()
	if up != nil && t.video() && !d.Relay {
		up.requestKeyframe()
	}
}

// Remove stops forwarding to d.
func (t *Track) Remove(d *DownTrack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.downs, d); i >= 0 {
		t.downs = slices.Delete(t.downs, i, i+1)
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

// forward sends one packet of u to the DownTracks, renumbered if parameter sets
// were inserted before it. It reports whether the packet begins a keyframe, and
// whether u is the track's current UpTrack.
func (t *Track) forward(u *UpTrack, p *rtp.Packet, now time.Time) (key, taken bool) {
	key = t.video() && keyframe.Is(t.Codec.MimeType, p.Payload)
	t.packets.Add(1)
	t.bytes.Add(int64(len(p.Payload)))

	served := true
	t.mu.Lock()
	if t.up != u {
		t.mu.Unlock()
		return key, false
	}
	if t.Sets != nil {
		for _, set := range t.Sets.before(u, p) {
			for _, d := range t.downs {
				d.write(u, &t.report, set, true, now)
			}
		}
	}
	for _, d := range t.downs {
		served = d.write(u, &t.report, p, key, now) && served
	}
	t.mu.Unlock()
	if key {
		t.keyframes.Add(1)
		if served {
			u.gotKeyframe()
		}
	}
	return key, true
}

// forwardReport forwards a sender report of u to the DownTracks.
func (t *Track) forwardReport(u *UpTrack, sr senderReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up != u {
		return
	}
	t.report = sr
	for _, d := range t.downs {
		d.report(u, &t.report, sr.at)
	}
}
