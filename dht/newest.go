package dht

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// maxNewest bounds the records remembered, about 1 KiB each.
const maxNewest = 4_096

// A newestLog remembers the newest record seen of each node and topic, so that
// an older one, replayed or from a holder that lags behind, is never used in
// its place. The one unused for longest is forgotten first, and each when it
// has run out. Time is passed in.
type newestLog struct {
	mu      sync.Mutex
	entries map[newestKey]*list.Element
	order   *list.List // of *newestEntry, used last first
}

type newestKey struct {
	node   peer.ID
	stream string
}

type newestEntry struct {
	key    newestKey
	record capacity.Record
	sealed []byte
	until  time.Time // by our clock
}

func newNewestLog() *newestLog {
	return &newestLog{entries: make(map[newestKey]*list.Element), order: list.New()}
}

// get returns the newest record seen of node, in the topic of stream, or in
// the capacity topics if that is "", and as it was sealed.
func (l *newestLog) get(now time.Time, node peer.ID, stream string) (capacity.Record, []byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.entries[newestKey{node, stream}]
	if el == nil {
		return capacity.Record{}, nil, false
	}
	e := el.Value.(*newestEntry)
	return e.record, e.sealed, e.until.After(now)
}

// see takes in a verified record and returns the newest one seen of its node
// and topic: itself, or one seen before.
func (l *newestLog) see(now time.Time, r capacity.Record, sealed []byte) (capacity.Record, []byte) {
	key := newestKey{node: r.Node}
	if r.Carries != nil {
		key.stream = r.Carries.Stream
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if el := l.entries[key]; el != nil {
		e := el.Value.(*newestEntry)
		l.order.MoveToFront(el)
		if e.record.Seq >= r.Seq && e.until.After(now) {
			return e.record, e.sealed
		}
		*e = newestEntry{key, r, sealed, now.Add(r.TTL + capacity.MaxClockSkew)}
		return r, sealed
	}
	if len(l.entries) >= maxNewest {
		oldest := l.order.Back()
		delete(l.entries, oldest.Value.(*newestEntry).key)
		l.order.Remove(oldest)
	}
	l.entries[key] = l.order.PushFront(&newestEntry{key, r, sealed, now.Add(r.TTL + capacity.MaxClockSkew)})
	return r, sealed
}
