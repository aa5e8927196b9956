package dht

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/liveness"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

const (
	maxTold = liveness.MaxPeers // peers remembered
	// clockDrift is by how much a measurement of a clock is worth less after
	// each further one.
	clockDrift = time.Millisecond
	maxClock   = 1_000_000 * time.Hour // a clock is off by at most that, for the arithmetic's sake
	maxVersion = 32                    // bytes of a peer's version that are kept
)

// told remembers what peers said of themselves. Time is passed in.
type told struct {
	mu    sync.Mutex
	peers map[peer.ID]*telling
}

// A telling is what one peer said last. The zero value is that of one who has
// not said anything.
type telling struct {
	tried  time.Time // when it was asked last, answered or not
	at     time.Time // when it said so; zero: never
	clock  time.Duration
	doubt  time.Duration
	timed  bool // clock, by how much the peer's is ahead of ours, give or take doubt, is known
	topics int  // held
	held   int  // records
	mode   directory.Mode
	vers   string
	name   string
	coords *coordinate.Coordinate // nil: unknown
}

// asked notes that p is being asked.
func (t *told) asked(now time.Time, p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(now, p).tried = now
}

// take takes in what p said, which has arrived at now, or at wall by the clock
// that is compared with p's, rtt after it was asked; 0: nobody knows.
func (t *told) take(now, wall time.Time, p peer.ID, r *pb.FetchReply, rtt time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.entry(now, p)
	s.at, s.tried = now, now
	s.topics, s.held = int(r.HeldTopics), int(r.HeldRecords)
	s.vers = plain(r.Version, maxVersion)
	s.name = ""
	if capacity.ValidName(r.Name) == nil {
		s.name = r.Name
	}
	if c := vivaldi.FromWire(r.Coordinate); c != nil {
		s.coords = c
	}
	s.mode = ""
	if r.Mode != "" {
		if mode, err := directory.ParseMode(r.Mode); err == nil {
			s.mode = mode
		}
	}
	if r.NowMs == 0 || rtt <= 0 {
		return
	}
	// As NTP does (RFC 5905, section 8): half the round trip has passed since
	// the peer looked at its clock, give or take that half. The measurement
	// with the shortest round trip is worth most.
	clock := time.UnixMilli(r.NowMs).Sub(wall.Add(-rtt / 2))
	clock = min(max(clock, -maxClock), maxClock)
	switch doubt := rtt / 2; {
	case !s.timed, (clock - s.clock).Abs() > doubt+s.doubt, doubt <= s.doubt:
		s.clock, s.doubt, s.timed = clock, doubt, true
	default:
		s.doubt += clockDrift // so that it gives way to a newer one some day
	}
}

// plain is what a peer said, fit for a terminal and cut to most bytes.
func plain(s string, most int) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, clip(s, most))
}

// of returns what p said.
func (t *told) of(p peer.ID) telling {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.peers[p]; s != nil {
		return *s
	}
	return telling{}
}

// next returns whom of peers to ask next: who was not asked for longest. Fresh
// says that it never was.
func (t *told) next(peers []peer.ID) (p peer.ID, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var oldest time.Time
	for _, q := range peers {
		var tried time.Time
		if s := t.peers[q]; s != nil {
			tried = s.tried
		}
		if p == "" || tried.Before(oldest) {
			p, oldest = q, tried
		}
	}
	return p, oldest.IsZero()
}

// entry returns what is known of p, making room for it if need be. The caller
// holds mu.
func (t *told) entry(now time.Time, p peer.ID) *telling {
	s := t.peers[p]
	if s != nil {
		return s
	}
	if len(t.peers) >= maxTold {
		for q, s := range t.peers {
			if now.Sub(s.tried) > time.Minute {
				delete(t.peers, q)
			}
		}
		if len(t.peers) >= maxTold {
			clear(t.peers)
		}
	}
	if t.peers == nil {
		t.peers = make(map[peer.ID]*telling)
	}
	s = &telling{}
	t.peers[p] = s
	return s
}

// serveFetch answers with this node's own records, and with what it says of
// itself.
func (n *Node) serveFetch(req *pb.Fetch) *pb.Response {
	now := time.Now()
	reply := &pb.FetchReply{
		Sealed:     n.fetched(req),
		Coordinate: vivaldi.ToWire(n.overlay.Coords.Here()),
		NowMs:      n.wall(now).UnixMilli(),
		Mode:       string(n.cfg.Discovery),
	}
	topics, records := n.table.Size(now)
	reply.HeldTopics, reply.HeldRecords = uint32(topics), uint32(records)
	if me, ok := n.publisher.Own(); ok {
		reply.Version, reply.Name = me.Release, me.Name
	}
	return &pb.Response{Op: &pb.Response_Fetch{Fetch: reply}}
}

// fetched are the own records that req asks for.
func (n *Node) fetched(req *pb.Fetch) [][]byte {
	if req.Topic == "" {
		return n.publisher.Sealed(min(int(req.Max), fetchLimit))
	}
	if _, sealed, ok := n.publisher.Published(Topic(req.Topic)); ok && req.Max > 0 {
		return [][]byte{sealed}
	}
	return nil
}

// names are those that peers gave for themselves.
func (t *told) names() map[peer.ID]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := map[peer.ID]string{}
	for p, s := range t.peers {
		if s.name != "" {
			names[p] = s.name
		}
	}
	return names
}

// since returns who has said something since then.
func (t *told) since(then time.Time) []peer.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []peer.ID
	for p, s := range t.peers {
		if s.at.After(then) {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}
