package holder

import (
	"cmp"
	"container/heap"
	"container/list"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// Limits of a holder's table. A full one drops a record of the owner with most.
const (
	maxTotal        = 16_384 // records in all, about 1 KiB each
	MaxTopic        = 1_024  // publishers of one topic
	maxNode         = 512    // topics of one publisher
	maxWatchers     = 256    // of other nodes, in all
	watchQueueDepth = 256    // events a watcher may lag behind

	// askedAge is how long a publisher that asked for others counts as a seeker
	// here.
	askedAge = time.Minute
)

var (
	// ErrReplay is the error of [Table.Put] and [Table.Withdraw] for old
	// records.
	ErrReplay = errors.New("replayed: a newer record is held")
	// ErrFull is the error of [Table.Put] for the owner with most records
	// already.
	ErrFull = errors.New("no room for more of yours: the table is full, and no publisher has more in it")
	// ErrWatchers is the error of [Table.Watch] when there are too many, and of
	// a watcher that was ended to make room for another node's.
	ErrWatchers = errors.New("too many watchers")
	// ErrSlow is the error of a watcher that was ended because it did not keep
	// up.
	ErrSlow = errors.New("too slow")
)

// A Table holds at most one record per topic and node, each until its TTL has
// passed since it came in, by the holder's own clock. Time is passed in. It is
// safe for concurrent use and never blocks.
//
// A withdrawn record leaves a tombstone with its sequence number until the TTL
// has passed, so that a late older copy cannot bring it back.
type Table struct {
	limits Limits

	mu       sync.Mutex
	topics   map[Topic]map[peer.ID]*Held
	nodes    map[peer.ID]map[Topic]*Held
	expiry   expiryHeap
	owners   owners
	watchers map[*Watcher]struct{}
	watching map[peer.ID]int // watchers by node, the node's own under ""
	drifts   map[Topic]*drift
	splits   splitNotices
}

// Limits are the caps of a table.
type Limits struct{ Total, Topic, Node, Watchers int }

// DefaultLimits are those of a node.
func DefaultLimits() Limits {
	return Limits{maxTotal, MaxTopic, maxNode, maxWatchers}
}

// Held is one record in a table. Its exported fields do not change once it is
// in.
type Held struct {
	Topic    Topic
	Record   capacity.Record
	Sealed   []byte // nil: a tombstone, of which Record has Node and Seq only
	Received time.Time
	Expires  time.Time

	// Guarded by the table.
	owner  peer.ID // the node that brought it
	owned  *list.Element
	number uint64    // in order of coming in
	index  int       // in the expiry heap
	shadow shadow    // load expected from offers since it came in
	asked  time.Time // when its node last asked for others in the topic
}

// Node is the publisher of the record.
func (h *Held) Node() peer.ID { return h.Record.Node }

// NewTable returns an empty table.
func NewTable(limits Limits) *Table {
	return &Table{
		limits:   limits,
		topics:   make(map[Topic]map[peer.ID]*Held),
		nodes:    make(map[peer.ID]map[Topic]*Held),
		owners:   owners{by: make(map[peer.ID]*owner)},
		drifts:   make(map[Topic]*drift),
		watchers: make(map[*Watcher]struct{}),
		watching: make(map[peer.ID]int),
		splits:   newSplitNotices(),
	}
}

// Put holds r, sealed, for its TTL since it came in: now, or earlier if another
// holder passed it on. The caller has checked the seal and that r belongs in
// topic. The error is ErrReplay if a newer one is held, and ErrFull if there is
// no room. A record that is held already is refreshed, but expires no later
// than before.
func (t *Table) Put(now, since time.Time, topic Topic, r capacity.Record, sealed []byte) error {
	return t.Copy(now, since, topic, r.Node, r, sealed)
}

// Copy is Put of a record that from has brought. It counts as from's, unless
// the node itself had brought the one before it.
func (t *Table) Copy(now, since time.Time, topic Topic, from peer.ID, r capacity.Record, sealed []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	var asked time.Time
	owner := from
	if old := t.topics[topic][r.Node]; old != nil {
		asked = old.asked
		switch {
		case r.Seq < old.Record.Seq, r.Seq == old.Record.Seq && old.Sealed == nil:
			return ErrReplay
		case r.Seq == old.Record.Seq:
			return nil
		}
		if old.Sealed != nil {
			if t.drifts[topic] == nil {
				t.drifts[topic] = &drift{}
			}
			t.drifts[topic].learn(old, since, &r)
		}
		if old.owner == r.Node {
			owner = r.Node
		}
		t.remove(old)
	}
	h := &Held{Topic: topic, Record: r, Sealed: sealed, Received: since, Expires: since.Add(r.TTL), asked: asked, owner: owner}
	if !t.makeRoom(h) {
		return ErrFull
	}
	t.add(h)
	t.tell(Event{Held: h})
	return nil
}

// Withdraw removes node's record from topic if its sequence number is at most
// seq, and refuses records older than seq from then on.
func (t *Table) Withdraw(now time.Time, topic Topic, node peer.ID, seq uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	old := t.topics[topic][node]
	if old == nil {
		return nil
	}
	if old.Record.Seq > seq {
		return ErrReplay
	}
	t.remove(old)
	t.add(&Held{
		Topic:    topic,
		owner:    node,
		Record:   capacity.Record{Node: node, Seq: seq},
		Received: now,
		Expires:  now.Add(capacity.MaxTTL),
	})
	if old.Sealed != nil {
		t.tell(Event{Held: old, Gone: true})
	}
	return nil
}

// List returns the records of topic, in no order.
func (t *Table) List(now time.Time, topic Topic) []*Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	return t.live(topic)
}

// stocked is a record with its shadow at one moment.
type stocked struct {
	*Held
	shadow shadow
	left   float64 // of what the record says is used
}

// stock returns the records of topic with their shadows, sorted by node, so
// that a random draw depends on the seed only. It notes that seeker has asked,
// and returns how many seekers this query stands for: of the topic's
// publishers, which ask in it, some ask only other holders. The last result is
// the share of sessions that end per second.
func (t *Table) stock(now time.Time, topic Topic, seeker peer.ID) (list []stocked, askers, drift float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	live := t.live(topic)
	list = make([]stocked, 0, len(live))
	heard := 0
	for _, h := range live {
		if h.Node() == seeker {
			h.asked = now
		}
		if now.Sub(h.asked) <= askedAge {
			heard++
		}
		list = append(list, stocked{h, h.shadow, 1})
	}
	slices.SortFunc(list, func(a, b stocked) int { return cmp.Compare(a.Node(), b.Node()) })
	if d := t.drifts[topic]; d != nil {
		drift = d.rate()
	}
	if heard == 0 {
		return list, mostAskers, drift
	}
	return list, min(mostAskers, float64(len(list))/float64(heard)), drift
}

// offered adds s to h's shadow.
func (t *Table) offered(h *Held, s shadow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.shadow = h.shadow.plus(s)
}

// Get returns node's record in topic, or nil.
func (t *Table) Get(now time.Time, topic Topic, node peer.ID) *Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if topic == CapacityTopic() {
		return newestShard(t.nodes[node])
	}
	if h := t.topics[topic][node]; h != nil && h.Sealed != nil {
		return h
	}
	return nil
}

// newestShard returns the newest of one node's capacity records, or nil.
func newestShard(records map[Topic]*Held) *Held {
	var newest *Held
	for topic, h := range records {
		if _, _, ok := topic.Shard(); ok && h.Sealed != nil && (newest == nil || h.Record.Seq > newest.Record.Seq) {
			newest = h
		}
	}
	return newest
}

// Count returns how many records topic has, and whether at least quorum nodes
// report that they have moved on to finer shards.
func (t *Table) Count(now time.Time, topic Topic, quorum int) (records int, split bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	return len(t.live(topic)), t.splits.standing(now, topic) >= quorum
}

// NoteSplit notes that node, which published in topic, has moved on to finer
// shards; the notice counts until then.
func (t *Table) NoteSplit(now, until time.Time, topic Topic, node peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	t.splits.note(until, topic, node)
}

// All returns every record by topic.
func (t *Table) All(now time.Time) map[Topic][]*Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	m := make(map[Topic][]*Held, len(t.topics))
	for topic := range t.topics {
		if live := t.live(topic); len(live) > 0 {
			m[topic] = live
		}
	}
	return m
}

// Forget drops the records of topic, as if they had expired.
func (t *Table) Forget(topic Topic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.topics[topic] {
		t.drop(h)
	}
}

// Size counts the topics with records, and the records.
func (t *Table) Size(now time.Time) (topics, records int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for _, m := range t.topics {
		live := 0
		for _, h := range m {
			if h.Sealed != nil {
				live++
			}
		}
		records += live
		if live > 0 {
			topics++
		}
	}
	return topics, records
}

// Sweep drops expired records, and sends the watchers an event for each.
func (t *Table) Sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	maps.DeleteFunc(t.drifts, func(topic Topic, _ *drift) bool { return len(t.topics[topic]) == 0 })
	t.splits.sweep(now)
}

// An Event is one change of a topic.
type Event struct {
	Held *Held
	Gone bool // it expired, was withdrawn or had to make room
}

// A Watcher receives every change of one topic. Events is closed when it lags
// too far behind or has to make room, with the reason in Err from then on, or
// by Unwatch.
type Watcher struct {
	Topic  Topic
	Events chan Event
	Err    error

	node peer.ID
}

// Watch returns the records in topic now and a Watcher of the changes from then
// on, which the caller ends with Unwatch. Node is the watching node, or "" for
// this one, whose watchers are not counted. If there are too many, a watcher of
// the node with most is ended, or the new one is refused.
func (t *Table) Watch(now time.Time, node peer.ID, topic Topic) ([]*Held, *Watcher, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if node != "" && len(t.watchers)-t.watching[""] >= t.limits.Watchers && !t.makeWatcherRoom(node) {
		return nil, nil, ErrWatchers
	}
	t.expire(now)
	w := &Watcher{Topic: topic, Events: make(chan Event, watchQueueDepth), node: node}
	t.watchers[w] = struct{}{}
	t.watching[node]++
	return t.live(topic), w, nil
}

// Unwatch ends the watch.
func (t *Table) Unwatch(w *Watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(w, nil)
}

// The methods below are called with mu held.

func (t *Table) live(topic Topic) []*Held {
	if topic == CapacityTopic() {
		var list []*Held
		for _, records := range t.nodes {
			if h := newestShard(records); h != nil {
				list = append(list, h)
			}
		}
		return list
	}
	list := make([]*Held, 0, len(t.topics[topic]))
	for _, h := range t.topics[topic] {
		if h.Sealed != nil {
			list = append(list, h)
		}
	}
	return list
}

func (t *Table) expire(now time.Time) {
	for len(t.expiry) > 0 && !t.expiry[0].Expires.After(now) {
		t.drop(t.expiry[0])
	}
}

// makeRoom drops records where h would exceed a limit: the oldest of its own
// node, else one of the owner of most, even h's own. It reports whether there
// is room then.
func (t *Table) makeRoom(h *Held) bool {
	if m := t.nodes[h.Node()]; len(m) >= t.limits.Node {
		t.drop(first(&t.owners, m))
	}
	if m := t.topics[h.Topic]; len(m) >= t.limits.Topic {
		f := first(&t.owners, m)
		if t.owners.count(h.owner)+1 > t.owners.count(f.owner) {
			return false
		}
		t.drop(f)
	}
	if len(t.expiry) >= t.limits.Total {
		top := t.owners.heap[0]
		if own := t.owners.by[h.owner]; own != nil && own.records.Len()+1 > top.records.Len() {
			top = own
		}
		t.drop(top.oldest())
	}
	return true
}

// first returns the record of m that has to make room first.
func first[K comparable](o *owners, m map[K]*Held) *Held {
	var f *Held
	for _, h := range m {
		if f == nil || o.before(h, f) {
			f = h
		}
	}
	return f
}

func (t *Table) drop(h *Held) {
	t.remove(h)
	if h.Sealed != nil {
		t.tell(Event{Held: h, Gone: true})
	}
}

func (t *Table) add(h *Held) {
	if t.topics[h.Topic] == nil {
		t.topics[h.Topic] = make(map[peer.ID]*Held)
	}
	if t.nodes[h.Node()] == nil {
		t.nodes[h.Node()] = make(map[Topic]*Held)
	}
	t.topics[h.Topic][h.Node()] = h
	t.nodes[h.Node()][h.Topic] = h
	heap.Push(&t.expiry, h)
	t.owners.add(h)
}

func (t *Table) remove(h *Held) {
	delete(t.topics[h.Topic], h.Node())
	if len(t.topics[h.Topic]) == 0 {
		delete(t.topics, h.Topic)
	}
	delete(t.nodes[h.Node()], h.Topic)
	if len(t.nodes[h.Node()]) == 0 {
		delete(t.nodes, h.Node())
	}
	heap.Remove(&t.expiry, h.index)
	t.owners.remove(h)
}

// tell queues e for its topic's watchers; a watcher with a full queue is ended.
// The send never blocks, so it may happen under the lock, which keeps events in
// order.
func (t *Table) tell(e Event) {
	for w := range t.watchers {
		if w.Topic != e.Held.Topic && !w.Topic.Covers(e.Held.Topic) {
			continue
		}
		select {
		case w.Events <- e:
		default:
			t.cut(w, ErrSlow)
		}
	}
}

// makeWatcherRoom ends a watcher of the node that has most, if that is more
// than node would have.
func (t *Table) makeWatcherRoom(node peer.ID) bool {
	var most *Watcher
	for w := range t.watchers {
		if w.node != "" && (most == nil || t.watching[w.node] > t.watching[most.node]) {
			most = w
		}
	}
	if most == nil || t.watching[most.node] <= t.watching[node]+1 {
		return false
	}
	t.cut(most, ErrWatchers)
	return true
}

func (t *Table) cut(w *Watcher, err error) {
	if _, ok := t.watchers[w]; ok {
		delete(t.watchers, w)
		if t.watching[w.node]--; t.watching[w.node] == 0 {
			delete(t.watching, w.node)
		}
		w.Err = err
		close(w.Events)
	}
}

// expiryHeap has the record that expires first on top.
type expiryHeap []*Held

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].Expires.Before(h[j].Expires) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *expiryHeap) Push(x any) {
	e := x.(*Held)
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
