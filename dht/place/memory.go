package place

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// maxRemembered bounds the records remembered, about 1 KiB each.
	maxRemembered = 4_096
	// rememberAfter is how long after a record's expiry older ones of its node
	// are still refused. It is bounded for the sake of a node that was
	// restarted with its clock set back.
	rememberAfter = time.Minute
)

// A Memory remembers the newest record seen of each node and topic. An older
// one, replayed or from a holder that lags behind, is never used instead, and
// no record is used for longer than its TTL. Clocks may differ by minutes, so a
// record's age is counted from when it was first seen. The record seen longest
// ago is evicted first. A Memory is safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	seen *simplelru.LRU[memoryKey, memoryEntry]
}

type memoryKey struct {
	node   peer.ID
	stream string
}

type memoryEntry struct {
	record capacity.Record
	sealed []byte
	until  time.Time // when it expires, by this node's clock
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	seen, err := simplelru.NewLRU[memoryKey, memoryEntry](maxRemembered, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &Memory{seen: seen}
}

// Get returns the newest record seen of node, in the topic of stream, or in the
// capacity topics if stream is "", and its sealed bytes.
func (m *Memory) Get(now time.Time, node peer.ID, stream string) (capacity.Record, []byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, _ := m.seen.Peek(memoryKey{node, stream})
	return e.record, e.sealed, e.until.After(now)
}

// Of returns the newest record seen of node in any topic, unless it has
// expired.
func (m *Memory) Of(now time.Time, node peer.ID) (newest capacity.Record, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range m.seen.Keys() {
		if key.node != node {
			continue
		}
		if e, _ := m.seen.Peek(key); e.until.After(now) && (!ok || e.record.Seq > newest.Seq) {
			newest, ok = e.record, true
		}
	}
	return newest, ok
}

// See takes in a verified record and returns the newest one seen of its node
// and topic: r itself, or one seen before. It is not ok if that has expired, or
// was withdrawn and r is older.
func (m *Memory) See(now time.Time, r capacity.Record, sealed []byte) (newest capacity.Record, as []byte, ok bool) {
	key := memoryKey{node: r.Node}
	if r.Carries != nil {
		key.stream = r.Carries.Stream
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, seen := m.seen.Get(key); seen && e.record.Seq >= r.Seq && now.Before(e.until.Add(rememberAfter)) {
		return e.record, e.sealed, now.Before(e.until)
	}
	m.seen.Add(key, memoryEntry{r, sealed, now.Add(r.TTL)})
	return r, sealed, true
}

// Forget forgets everything.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Purge()
}
