package dht

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

const (
	// replicas is how many nodes hold a topic.
	replicas = holder.Replicas
	// everyone is the size up to which every node of a network holds every
	// topic: self and replicas others.
	everyone = replicas + 1

	lookupAge  = 3 * time.Minute  // a look-up's result is refreshed after this
	setIdle    = 10 * time.Minute // a set that nobody asked for is dropped after this
	maxSets    = 1_024            // topics whose holders are kept
	maxHinted  = 64               // holders that others named and that answered
	lookupTime = 1500 * time.Millisecond
)

// Holders are the nodes that hold one topic.
type holders struct {
	remote []peer.ID // closest first, without self
	self   bool      // this node is one of them
	all    bool      // the network is so small that every node is
}

// count is how many there are.
func (h *holders) count() int {
	if h.self {
		return len(h.remote) + 1
	}
	return len(h.remote)
}

// electHolders picks the holders of key among self and the others. An empty
// self, a client, is never one.
func electHolders(key kb.ID, self peer.ID, others []peer.ID) holders {
	others = slices.DeleteFunc(closest(key, others), func(p peer.ID) bool { return p == self })
	if self == "" {
		if len(others) > 0 && len(others) <= everyone {
			return holders{remote: others, all: true}
		}
		return holders{remote: others[:min(len(others), replicas)]}
	}
	if len(others) < everyone {
		return holders{remote: others, self: true, all: true}
	}
	rank, _ := slices.BinarySearchFunc(others, xorDistance(key, self), func(p peer.ID, d []byte) int {
		return bytes.Compare(xorDistance(key, p), d)
	})
	if rank < replicas {
		return holders{remote: others[:replicas-1], self: true}
	}
	return holders{remote: others[:replicas]}
}

// closest returns the distinct peers by XOR distance to key, nearest first.
func closest(key kb.ID, peers []peer.ID) []peer.ID {
	type entry struct {
		id       peer.ID
		distance []byte
	}
	entries := make([]entry, 0, len(peers))
	seen := make(map[peer.ID]struct{}, len(peers))
	for _, p := range peers {
		if _, dup := seen[p]; !dup {
			seen[p] = struct{}{}
			entries = append(entries, entry{p, xorDistance(key, p)})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.distance, b.distance) })
	sorted := make([]peer.ID, len(entries))
	for i, e := range entries {
		sorted[i] = e.id
	}
	return sorted
}

func xorDistance(key kb.ID, p peer.ID) []byte { return kb.Xor(key, kb.ConvertPeerID(p)) }

// knownList is what a publisher tells a holder of the holders it knows: four
// bytes of each one's Kademlia ID.
func knownList(peers []peer.ID) []byte {
	b := make([]byte, 0, 4*len(peers))
	for _, p := range peers {
		b = append(b, kb.ConvertPeerID(p)[:4]...)
	}
	return b
}

// missing returns those of view, a holder's own idea of key's holders, that a
// publisher who knows the holders in known lacks: absent from known and nearer
// than its farthest.
func missing(key kb.ID, view []peer.ID, known []byte) []peer.ID {
	top := binary.BigEndian.Uint32(key)
	has := make(map[uint32]bool, len(known)/4)
	var farthest uint32
	for ; len(known) >= 4; known = known[4:] {
		prefix := binary.BigEndian.Uint32(known)
		has[prefix] = true
		farthest = max(farthest, prefix^top)
	}
	var lacking []peer.ID
	for _, p := range view {
		prefix := binary.BigEndian.Uint32(kb.ConvertPeerID(p))
		if !has[prefix] && (len(has) < replicas || prefix^top < farthest) {
			lacking = append(lacking, p)
		}
	}
	return lacking
}

// holderCache remembers, per topic, the nodes that the last look-up found, and
// the holders that others named and that have proven to answer. Time is passed
// in.
type holderCache struct {
	networkID string

	mu         sync.Mutex
	sets       map[Topic]*holderSet
	hinted     []peer.ID             // oldest first
	met        map[peer.ID]time.Time // when a named holder was last checked
	generation uint64                // rises with every change
}

type holderSet struct {
	key      string
	looked   []peer.ID
	lookedAt time.Time // zero: never
	used     time.Time
	stale    bool // to be looked up again at once
	looking  bool
}

func newHolderCache(networkID string) *holderCache {
	return &holderCache{networkID: networkID, sets: make(map[Topic]*holderSet)}
}

// use returns the nodes cached for topic, and keeps the topic's set warm from
// now on. Looked is false if no look-up has ended yet.
func (c *holderCache) use(now time.Time, topic Topic) (cached []peer.ID, looked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[topic]
	if s == nil {
		if len(c.sets) >= maxSets {
			c.evict()
		}
		s = &holderSet{key: topic.Key(c.networkID)}
		c.sets[topic] = s
	}
	s.used = now
	return slices.Concat(s.looked, c.hinted), !s.lookedAt.IsZero()
}

// peek is use without keeping the set warm: for topics that a peer named.
func (c *holderCache) peek(topic Topic) []peer.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sets[topic]; s != nil {
		return slices.Concat(s.looked, c.hinted)
	}
	return slices.Clone(c.hinted)
}

// due returns the topics to look up now, and marks them as being looked up:
// those in use whose result is old or lacks a holder that was lost. Of a small
// network, only the capacity topic: its holders are everyone.
func (c *holderCache) due(now time.Time, small bool) []Topic {
	c.mu.Lock()
	defer c.mu.Unlock()
	var topics []Topic
	for topic, s := range c.sets {
		if now.Sub(s.used) > setIdle {
			delete(c.sets, topic)
			continue
		}
		if s.looking || !s.used.After(s.lookedAt) || small && topic.Stream() != "" {
			continue
		}
		// A set marked stale waits a little, so that a flapping holder
		// does not cause one look-up after the other.
		age := now.Sub(s.lookedAt)
		if age > lookupAge || s.stale && age > lookupPause {
			s.looking = true
			topics = append(topics, topic)
		}
	}
	return topics
}

// lookupPause is the least time between two look-ups of one topic.
const lookupPause = 5 * time.Second

// begin marks topic as being looked up for a seeker, unless that was done less
// than lookupPause ago.
func (c *holderCache) begin(now time.Time, topic Topic) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[topic]
	if s == nil || s.looking || now.Sub(s.lookedAt) < lookupPause {
		return false
	}
	s.looking = true
	return true
}

// found stores what a look-up that was due found, possibly nothing.
func (c *holderCache) found(now time.Time, topic Topic, peers []peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[topic]
	if s == nil {
		return
	}
	s.looking, s.stale, s.lookedAt = false, false, now
	if len(peers) > 0 && !slices.Equal(s.looked, peers) {
		s.looked = peers
		c.generation++
	}
}

// lost asks for a new look-up of every topic in which p was found.
func (c *holderCache) lost(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.hinted = slices.DeleteFunc(c.hinted, func(h peer.ID) bool { return h == p })
	for _, s := range c.sets {
		if slices.Contains(s.looked, p) {
			s.stale = true
		}
	}
}

// hint adds a holder that another one named and that has answered.
func (c *holderCache) hint(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.hinted, p) {
		return
	}
	if len(c.hinted) >= maxHinted {
		c.hinted = c.hinted[1:]
	}
	c.hinted = append(c.hinted, p)
	c.generation++
}

// meeting reports whether p, a holder that another one named, is to be checked
// now: once per lookupAge, and only so many peers.
func (c *holderCache) meeting(now time.Time, p peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.met, func(_ peer.ID, at time.Time) bool { return now.Sub(at) > lookupAge })
	if _, done := c.met[p]; done || len(c.met) >= maxHinted {
		return false
	}
	if c.met == nil {
		c.met = make(map[peer.ID]time.Time)
	}
	c.met[p] = now
	return true
}

func (c *holderCache) changes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// evict drops the set unused for longest. The caller holds mu.
func (c *holderCache) evict() {
	oldest := slices.MinFunc(slices.Collect(maps.Keys(c.sets)), func(a, b Topic) int {
		return c.sets[a].used.Compare(c.sets[b].used)
	})
	delete(c.sets, oldest)
}
