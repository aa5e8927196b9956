// Package peerstatus remembers the status that other nodes report when they are
// asked: their clock, mode, release, name, coordinate, and how much they hold.
//
// It is pure: no I/O and no goroutines; time is passed in. Nothing in it is
// verified: a peer may report anything, within bounds.
package peerstatus

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/liveness"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

const (
	maxPeers = liveness.MaxPeers // peers remembered
	// clockDrift is added to the doubt of a clock's measurement with each
	// further one.
	clockDrift = time.Millisecond
	maxClock   = 1_000_000 * time.Hour // bound of a clock's offset, so that sums do not overflow
	maxVersion = 32                    // bytes of a peer's version that are kept
)

// A Log keeps the status of many peers. The zero value is ready for use, and it
// is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	peers map[peer.ID]*Status
}

// A Status is the last report of one peer. The zero value is that of a peer
// that has not reported anything.
type Status struct {
	Tried time.Time // when it was asked last, whether it answered or not
	At    time.Time // when it answered; zero: never

	// Timed: the peer's clock is Clock ahead of this node's, ± Doubt.
	Timed        bool
	Clock, Doubt time.Duration

	Topics     int // with records in its table
	Records    int // in its table
	Mode       directory.Mode
	Release    string
	Name       string
	Coordinate *coordinate.Coordinate // nil: unknown
}

// Asked notes that p is being asked.
func (l *Log) Asked(now time.Time, p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry(now, p).Tried = now
}

// Take takes in p's report r, which arrived at now, or at wall by the clock to
// compare with p's, rtt after the request, 0 if unknown.
func (l *Log) Take(now, wall time.Time, p peer.ID, r *pb.FetchReply, rtt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.entry(now, p)
	s.At, s.Tried = now, now
	s.Topics, s.Records = int(r.HeldTopics), int(r.HeldRecords)
	s.Release = capacity.Printable(r.Version, maxVersion)
	s.Name = ""
	if capacity.ValidName(r.Name) == nil {
		s.Name = r.Name
	}
	if c := vivaldi.FromWire(r.Coordinate); c != nil {
		s.Coordinate = c
	}
	s.Mode = ""
	if r.Mode != "" {
		if mode, err := directory.ParseMode(r.Mode); err == nil {
			s.Mode = mode
		}
	}
	if r.NowMs == 0 || rtt <= 0 {
		return
	}
	// As NTP does (RFC 5905, section 8): half the round trip has passed since
	// the peer read its clock, ± that half. The measurement with the shortest
	// round trip is the best.
	clock := time.UnixMilli(r.NowMs).Sub(wall.Add(-rtt / 2))
	clock = min(max(clock, -maxClock), maxClock)
	switch doubt := rtt / 2; {
	case !s.Timed, (clock - s.Clock).Abs() > doubt+s.Doubt, doubt <= s.Doubt:
		s.Clock, s.Doubt, s.Timed = clock, doubt, true
	default:
		s.Doubt += clockDrift // so that a newer one replaces it some day
	}
}

// Of returns p's status.
func (l *Log) Of(p peer.ID) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.peers[p]; s != nil {
		return *s
	}
	return Status{}
}

// Next returns the one of peers that was not asked for longest. Fresh means
// that it never was.
func (l *Log) Next(peers []peer.ID) (p peer.ID, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest time.Time
	for _, q := range peers {
		var tried time.Time
		if s := l.peers[q]; s != nil {
			tried = s.Tried
		}
		if p == "" || tried.Before(oldest) {
			p, oldest = q, tried
		}
	}
	return p, oldest.IsZero()
}

// entry returns p's entry, making room for it if need be. The caller holds mu.
func (l *Log) entry(now time.Time, p peer.ID) *Status {
	s := l.peers[p]
	if s != nil {
		return s
	}
	if len(l.peers) >= maxPeers {
		for q, s := range l.peers {
			if now.Sub(s.Tried) > time.Minute {
				delete(l.peers, q)
			}
		}
		if len(l.peers) >= maxPeers {
			clear(l.peers)
		}
	}
	if l.peers == nil {
		l.peers = make(map[peer.ID]*Status)
	}
	s = &Status{}
	l.peers[p] = s
	return s
}

// Names are the peers' names as they report them.
func (l *Log) Names() map[peer.ID]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := map[peer.ID]string{}
	for p, s := range l.peers {
		if s.Name != "" {
			names[p] = s.Name
		}
	}
	return names
}

// Since returns the peers that have reported since then.
func (l *Log) Since(then time.Time) []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []peer.ID
	for p, s := range l.peers {
		if s.At.After(then) {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}
