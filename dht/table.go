package dht

import (
	"container/heap"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// Caps of a holder's table. A full one drops what would run out first.
const (
	maxHeld         = 16_384 // records in all, about 1 KiB each
	maxHeldTopic    = 1_024  // publishers of one topic
	maxHeldNode     = 512    // topics of one publisher
	maxPosts        = 256    // signposts of one topic
	maxPosted       = 4_096  // topics with signposts
	maxWatchers     = 256    // in all
	watchQueueDepth = 256    // events a watcher may lag behind
)

var (
	errReplay   = errors.New("replayed: a newer record is held")
	errWatchers = errors.New("too many watchers")
)

// A table is what a holder holds: at most one record per topic and node, each
// until its TTL has passed since it came in, by the holder's own clock. Time
// is passed in. It is safe for concurrent use and never blocks.
//
// A withdrawn record leaves a tombstone with its sequence number until the
// TTL has passed, so that an older copy on its way cannot bring it back.
type table struct {
	limits tableLimits

	mu       sync.Mutex
	topics   map[Topic]map[peer.ID]*held
	nodes    map[peer.ID]map[Topic]*held
	expiry   expiryHeap
	watchers map[*watcher]struct{}
	posts    map[Topic]map[peer.ID]time.Time // signposts, until when they stand
}

type tableLimits struct{ total, topic, node, watchers int }

func defaultTableLimits() tableLimits {
	return tableLimits{maxHeld, maxHeldTopic, maxHeldNode, maxWatchers}
}

// held is one record in a table. All but index and shadow, which the table
// guards, is fixed once it is in.
type held struct {
	topic    Topic
	record   capacity.Record
	sealed   []byte // nil: a tombstone, of which record has Node and Seq only
	received time.Time
	expires  time.Time
	index    int    // in the expiry heap
	shadow   shadow // what it was offered for since it came in
}

func (h *held) node() peer.ID { return h.record.Node }

func newTable(limits tableLimits) *table {
	return &table{
		limits:   limits,
		topics:   make(map[Topic]map[peer.ID]*held),
		nodes:    make(map[peer.ID]map[Topic]*held),
		watchers: make(map[*watcher]struct{}),
		posts:    make(map[Topic]map[peer.ID]time.Time),
	}
}

// put holds r, sealed, for its TTL since it came in: now, or earlier if another
// holder passed it on. The caller has checked the seal and that r belongs in
// topic. The error is errReplay if a newer one is held; the one held already is
// refreshed to no longer than it was.
func (t *table) put(now, since time.Time, topic Topic, r capacity.Record, sealed []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if old := t.topics[topic][r.Node]; old != nil {
		switch {
		case r.Seq < old.record.Seq, r.Seq == old.record.Seq && old.sealed == nil:
			return errReplay
		case r.Seq == old.record.Seq:
			return nil
		}
		t.remove(old)
	}
	t.makeRoom(topic, r.Node)
	h := &held{topic: topic, record: r, sealed: sealed, received: since, expires: since.Add(r.TTL)}
	t.add(h)
	t.tell(tableEvent{held: h})
	return nil
}

// withdraw takes node's record out of topic if its sequence number is at most
// seq, and refuses what is older than seq from then on.
func (t *table) withdraw(now time.Time, topic Topic, node peer.ID, seq uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	old := t.topics[topic][node]
	if old == nil {
		return nil
	}
	if old.record.Seq > seq {
		return errReplay
	}
	t.remove(old)
	t.add(&held{
		topic:    topic,
		record:   capacity.Record{Node: node, Seq: seq},
		received: now,
		expires:  now.Add(capacity.MaxTTL),
	})
	if old.sealed != nil {
		t.tell(tableEvent{held: old, gone: true})
	}
	return nil
}

// list returns the records of topic, in no order.
func (t *table) list(now time.Time, topic Topic) []*held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	return t.live(topic)
}

// stocked is a record with its shadow at one moment.
type stocked struct {
	*held
	shadow shadow
}

// stock returns the records of topic with their shadows, in no order.
func (t *table) stock(now time.Time, topic Topic) []stocked {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	live := t.live(topic)
	list := make([]stocked, 0, len(live))
	for _, h := range live {
		list = append(list, stocked{h, h.shadow})
	}
	return list
}

// offered adds s to h's shadow.
func (t *table) offered(h *held, s shadow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.shadow = h.shadow.plus(s)
}

// get returns node's record in topic, or nil.
func (t *table) get(now time.Time, topic Topic, node peer.ID) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if topic == CapacityTopic() {
		return newestShard(t.nodes[node])
	}
	if h := t.topics[topic][node]; h != nil && h.sealed != nil {
		return h
	}
	return nil
}

// newestShard returns the newest capacity record of one node's, or nil.
func newestShard(records map[Topic]*held) *held {
	var newest *held
	for topic, h := range records {
		if _, _, ok := topic.shard(); ok && h.sealed != nil && (newest == nil || h.record.Seq > newest.record.Seq) {
			newest = h
		}
	}
	return newest
}

// count returns how many records topic has, and whether enough nodes say that
// they have moved on from it.
func (t *table) count(now time.Time, topic Topic, quorum int) (records int, split bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	standing := 0
	for _, until := range t.posts[topic] {
		if until.After(now) {
			standing++
		}
	}
	return len(t.live(topic)), standing >= quorum
}

// post puts node's signpost up in topic.
func (t *table) post(now time.Time, topic Topic, node peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if t.posts[topic] == nil {
		if len(t.posts) >= maxPosted {
			return
		}
		t.posts[topic] = make(map[peer.ID]time.Time)
	}
	if _, up := t.posts[topic][node]; up || len(t.posts[topic]) < maxPosts {
		t.posts[topic][node] = now.Add(postTTL)
	}
}

// all returns every record by topic.
func (t *table) all(now time.Time) map[Topic][]*held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	m := make(map[Topic][]*held, len(t.topics))
	for topic := range t.topics {
		if live := t.live(topic); len(live) > 0 {
			m[topic] = live
		}
	}
	return m
}

// sweep drops what has run out, and tells the watchers.
func (t *table) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for topic, posts := range t.posts {
		maps.DeleteFunc(posts, func(_ peer.ID, until time.Time) bool { return !until.After(now) })
		if len(posts) == 0 {
			delete(t.posts, topic)
		}
	}
}

// A tableEvent is one change of a topic.
type tableEvent struct {
	held *held
	gone bool // it ran out, was withdrawn or had to make room
}

// A watcher sees every change of one topic. Events is closed when it lags too
// far behind, or by unwatch.
type watcher struct {
	topic  Topic
	events chan tableEvent
}

// watch returns what topic holds now and a watcher of what changes from then
// on, which the caller ends with unwatch.
func (t *table) watch(now time.Time, topic Topic) ([]*held, *watcher, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.watchers) >= t.limits.watchers {
		return nil, nil, errWatchers
	}
	t.expire(now)
	w := &watcher{topic: topic, events: make(chan tableEvent, watchQueueDepth)}
	t.watchers[w] = struct{}{}
	return t.live(topic), w, nil
}

func (t *table) unwatch(w *watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(w)
}

// The methods below are called with mu held.

func (t *table) live(topic Topic) []*held {
	if topic == CapacityTopic() {
		var list []*held
		for _, records := range t.nodes {
			if h := newestShard(records); h != nil {
				list = append(list, h)
			}
		}
		return list
	}
	list := make([]*held, 0, len(t.topics[topic]))
	for _, h := range t.topics[topic] {
		if h.sealed != nil {
			list = append(list, h)
		}
	}
	return list
}

func (t *table) expire(now time.Time) {
	for len(t.expiry) > 0 && !t.expiry[0].expires.After(now) {
		t.drop(t.expiry[0])
	}
}

// makeRoom drops what would run out first where one more record of node in
// topic would go beyond a cap.
func (t *table) makeRoom(topic Topic, node peer.ID) {
	if m := t.topics[topic]; len(m) >= t.limits.topic {
		t.drop(first(m))
	}
	if m := t.nodes[node]; len(m) >= t.limits.node {
		t.drop(first(m))
	}
	if len(t.expiry) >= t.limits.total {
		t.drop(t.expiry[0])
	}
}

// first returns the record of m that runs out first.
func first[K comparable](m map[K]*held) *held {
	var f *held
	for _, h := range m {
		if f == nil || h.expires.Before(f.expires) {
			f = h
		}
	}
	return f
}

func (t *table) drop(h *held) {
	t.remove(h)
	if h.sealed != nil {
		t.tell(tableEvent{held: h, gone: true})
	}
}

func (t *table) add(h *held) {
	if t.topics[h.topic] == nil {
		t.topics[h.topic] = make(map[peer.ID]*held)
	}
	if t.nodes[h.node()] == nil {
		t.nodes[h.node()] = make(map[Topic]*held)
	}
	t.topics[h.topic][h.node()] = h
	t.nodes[h.node()][h.topic] = h
	heap.Push(&t.expiry, h)
}

func (t *table) remove(h *held) {
	delete(t.topics[h.topic], h.node())
	if len(t.topics[h.topic]) == 0 {
		delete(t.topics, h.topic)
	}
	delete(t.nodes[h.node()], h.topic)
	if len(t.nodes[h.node()]) == 0 {
		delete(t.nodes, h.node())
	}
	heap.Remove(&t.expiry, h.index)
}

// tell queues e for its topic's watchers; one whose queue is full is cut off.
// The send never blocks, so it may happen under the lock, which keeps events
// in order.
func (t *table) tell(e tableEvent) {
	for w := range t.watchers {
		if w.topic != e.held.topic && !w.topic.covers(e.held.topic) {
			continue
		}
		select {
		case w.events <- e:
		default:
			t.cut(w)
		}
	}
}

func (t *table) cut(w *watcher) {
	if _, ok := t.watchers[w]; ok {
		delete(t.watchers, w)
		close(w.events)
	}
}

// expiryHeap has the record that runs out first on top.
type expiryHeap []*held

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *expiryHeap) Push(x any) {
	e := x.(*held)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *expiryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
