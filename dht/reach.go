package dht

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// A peer that failed us is left alone for downFirst, then twice as
	// long each time up to downMost.
	downFirst = 5 * time.Second
	downMost  = 30 * time.Second

	maxReach = 8_192 // peers remembered

	// lostAfter is how long a peer without a connection has been silent before
	// people are told: what is back sooner was slow, not lost.
	lostAfter = 10 * time.Second

	// A peer that has not answered for goneAfter, asked more than once, has
	// crashed, or is cut off: nobody waits for its word any more.
	goneAfter = 3 * time.Second
)

// reach remembers which peers answer, and how fast. Time is passed in.
type reach struct {
	mu         sync.Mutex
	peers      map[peer.ID]*reachState
	generation uint64 // rises when a peer goes down or comes back
}

// A failure is how a peer failed us, and its value how many in a row make it
// count as down.
type failure int

const (
	unreachable failure = 1 // no connection could be made
	silent      failure = 2 // no answer in time
	late        failure = 3 // no answer when others were asked instead
	broken      failure = 8 // something else than an answer: it lives, and may be overloaded
)

type reachState struct {
	rtt     time.Duration // smoothed; 0: never measured
	strikes int           // failures in a row
	downs   int           // times in a row it went down
	down    time.Time     // until then
	touched time.Time

	heard   bool      // it has answered at some time
	silent  time.Time // since when it has not; zero: it answers
	lost    bool      // lost has told of it
	heardAt time.Time // when it answered last
	since   time.Time // the first of its failures in a row, late ones not counted
	misses  int       // how many those are
	missed  time.Time // the last of them
	left    bool      // it took leave, or nothing listens where it was
}

func newReach() *reach { return &reach{peers: make(map[peer.ID]*reachState)} }

// answered notes that p answered, after rtt if that is a measurement at all
// (0: it is not). It returns for how long p was lost, if lost has told of it;
// else 0.
func (r *reach) answered(now time.Time, p peer.ID, rtt time.Duration) (lost time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state(now, p)
	if s.lost {
		lost = max(now.Sub(s.silent), 1)
	}
	s.heard, s.silent, s.lost = true, time.Time{}, false
	if !s.down.IsZero() {
		r.generation++
	}
	s.strikes, s.downs, s.down = 0, 0, time.Time{}
	s.heardAt, s.since, s.misses = now, time.Time{}, 0
	s.left = false
	switch {
	case rtt <= 0:
	case s.rtt == 0 || rtt < s.rtt:
		s.rtt = rtt // the least is closest to the truth: what is above waited
	default:
		s.rtt += (rtt - s.rtt) / 8
	}
	return lost
}

// lost returns the peers that once answered, are not connected, and have not
// answered for lostAfter; each once, until it answers again.
func (r *reach) lost(now time.Time, connected func(peer.ID) bool) []peer.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []peer.ID
	for p, s := range r.peers {
		if s.heard && !s.lost && !s.silent.IsZero() && now.Sub(s.silent) >= lostAfter && !connected(p) {
			s.lost = true
			list = append(list, p)
		}
	}
	return list
}

// failed notes that p failed, and reports whether it counts as down since just
// now.
func (r *reach) failed(now time.Time, p peer.ID, how failure) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state(now, p)
	if how != late {
		// Two failures far apart say nothing of the time between.
		if now.Sub(s.missed) > 2*goneAfter {
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
	r.generation++
	return true
}

// leaves notes that p has said that it leaves the network, or that nothing
// listens any more where it was.
func (r *reach) leaves(now time.Time, p peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state(now, p).left = true
}

// gone reports whether p is not there any more, as far as can be known: unlike
// one that is down, which may only be slow.
func (r *reach) gone(now time.Time, p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && s.isGone(now)
}

func (s *reachState) isGone(now time.Time) bool {
	return s.left || s.misses > 1 && now.Sub(s.since) >= goneAfter
}

// mute reports whether p has not answered for so long, asked several times.
func (r *reach) mute(now time.Time, p peer.ID, long time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && (s.left || !s.silent.IsZero() && now.Sub(s.silent) >= long)
}

// ended reports whether p itself, or its machine, has said that it is not there
// any more.
func (r *reach) ended(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && s.left
}

// met reports whether p has ever answered.
func (r *reach) met(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && s.heard
}

// heardSince returns who has answered since then and is not gone.
func (r *reach) heardSince(then time.Time) (list []peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, s := range r.peers {
		if s.heardAt.After(then) && !s.left {
			list = append(list, p)
		}
	}
	return list
}

// down reports whether p is to be left alone now.
func (r *reach) down(now time.Time, p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && s.down.After(now)
}

// doubtful reports whether p has failed since it answered last.
func (r *reach) doubtful(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[p]
	return s != nil && s.strikes > 0
}

// rtt is p's smoothed round trip, 0 if none was measured.
func (r *reach) rtt(p peer.ID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.peers[p]; s != nil {
		return s.rtt
	}
	return 0
}

func (r *reach) changes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generation
}

// state returns p's state, making room for it if need be. The caller holds mu.
func (r *reach) state(now time.Time, p peer.ID) *reachState {
	s := r.peers[p]
	if s == nil {
		if len(r.peers) >= maxReach {
			r.prune(now)
		}
		s = &reachState{}
		r.peers[p] = s
	}
	s.touched = now
	return s
}

// prune forgets peers not heard of for a while, or all if that frees nothing.
func (r *reach) prune(now time.Time) {
	for p, s := range r.peers {
		if now.Sub(s.touched) > downMost {
			delete(r.peers, p)
		}
	}
	if len(r.peers) >= maxReach {
		clear(r.peers)
	}
}
