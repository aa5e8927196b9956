package dht

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// maxNewest bounds the records remembered, about 1 KiB each.
	maxNewest = 4_096
	// rememberAfter is how long after a record has run out older ones of its
	// node are still refused. It is bounded for the sake of a node that was
	// restarted with its clock set back.
	rememberAfter = time.Minute
)

// A newestLog remembers the newest record seen of each node and topic, so that
// an older one, replayed or from a holder that lags behind, is never used in
// its place, nor the same one for longer than its TTL: clocks may differ by
// minutes, so how old a record is shows by when it was seen first. The one
// unused for longest is forgotten first. Time is passed in.
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
	until  time.Time // when it runs out, by our clock
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

// of returns the newest record seen of node in any topic, unless it has run
// out.
func (l *newestLog) of(now time.Time, node peer.ID) (newest capacity.Record, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, el := range l.entries {
		e := el.Value.(*newestEntry)
		if key.node == node && e.until.After(now) && (!ok || e.record.Seq > newest.Seq) {
			newest, ok = e.record, true
		}
	}
	return newest, ok
}

// see takes in a verified record and returns the newest one seen of its node
// and topic: itself, or one seen before. It is not ok if that has run out, or is
// gone and r is older.
func (l *newestLog) see(now time.Time, r capacity.Record, sealed []byte) (newest capacity.Record, as []byte, ok bool) {
	key := newestKey{node: r.Node}
	if r.Carries != nil {
		key.stream = r.Carries.Stream
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := newestEntry{key, r, sealed, now.Add(r.TTL)}
	if el := l.entries[key]; el != nil {
		e := el.Value.(*newestEntry)
		l.order.MoveToFront(el)
		if e.record.Seq >= r.Seq && now.Before(e.until.Add(rememberAfter)) {
			return e.record, e.sealed, now.Before(e.until)
		}
		*e = fresh
		return r, sealed, true
	}
	if len(l.entries) >= maxNewest {
		oldest := l.order.Back()
		delete(l.entries, oldest.Value.(*newestEntry).key)
		l.order.Remove(oldest)
	}
	l.entries[key] = l.order.PushFront(&fresh)
	return r, sealed, true
}
