package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/meter"
)

// A Receiver is the transport that receives the packets of an [UpTrack].
type Receiver interface {
	// RequestKeyframe sends one keyframe request upstream (RFC 4585, section
	// 6.3.1), or reports false if that is not possible yet. It is called with a
	// lock held and must not block.
	RequestKeyframe() bool
}

// An UpTrack is the source of a track, from [Track.Attach] until another
// replaces it. One goroutine calls Extensions and Forward; any goroutine may
// call the other methods.
type UpTrack struct {
	track    *Track
	receiver Receiver

	came, lost atomic.Int64 // packets; late packets are not lost
	report     atomic.Pointer[meter.SourceReport]

	// Only the goroutine that calls Forward uses the following fields.
	source *source
	gaps   gaps

	mu      sync.Mutex
	asked   time.Time
	wanted  bool        // a request could not be sent yet
	waiting *time.Timer // the delayed request
	closed  bool
}

// An Outcome is the result of forwarding one packet.
type Outcome struct {
	Reason   Reason // Forwarded, Duplicate or Replaced
	Keyframe bool   // a keyframe begins in it
	Lost     int64  // packets missing before it; -1 if it was missing itself
}

// Extensions sets the URIs of header extensions by their IDs on this hop, and
// starts a new numbering of the packets. Before the first call no extensions
// are forwarded.
func (u *UpTrack) Extensions(exts map[uint8]string) {
	u.source, u.gaps = newSource(u, exts), gaps{}
}

// Forward sends p, received at now, to all DownTracks of the track, unless it
// is a duplicate or another UpTrack has taken over. p is valid only until
// Forward returns, and may be renumbered.
func (u *UpTrack) Forward(p *rtp.Packet, now time.Time) Outcome {
	lost, fresh := u.gaps.take(p.SequenceNumber)
	if !fresh {
		return Outcome{Reason: Duplicate}
	}
	u.came.Add(1)
	u.lost.Add(lost)
	out := u.track.forward(u, p, now)
	out.Lost = lost
	return out
}

// SenderReport forwards a sender report of the far end, received at now.
func (u *UpTrack) SenderReport(sr *rtcp.SenderReport, now time.Time) {
	u.report.Store(&meter.SourceReport{Sent: sr.PacketCount, Came: u.came.Load()})
	u.track.forwardReport(u, senderReport{up: u, ntp: sr.NTPTime, rtp: sr.RTPTime, at: now})
}

// Lost returns the number of packets lost so far. Duplicates may make it
// negative.
func (u *UpTrack) Lost() int64 { return u.lost.Load() }

// Tally returns the packets counted so far.
func (u *UpTrack) Tally() meter.Tally {
	return meter.Tally{Came: u.came.Load(), Lost: u.lost.Load(), Report: u.report.Load()}
}

// Lack says that a packet is missing and will not come any more: only a keyframe
// makes video decodable again.
func (u *UpTrack) Lack() {
	if u.track.video() {
		u.requestKeyframe()
	}
}

// requestKeyframe sends a request at once, or at the end of keyframeInterval if
// one was sent within it.
func (u *UpTrack) requestKeyframe() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || u.waiting != nil {
		return
	}
	if wait := keyframeInterval - time.Since(u.asked); wait > 0 {
		u.waiting = time.AfterFunc(wait, func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.waiting = nil
			u.ask()
		})
		return
	}
	u.ask()
}

// awaits reports whether a request has been sent lately, or is to be.
func (u *UpTrack) awaits(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.waiting != nil || u.wanted || now.Sub(u.asked) < switchAgain
}

// ask sends a request now. Called with mu held.
func (u *UpTrack) ask() {
	if u.closed {
		return
	}
	if u.wanted = !u.receiver.RequestKeyframe(); !u.wanted {
		u.asked = time.Now()
	}
}

// Reachable signals that the Receiver can send requests from now on.
func (u *UpTrack) Reachable() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.wanted {
		u.ask()
	}
}

// gotKeyframe cancels a delayed request: the keyframe is here.
func (u *UpTrack) gotKeyframe() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting != nil && u.waiting.Stop() {
		u.waiting = nil
	}
}

// Close stops keyframe requests. The track keeps its counts.
func (u *UpTrack) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if u.waiting != nil {
		u.waiting.Stop()
		u.waiting = nil
	}
}

// gaps counts the missing packets of a numbering, and detects duplicates.
// Browsers probe for bandwidth by retransmitting packets that have arrived.
type gaps struct {
	last uint16 // highest so far
	live bool
	seen [gapsWindow / 64]uint64 // by sequence number, modulo gapsWindow
}

// gapsWindow is how many packets late a packet may be: some seconds of video.
const gapsWindow = 1024

// take records a sequence number. lost is the number of packets newly missing
// before it, or -1 for one that was missing. fresh is false for a duplicate and
// for a packet too late to tell.
func (g *gaps) take(seq uint16) (lost int64, fresh bool) {
	word, bit := &g.seen[seq%gapsWindow/64], uint64(1)<<(seq%64)
	ahead := int(int16(seq - g.last))
	switch {
	case !g.live:
		g.last, g.live = seq, true
		for i := range g.seen { // packets before the first are not missing
			g.seen[i] = ^uint64(0)
		}
		return 0, true
	case ahead > 0:
		for i := range uint16(min(ahead, gapsWindow)) { // a jump can cost no more than the window
			g.seen[(seq-i)%gapsWindow/64] &^= 1 << ((seq - i) % 64)
		}
		*word |= bit
		g.last = seq
		return int64(ahead - 1), true
	case ahead <= -gapsWindow || *word&bit != 0:
		return 0, false
	}
	*word |= bit
	return -1, true
}
