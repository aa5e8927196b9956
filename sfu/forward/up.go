package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// A Receiver is the end at which the packets of an [UpTrack] come in.
type Receiver interface {
	// RequestKeyframe sends one request for a keyframe upstream (RFC 4585, section
	// 6.3.1), or reports false if that is not possible yet. It is called with a lock
	// held and must not block.
	RequestKeyframe() bool
}

// An UpTrack is what a track comes from, from [Track.Attach] until another took
// over. One goroutine calls Extensions and Forward; the rest may be called by
// any.
type UpTrack struct {
	track    *Track
	receiver Receiver

	came, lost atomic.Int64 // packets; those that come late are not lost
	report     atomic.Pointer[sourceReport]

	// The goroutine's that calls Forward.
	exts map[uint8]string
	gaps gaps

	mu      sync.Mutex
	asked   time.Time
	wanted  bool        // a request could not be sent yet
	waiting *time.Timer // the request that was put off
	closed  bool
}

// An Outcome is what became of one packet.
type Outcome struct {
	Reason   Reason // Forwarded, Duplicate or Replaced
	Keyframe bool   // one begins in it
	Lost     int64  // packets missing before it; -1 for one that was missing itself
}

// Extensions tells the URIs of header extensions by their IDs on this hop, and
// that packets are numbered anew from now on. Before it is called, none are
// carried.
func (u *UpTrack) Extensions(exts map[uint8]string) { u.exts, u.gaps = exts, gaps{} }

// Forward sends p, which came at now, to all that take the track, unless it has
// come before or another UpTrack has taken over. p holds only until Forward
// returns, and may be renumbered.
func (u *UpTrack) Forward(p *rtp.Packet, now time.Time) Outcome {
	lost, fresh := u.gaps.take(p.SequenceNumber)
	if !fresh {
		return Outcome{Reason: Duplicate}
	}
	u.came.Add(1)
	u.lost.Add(lost)
	key, taken := u.track.forward(u, p, now)
	if !taken {
		return Outcome{Reason: Replaced, Keyframe: key, Lost: lost}
	}
	return Outcome{Keyframe: key, Lost: lost}
}

// SenderReport passes a sender report of the far end on, which came at now.
func (u *UpTrack) SenderReport(sr *rtcp.SenderReport, now time.Time) {
	u.report.Store(&sourceReport{sr.PacketCount, u.came.Load()})
	u.track.forwardReport(u, senderReport{ntp: sr.NTPTime, rtp: sr.RTPTime, at: now})
}

// Lost is how many packets have not come, so far. Packets that come twice
// may make it negative.
func (u *UpTrack) Lost() int64 { return u.lost.Load() }

// Tally is what has come so far.
func (u *UpTrack) Tally() Tally { return Tally{u.came.Load(), u.lost.Load(), u.report.Load()} }

// requestKeyframe asks at once, or at the end of keyframeInterval if it was
// asked within it.
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

// ask asks now. Called with mu held.
func (u *UpTrack) ask() {
	if u.closed {
		return
	}
	if u.wanted = !u.receiver.RequestKeyframe(); !u.wanted {
		u.asked = time.Now()
	}
}

// Reachable says that the Receiver can send requests from now on.
func (u *UpTrack) Reachable() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.wanted {
		u.ask()
	}
}

// gotKeyframe cancels a request that was put off: what it would ask for is
// here.
func (u *UpTrack) gotKeyframe() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting != nil && u.waiting.Stop() {
		u.waiting = nil
	}
}

// Close sends no request any more. The track keeps what came.
func (u *UpTrack) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if u.waiting != nil {
		u.waiting.Stop()
		u.waiting = nil
	}
}

// gaps counts what is missing in a numbering, and tells what came before.
// Browsers probe for bandwidth by retransmitting packets that have come.
type gaps struct {
	last uint16 // highest so far
	live bool
	seen [gapsWindow / 64]uint64 // by number, modulo gapsWindow
}

// gapsWindow is how many packets back one may still come: some seconds of video.
const gapsWindow = 1024

// take takes in a sequence number. lost is how many packets are missing before
// it that were not yet, or -1 for one that was and has come now. fresh is false
// if it has come before, or comes too late to tell.
func (g *gaps) take(seq uint16) (lost int64, fresh bool) {
	word, bit := &g.seen[seq%gapsWindow/64], uint64(1)<<(seq%64)
	ahead := int(int16(seq - g.last))
	switch {
	case !g.live:
		g.last, g.live = seq, true
		for i := range g.seen { // what is before the first is not missed
			g.seen[i] = ^uint64(0)
		}
		return 0, true
	case ahead > 0:
		for i := g.last + 1; i != seq+1; i++ {
			g.seen[i%gapsWindow/64] &^= 1 << (i % 64)
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
