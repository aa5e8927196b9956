package place

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// maxRemembered bounds the records remembered, about 1 KiB each.
	maxRemembered = 4_096
	// rememberAfter is how long after a record has run out older ones of its
	// node are still refused. It is bounded for the sake of a node that was
	// restarted with its clock set back.
	rememberAfter = time.Minute
)

// A Memory remembers the newest record seen of each node and topic, so that
// an older one, replayed or from a holder that lags behind, is never used in
// its place, nor the same one for longer than its TTL: clocks may differ by
// minutes, so how old a record is shows by when it was seen first. The one
// unused for longest is forgotten first. Several goroutines may use it.
type Memory struct {
	mu      sync.Mutex
	entries map[memoryKey]*list.Element
	order   *list.List // of *memoryEntry, used last first
}

type memoryKey struct {
	node   peer.ID
	stream string
}

type memoryEntry struct {
	key    memoryKey
	record capacity.Record
	sealed []byte
	until  time.Time // when it runs out, by our clock
}

// NewMemory returns a Memory of nothing.
func NewMemory() *Memory {
	return &Memory{entries: make(map[memoryKey]*list.Element), order: list.New()}
}

// Get returns the newest record seen of node, in the topic of stream, or in
// the capacity topics if that is "", and as it was sealed.
func (m *Memory) Get(now time.Time, node peer.ID, stream string) (capacity.Record, []byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.entries[memoryKey{node, stream}]
	if el == nil {
		return capacity.Record{}, nil, false
	}
	e := el.Value.(*memoryEntry)
	return e.record, e.sealed, e.until.After(now)
}

// Of returns the newest record seen of node in any topic, unless it has run
// out.
func (m *Memory) Of(now time.Time, node peer.ID) (newest capacity.Record, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, el := range m.entries {
		e := el.Value.(*memoryEntry)
		if key.node == node && e.until.After(now) && (!ok || e.record.Seq > newest.Seq) {
			newest, ok = e.record, true
		}
	}
	return newest, ok
}

// See takes in a verified record and returns the newest one seen of its node
// and topic: itself, or one seen before. It is not ok if that has run out, or is
// gone and r is older.
func (m *Memory) See(now time.Time, r capacity.Record, sealed []byte) (newest capacity.Record, as []byte, ok bool) {
	key := memoryKey{node: r.Node}
	if r.Carries != nil {
		key.stream = r.Carries.Stream
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := memoryEntry{key, r, sealed, now.Add(r.TTL)}
	if el := m.entries[key]; el != nil {
		e := el.Value.(*memoryEntry)
		m.order.MoveToFront(el)
		if e.record.Seq >= r.Seq && now.Before(e.until.Add(rememberAfter)) {
			return e.record, e.sealed, now.Before(e.until)
		}
		*e = fresh
		return r, sealed, true
	}
	if len(m.entries) >= maxRemembered {
		oldest := m.order.Back()
		delete(m.entries, oldest.Value.(*memoryEntry).key)
		m.order.Remove(oldest)
	}
	m.entries[key] = m.order.PushFront(&fresh)
	return r, sealed, true
}

// Forget forgets everything.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.entries)
	m.order.Init()
}
