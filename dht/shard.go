package dht

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
	// A shard that holds more publishers than DefaultSplit is split in two;
	// two that hold less than DefaultMerge each become one. Between them is
	// room for holders' different counts. A holder of 100 publishers was
	// measured to move 14 kB/s, both ways and all headers included, of which
	// it may spend 20.
	DefaultSplit = 128
	DefaultMerge = 32

	// signposts is about how many of those who have moved on from a topic say
	// so there, and signpostQuorum how many must for it to be believed.
	signposts      = 48
	signpostQuorum = 8
	// sponsors is about how many nodes of a region stand in the index of
	// regions.
	sponsors = 16

	postEvery = time.Minute             // how often a signpost is renewed
	postTTL   = 3 * postEvery           // how long one stands
	wordAge   = 2 * holder.ConfirmEvery // how long a holder's count is taken into account
	settle    = postTTL                 // least time in a shard before a coarser one is considered
	bothTime  = capacity.DefaultTTL     // how long a node publishes in its former shard too
)

// A word is what a holder said of a topic.
type word struct {
	held  int
	split bool
	at    time.Time
}

// A sharding decides in which shard of its region a node publishes: as deep as
// it takes for a shard to hold at most split publishers. All publishers of a
// shard hear the same counts from the same holders, so they move together,
// without being told. Time is passed in.
//
// Who comes anew begins with the whole region and goes deeper as long as it
// finds signposts there, which some of those who moved on keep renewing.
type sharding struct {
	split, merge int
	id           peer.ID
	bits         string // of id

	mu     sync.Mutex
	region string
	depth  int
	since  time.Time // of the last move; zero: none
	former Topic     // published in too until bothUntil
	until  time.Time
	words  map[Topic]map[peer.ID]word // of the home and the coarser topic

	partnerDepth int // 0: as the home's
	posted       map[Topic]time.Time
}

func newSharding(id peer.ID, split, merge int) *sharding {
	s := &sharding{split: split, merge: merge, id: id, bits: holder.IDBits(id), words: make(map[Topic]map[peer.ID]word), posted: make(map[Topic]time.Time)}
	if s.split == 0 {
		s.split = DefaultSplit
	}
	if s.merge == 0 {
		s.merge = min(DefaultMerge, s.split/4)
	}
	return s
}

// quorum is how many signposts are believed.
func (s *sharding) quorum() int { return max(1, min(signpostQuorum, s.merge)) }

// home is the topic in which the node publishes.
func (s *sharding) home() Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(s.depth)
}

// homes are the topics in which the node, of region, publishes now: its home,
// and for a while the one before.
func (s *sharding) homes(now time.Time, region string) []Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	if region != s.region {
		s.region, s.depth, s.former, s.partnerDepth = region, 0, "", 0
		clear(s.words)
		clear(s.posted)
	}
	list := []Topic{s.at(s.depth)}
	if s.former != "" && now.Before(s.until) {
		list = append(list, s.former)
	}
	return list
}

// partner is another shard of the node's region, in which it looks for others
// as it does in its home; "" if the region is one shard. A shard that nobody
// compared with others would drift away from their load: seekers come to it by
// the number of its nodes, whatever those can carry. Every node has a partner of
// its own, drawn by its ID, so all shards of a region are tied together.
func (s *sharding) partner() Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth == 0 {
		return ""
	}
	sum := sha256.Sum256([]byte(string(s.id) + "\x00partner"))
	bits := make([]byte, cmp.Or(s.partnerDepth, s.depth))
	for i := range bits {
		bits[i] = '0' + sum[i/8]>>(i%8)&1
	}
	if p := string(bits); strings.HasPrefix(s.bits, p) || strings.HasPrefix(p, s.bits[:s.depth]) {
		bits[0] ^= 1
	}
	return ShardTopic(s.region, string(bits))
}

// heardOfPartner takes in what a holder of topic said: that it holds so many
// records, or that those who publish there have moved on to finer shards.
func (s *sharding) heardOfPartner(topic Topic, held int, split bool) {
	now := s.partner()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, bits, _ := topic.Shard()
	switch {
	case topic != now || s.depth == 0:
	case split:
		s.partnerDepth = min(len(bits)+1, holder.MaxShardBits)
	case held == 0:
		s.partnerDepth = max(len(bits)-1, 1)
	}
}

// heard takes in what holder said of topic.
func (s *sharding) heard(now time.Time, topic Topic, holder peer.ID, held int, split bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if topic != s.at(s.depth) && (s.depth == 0 || topic != s.at(s.depth-1)) {
		return
	}
	if s.words[topic] == nil {
		s.words[topic] = make(map[peer.ID]word)
	}
	if _, known := s.words[topic][holder]; known || len(s.words[topic]) < 4*replicas {
		s.words[topic][holder] = word{held, split, now}
	}
}

// step moves the node to another shard if what the holders said asks for it,
// and reports whether it did.
func (s *sharding) step(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, split, known := s.opinion(now, s.at(s.depth), wordAge)
	if !known {
		return false
	}
	switch {
	case s.depth < holder.MaxShardBits && (split || held > s.split):
		s.move(now, s.depth+1)
		return true
	case s.depth > 0 && held < s.merge && now.Sub(s.since) > settle:
		// The coarser shard is none as long as others keep away from it.
		if _, split, known := s.opinion(now, s.at(s.depth-1), 2*postEvery); known && !split {
			s.move(now, s.depth-1)
			return true
		}
	}
	return false
}

// size is the number of publishers in the node's shard as far as known.
func (s *sharding) size(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, _, _ := s.opinion(now, s.at(s.depth), wordAge)
	return held
}

// A post is what a node tells the holders of a coarser topic than its own.
type post struct {
	topic Topic
	// deeper: those who publish there have moved on. Otherwise it only asks
	// how things stand there.
	deeper bool
}

// posts are the posts to make now. They count as made.
func (s *sharding) posts(now time.Time) []post {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, _, known := s.opinion(now, s.at(s.depth), wordAge)
	if !known || s.depth == 0 {
		return nil
	}
	thin := held < s.merge && now.Sub(s.since) > settle
	var list []post
	for depth := range s.depth {
		topic := s.at(depth)
		below := float64(max(held, 1)) * math.Exp2(float64(s.depth-depth))
		looks := thin && depth == s.depth-1
		chosen := s.lot(topic) < signposts/below
		if !looks && !chosen || now.Sub(s.posted[topic]) < postEvery {
			continue
		}
		s.posted[topic] = now
		list = append(list, post{topic, !looks})
	}
	return list
}

// sponsor reports whether the node is to stand in the index of regions.
func (s *sharding) sponsor(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, _, known := s.opinion(now, s.at(s.depth), wordAge)
	all := float64(max(held, 1)) * math.Exp2(float64(s.depth))
	return known && s.lot(holder.RegionsTopic) < sponsors/all
}

// The methods below are called with mu held.

// at is the node's topic at depth.
func (s *sharding) at(depth int) Topic { return ShardTopic(s.region, s.bits[:depth]) }

// opinion is what most holders of topic said lately.
func (s *sharding) opinion(now time.Time, topic Topic, age time.Duration) (held int, split, known bool) {
	var counts []int
	splits := 0
	for p, w := range s.words[topic] {
		if now.Sub(w.at) > age {
			delete(s.words[topic], p)
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

func (s *sharding) move(now time.Time, depth int) {
	s.former, s.until = s.at(s.depth), now.Add(bothTime)
	s.depth, s.since, s.partnerDepth = depth, now, 0
	clear(s.words)
	clear(s.posted)
}

// lot is a number in [0, 1) that depends on the node and the topic only.
func (s *sharding) lot(topic Topic) float64 {
	sum := sha256.Sum256([]byte(string(s.id) + "\x00" + string(topic)))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}
