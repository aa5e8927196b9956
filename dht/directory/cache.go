package directory

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

const (
	// LookUpAge is how long the result of a look-up is valid.
	LookUpAge   = 3 * time.Minute
	lookUpPause = 5 * time.Second  // least time between two look-ups of one topic
	setIdle     = 10 * time.Minute // a set that is not asked for is dropped after this
	maxSets     = 1_024            // topics whose holders are kept
	maxNamed    = 64               // holders that others named and that answered
)

// A Cache remembers, per topic, the nodes that the last look-up found, and the
// holders that others named and that have answered. It is safe for concurrent
// use. Time is passed in.
type Cache struct {
	mu         sync.Mutex
	sets       map[holder.Topic]*set
	named      []peer.ID             // oldest first
	met        map[peer.ID]time.Time // when a named holder was last checked
	generation uint64                // rises with every change
}

type set struct {
	looked   []peer.ID
	lookedAt time.Time // zero: never
	used     time.Time
	stale    bool // to be looked up again at once
	looking  bool
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{sets: make(map[holder.Topic]*set)} }

// Use returns the nodes cached for topic, and keeps the topic's set fresh from
// now on. Looked is false if no look-up has ended yet.
func (c *Cache) Use(now time.Time, topic holder.Topic) (cached []peer.ID, looked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[topic]
	if s == nil {
		if len(c.sets) >= maxSets {
			c.evict()
		}
		s = &set{}
		c.sets[topic] = s
	}
	s.used = now
	return slices.Concat(s.looked, c.named), !s.lookedAt.IsZero()
}

// Peek is Use without keeping the set fresh: for topics that a peer named.
func (c *Cache) Peek(topic holder.Topic) []peer.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sets[topic]; s != nil {
		return slices.Concat(s.looked, c.named)
	}
	return slices.Clone(c.named)
}

// due returns the topics to look up now, and marks them as being looked up:
// those in use whose result is old or lacks a holder that was lost. If all
// nodes hold everything, the topics of streams are left out.
func (c *Cache) due(now time.Time, whole bool) []holder.Topic {
	c.mu.Lock()
	defer c.mu.Unlock()
	var topics []holder.Topic
	for topic, s := range c.sets {
		if now.Sub(s.used) > setIdle {
			delete(c.sets, topic)
			continue
		}
		if s.looking || !s.used.After(s.lookedAt) || whole && topic.Stream() != "" {
			continue
		}
		// A set marked stale waits a little, so that a flapping holder
		// does not cause one look-up after the other.
		age := now.Sub(s.lookedAt)
		if age > LookUpAge || s.stale && age > lookUpPause {
			s.looking = true
			topics = append(topics, topic)
		}
	}
	return topics
}

// Begin marks topic as being looked up for a seeker, unless it was looked up
// less than lookUpPause ago.
func (c *Cache) Begin(now time.Time, topic holder.Topic) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[topic]
	if s == nil || s.looking || now.Sub(s.lookedAt) < lookUpPause {
		return false
	}
	s.looking = true
	return true
}

// found stores the result of a look-up that was due, possibly empty.
func (c *Cache) found(now time.Time, topic holder.Topic, peers []peer.ID) {
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

// Lost asks for a new look-up of every topic in which p was found.
func (c *Cache) Lost(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.named = slices.DeleteFunc(c.named, func(h peer.ID) bool { return h == p })
	for _, s := range c.sets {
		if slices.Contains(s.looked, p) {
			s.stale = true
		}
	}
}

// Add adds a holder that another one named and that has answered.
func (c *Cache) Add(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.named, p) {
		return
	}
	if len(c.named) >= maxNamed {
		c.named = c.named[1:]
	}
	c.named = append(c.named, p)
	c.generation++
}

// Meets reports whether p, a holder that another one named, is to be checked
// now: once per LookUpAge, and only a bounded number of peers.
func (c *Cache) Meets(now time.Time, p peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.met, func(_ peer.ID, at time.Time) bool { return now.Sub(at) > LookUpAge })
	if _, done := c.met[p]; done || len(c.met) >= maxNamed {
		return false
	}
	if c.met == nil {
		c.met = make(map[peer.ID]time.Time)
	}
	c.met[p] = now
	return true
}

// Changes rises with every change of the cache.
func (c *Cache) Changes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// evict drops the set unused for longest. The caller holds mu.
func (c *Cache) evict() {
	oldest := slices.MinFunc(slices.Collect(maps.Keys(c.sets)), func(a, b holder.Topic) int {
		return c.sets[a].used.Compare(c.sets[b].used)
	})
	delete(c.sets, oldest)
}
