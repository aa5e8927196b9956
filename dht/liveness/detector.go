// Package liveness is a failure detector: from answers and failures it decides
// which peers are there, and how far away they are. Its times are passed in; it
// does no I/O and starts no goroutines.
//
// A peer is suspect from its first failure on, down (left alone for a while)
// after as many in a row as their kind takes, and unreachable (presumed crashed
// or cut off) when it was asked more than once and has not answered for
// [UnreachableAfter]. A peer that is down may only be slow.
package liveness

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// downFirst is how long a failed peer is left alone, then twice as long
	// each time up to downMost.
	downFirst = 5 * time.Second
	downMost  = 30 * time.Second

	// MaxPeers is how many peers are remembered.
	MaxPeers = 8_192

	// lostAfter is how long a peer without a connection must be silent to be
	// reported as lost: a peer that is back sooner was slow, not lost.
	lostAfter = 10 * time.Second

	// UnreachableAfter is how long a peer that was asked more than once must be
	// silent to be presumed crashed, or cut off.
	UnreachableAfter = 3 * time.Second
)

// A Failure is how a peer failed; its value is how many in a row make it count
// as down.
type Failure int

const (
	NoConnection Failure = 1 // none could be made
	NoAnswer     Failure = 2 // within the request's deadline
	Late         Failure = 3 // no answer when others were asked instead
	BadAnswer    Failure = 8 // an invalid answer: it runs, and may be overloaded
)

// A Detector remembers when each peer answered and failed. It is safe for
// concurrent use; [New] makes one.
type Detector struct {
	mu         sync.Mutex
	peers      map[peer.ID]*peerState
	generation uint64 // rises when a peer goes down or comes back
}

type peerState struct {
	rtt     time.Duration // smoothed; 0: never measured
	strikes int           // failures in a row
	downs   int           // times in a row it went down
	down    time.Time     // until then
	touched time.Time

	heard   bool      // it has answered at some time
	silent  time.Time // start of its silence; zero: it answers
	lost    bool      // reported by Lost
	heardAt time.Time // when it answered last
	since   time.Time // the first of its failures in a row, late ones not counted
	misses  int       // how many of those
	missed  time.Time // the last of them
	left    bool      // it said that it leaves, or no process listens where it was
}

// New returns a detector that knows no peer.
func New() *Detector { return &Detector{peers: make(map[peer.ID]*peerState)} }

// Answered notes that p answered, after rtt if that is a measurement at all (0:
// it is not). It returns how long p was lost, if [Detector.Lost] has reported
// it; else 0.
func (d *Detector) Answered(now time.Time, p peer.ID, rtt time.Duration) (lost time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state(now, p)
	if s.lost {
		lost = max(now.Sub(s.silent), 1)
	}
	s.heard, s.silent, s.lost = true, time.Time{}, false
	if !s.down.IsZero() {
		d.generation++
	}
	s.strikes, s.downs, s.down = 0, 0, time.Time{}
	s.heardAt, s.since, s.misses = now, time.Time{}, 0
	s.left = false
	switch {
	case rtt <= 0:
	case s.rtt == 0 || rtt < s.rtt:
		s.rtt = rtt // the least is closest to the truth: the rest is queueing
	default:
		s.rtt += (rtt - s.rtt) / 8
	}
	return lost
}

// Lost returns the peers that once answered, are not connected, and have not
// answered for lostAfter; each once, until it answers again.
func (d *Detector) Lost(now time.Time, connected func(peer.ID) bool) []peer.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []peer.ID
	for p, s := range d.peers {
		if s.heard && !s.lost && !s.silent.IsZero() && now.Sub(s.silent) >= lostAfter && !connected(p) {
			s.lost = true
			list = append(list, p)
		}
	}
	return list
}

// Failed notes that p failed, and reports whether that made it go down.
func (d *Detector) Failed(now time.Time, p peer.ID, how Failure) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state(now, p)
	if how != Late {
		// Two failures far apart prove nothing about the time between.
		if now.Sub(s.missed) > 2*UnreachableAfter {
			s.misses = 0
		}
		s.missed = now
		if s.misses++; s.misses == 1 {
			s.since = now
		}
	}
	s.strikes++
	if s.strikes < int(how) || s.down.After(now) {
		return false
	}
	if s.silent.IsZero() {
		s.silent = now
	}
	s.down = now.Add(min(downFirst<<min(s.downs, 10), downMost))
	s.downs++
	d.generation++
	return true
}

// Leave notes that p leaves the network, or that no process listens any more
// where it was.
func (d *Detector) Leave(now time.Time, p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state(now, p).left = true
}

// Unreachable reports whether p is presumed gone, unlike a peer that is down,
// which may only be slow.
func (d *Detector) Unreachable(now time.Time, p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && s.unreachable(now)
}

func (s *peerState) unreachable(now time.Time) bool {
	return s.left || s.misses > 1 && now.Sub(s.since) >= UnreachableAfter
}

// SilentFor reports whether p, asked several times, has not answered for so
// long.
func (d *Detector) SilentFor(now time.Time, p peer.ID, long time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && (s.left || !s.silent.IsZero() && now.Sub(s.silent) >= long)
}

// HasLeft reports whether p itself, or its machine, has said that it is gone.
func (d *Detector) HasLeft(p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && s.left
}

// Met reports whether p has ever answered.
func (d *Detector) Met(p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && s.heard
}

// HeardSince returns the peers that have answered since then and have not left.
func (d *Detector) HeardSince(then time.Time) (list []peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, s := range d.peers {
		if s.heardAt.After(then) && !s.left {
			list = append(list, p)
		}
	}
	return list
}

// Down reports whether p is to be left alone now.
func (d *Detector) Down(now time.Time, p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && s.down.After(now)
}

// Suspect reports whether p has failed since it answered last.
func (d *Detector) Suspect(p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[p]
	return s != nil && s.strikes > 0
}

// RTT is p's smoothed round trip, 0 if none was measured.
func (d *Detector) RTT(p peer.ID) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.peers[p]; s != nil {
		return s.rtt
	}
	return 0
}

// Generation rises when a peer goes down or comes back.
func (d *Detector) Generation() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.generation
}

// state returns p's state, making room for it if need be. The caller holds mu.
func (d *Detector) state(now time.Time, p peer.ID) *peerState {
	s := d.peers[p]
	if s == nil {
		if len(d.peers) >= MaxPeers {
			d.prune(now)
		}
		s = &peerState{}
		d.peers[p] = s
	}
	s.touched = now
	return s
}

// prune forgets peers without news for a while, or all if that frees nothing.
func (d *Detector) prune(now time.Time) {
	for p, s := range d.peers {
		if now.Sub(s.touched) > downMost {
			delete(d.peers, p)
		}
	}
	if len(d.peers) >= MaxPeers {
		clear(d.peers)
	}
}
