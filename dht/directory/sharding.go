package directory

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	// DefaultSplit is the number of publishers above which a shard is split in
	// two, and DefaultMerge the one below which two shards become one, each.
	// The gap between them allows for holders' different counts. A holder of
	// 100 publishers was measured to move 14 kB/s, both ways and all headers
	// included, of which it may spend 20.
	DefaultSplit = 128
	DefaultMerge = 32

	// splitNotices is about how many of the nodes that have left a topic for
	// finer ones send split notices there, and noticeQuorum how many notices
	// make a split count.
	splitNotices = 48
	noticeQuorum = 8
	// indexEntries is about how many nodes of a region are in the index of
	// regions.
	indexEntries = 16

	noticeEvery = time.Minute // how often a split notice is renewed
	// NoticeTTL is how long a holder keeps a split notice.
	NoticeTTL = 3 * noticeEvery
	reportAge = 2 * holder.ConfirmEvery // how long a holder's count is taken into account
	settle    = NoticeTTL               // least time in a shard before a coarser one is considered
	bothTime  = capacity.DefaultTTL     // how long a node publishes in its former shard too
)

// A report is a holder's count for a topic.
type report struct {
	held  int
	split bool
	at    time.Time
}

// A Sharding decides in which shard of its region a node publishes: as deep as
// needed for a shard to hold at most split publishers. All publishers of a
// shard receive the same counts from the same holders, so they move together,
// without a coordinator. It is safe for concurrent use. Time is passed in.
//
// A new node begins with the whole region and goes deeper as long as it finds
// split notices there, which some of its predecessors keep renewing.
type Sharding struct {
	split, merge int
	id           peer.ID
	bits         string // first bits of the Kademlia ID

	mu      sync.Mutex
	region  string
	depth   int
	since   time.Time    // time of the last move; zero: none
	former  holder.Topic // the shard before, where the record stays for bothTime
	until   time.Time
	reports map[holder.Topic]map[peer.ID]report // of the home and the coarser topic

	peerDepth int // 0: as the home shard's
	given     map[holder.Topic]time.Time
}

// NewSharding returns the sharding of node id. A shard with more than split
// publishers is split, and one with less than merge joined to its neighbour. 0:
// DefaultSplit and DefaultMerge.
func NewSharding(id peer.ID, split, merge int) *Sharding {
	s := &Sharding{split: split, merge: merge, id: id, bits: holder.IDBits(id), reports: make(map[holder.Topic]map[peer.ID]report), given: make(map[holder.Topic]time.Time)}
	if s.split == 0 {
		s.split = DefaultSplit
	}
	if s.merge == 0 {
		s.merge = min(DefaultMerge, s.split/4)
	}
	return s
}

// Quorum is how many split notices make a split count.
func (s *Sharding) Quorum() int { return max(1, min(noticeQuorum, s.merge)) }

// Home is the topic in which the node publishes.
func (s *Sharding) Home() holder.Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(s.depth)
}

// Homes are the topics in which the node, of region, publishes now: its home,
// and for a while after a move the one before.
func (s *Sharding) Homes(now time.Time, region string) []holder.Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	if region != s.region {
		s.region, s.depth, s.former, s.peerDepth = region, 0, "", 0
		clear(s.reports)
		clear(s.given)
	}
	list := []holder.Topic{s.at(s.depth)}
	if s.former != "" && now.Before(s.until) {
		list = append(list, s.former)
	}
	return list
}

// PeerShard is another shard of the node's region, in which it looks for others
// as it does in its home; "" if the region is one shard. Without it, shards
// could drift apart in load, because seekers are spread over them by the number
// of nodes, whatever those can carry. Every node has a peer shard of its own,
// drawn by its ID, so that all shards of a region are compared with each other.
func (s *Sharding) PeerShard() holder.Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth == 0 {
		return ""
	}
	sum := sha256.Sum256([]byte(string(s.id) + "\x00partner"))
	bits := make([]byte, cmp.Or(s.peerDepth, s.depth))
	for i := range bits {
		bits[i] = '0' + sum[i/8]>>(i%8)&1
	}
	if p := string(bits); strings.HasPrefix(s.bits, p) || strings.HasPrefix(p, s.bits[:s.depth]) {
		bits[0] ^= 1
	}
	return holder.ShardTopic(s.region, string(bits))
}

// PeerReport takes in the answer of a holder of topic, the peer shard: the
// number of its records, or that its publishers have moved on to finer shards.
func (s *Sharding) PeerReport(topic holder.Topic, held int, split bool) {
	now := s.PeerShard()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, bits, _ := topic.Shard()
	switch {
	case topic != now || s.depth == 0:
	case split:
		s.peerDepth = min(len(bits)+1, holder.MaxShardBits)
	case held == 0:
		s.peerDepth = max(len(bits)-1, 1)
	}
}

// Report takes in holder's count for topic.
func (s *Sharding) Report(now time.Time, topic holder.Topic, holder peer.ID, held int, split bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if topic != s.at(s.depth) && (s.depth == 0 || topic != s.at(s.depth-1)) {
		return
	}
	if s.reports[topic] == nil {
		s.reports[topic] = make(map[peer.ID]report)
	}
	if _, known := s.reports[topic][holder]; known || len(s.reports[topic]) < 4*replicas {
		s.reports[topic][holder] = report{held, split, now}
	}
}

// Step moves the node to another shard if the holders' reports ask for it,
// and reports whether it did.
func (s *Sharding) Step(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, split, known := s.opinion(now, s.at(s.depth), reportAge)
	if !known {
		return false
	}
	switch {
	case s.depth < holder.MaxShardBits && (split || held > s.split):
		s.move(now, s.depth+1)
		return true
	case s.depth > 0 && held < s.merge && now.Sub(s.since) > settle:
		// The coarser shard does not exist while others keep away from it.
		if _, split, known := s.opinion(now, s.at(s.depth-1), 2*noticeEvery); known && !split {
			s.move(now, s.depth-1)
			return true
		}
	}
	return false
}

// A SplitNotice is a message to the holders of a coarser topic than the node's
// own.
type SplitNotice struct {
	Topic holder.Topic
	// Split: the publishers there have moved on to finer shards. Otherwise the
	// node only asks for a report.
	Split bool
}

// SplitNotices returns the notices to send now. They count as sent.
func (s *Sharding) SplitNotices(now time.Time) []SplitNotice {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, _, known := s.opinion(now, s.at(s.depth), reportAge)
	if !known || s.depth == 0 {
		return nil
	}
	thin := held < s.merge && now.Sub(s.since) > settle
	var list []SplitNotice
	for depth := range s.depth {
		topic := s.at(depth)
		below := float64(max(held, 1)) * math.Exp2(float64(s.depth-depth))
		looks := thin && depth == s.depth-1
		chosen := s.hash(topic) < splitNotices/below
		if !looks && !chosen || now.Sub(s.given[topic]) < noticeEvery {
			continue
		}
		s.given[topic] = now
		list = append(list, SplitNotice{topic, !looks})
	}
	return list
}

// InIndex reports whether the node belongs in the index of regions.
func (s *Sharding) InIndex(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, _, known := s.opinion(now, s.at(s.depth), reportAge)
	all := float64(max(held, 1)) * math.Exp2(float64(s.depth))
	return known && s.hash(holder.RegionsTopic) < indexEntries/all
}

// The methods below are called with mu held.

// at is the node's topic at depth.
func (s *Sharding) at(depth int) holder.Topic { return holder.ShardTopic(s.region, s.bits[:depth]) }

// opinion is the report of most holders of topic lately.
func (s *Sharding) opinion(now time.Time, topic holder.Topic, age time.Duration) (held int, split, known bool) {
	var counts []int
	splits := 0
	for p, w := range s.reports[topic] {
		if now.Sub(w.at) > age {
			delete(s.reports[topic], p)
			continue
		}
		counts = append(counts, w.held)
		if w.split {
			splits++
		}
	}
	if len(counts) == 0 {
		return 0, false, false
	}
	slices.Sort(counts)
	return counts[len(counts)/2], 2*splits > len(counts), true
}

func (s *Sharding) move(now time.Time, depth int) {
	s.former, s.until = s.at(s.depth), now.Add(bothTime)
	s.depth, s.since, s.peerDepth = depth, now, 0
	clear(s.reports)
	clear(s.given)
}

// hash is a number in [0, 1) that depends only on the node and the topic.
func (s *Sharding) hash(topic holder.Topic) float64 {
	sum := sha256.Sum256([]byte(string(s.id) + "\x00" + string(topic)))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}
