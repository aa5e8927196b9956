package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/place"
)

const (
	watched     = 3                   // remote holders watched at once
	watchRetry  = 2 * time.Second     // before a holder that ended is asked again
	syncedAfter = time.Second         // the snapshot is called complete without the slower ones
	maxWatched  = 4 * holder.MaxTopic // nodes followed by one watch
	maxBad      = 64                  // bad records reported in one watch

	maxListedWatch = 512 // nodes watched, where each holds its own record only
)

// MaxTopics bounds the topics of one watch.
const MaxTopics = 64

// Change is one step of a watch.
type Change struct {
	// Synced: the initial records have been sent. It comes once, and by itself.
	// Hearing names the holders that had sent all of theirs by then, and those
	// that had not; Busy are those of them without a place for a watcher.
	Synced  bool
	Hearing place.Hearing
	Busy    []peer.ID
	// Sealed is a verified record of Node as held by Holder in Topic, HeldFor
	// long. The same record comes once per holder and topic that has it; an
	// older one only from Snapshot.
	//
	// If Err is set, Holder sent Sealed as a record but it is invalid, or has
	// expired; Record and Node are not set then. At most maxBad of them come.
	Sealed  []byte
	Err     error
	Record  capacity.Record
	Holder  peer.ID
	Topic   holder.Topic
	HeldFor time.Duration // by the holder's clock
	// Gone: no watched holder has a record of Node any more.
	Gone bool
	Node peer.ID
}

// A Reader reads the tables of holders for one node. Its functions may be
// called from several goroutines.
type Reader struct {
	Self peer.ID
	// Topics returns the topics that make up a topic.
	Topics func(context.Context, holder.Topic) []holder.Topic
	// Holders returns the remote holders of a topic, nearest first, and whether
	// this node is one.
	Holders func(holder.Topic) (self bool, remote []peer.ID)
	Each    bool          // each node holds only its own record, and all are read
	Table   *holder.Table // this node's
	// Remote emits another node's records of a topic, and their changes, until
	// ctx is done, emit returns false or the node ends it, which is the error.
	Remote func(ctx context.Context, p peer.ID, topic holder.Topic, emit func(Event) bool) error
	// Ignore reports whether a node has been silent for so long that every
	// record that only it may hold has expired.
	Ignore func(peer.ID) bool
	Busy   error              // wrapped by the error of a node without a place for a watcher
	Why    func(error) string // why a node did not answer, in a few words
	Closed <-chan struct{}    // ends all reading

	// A survey adds to a record: this node's own record, the round trip to a
	// coordinate, and the trust in a node.
	Me    func() capacity.Record
	RTT   func(*coordinate.Coordinate) time.Duration
	Trust func(time.Time, peer.ID) float64

	Log *slog.Logger
}

// An Event is a message of one node while it is watched.
type Event struct {
	Change
	// Split, with Synced: at least one node says that it publishes in a finer
	// shard. One is enough to look there, whatever makes others move: the record
	// of the first to move, or of the only one, would be missed without a word.
	Split bool
}

// Watch calls f with the records in topic, with a marker, and then with every
// change, until ctx is done or f returns an error, which it returns. It watches
// the node's own table, if that is a holder, and three others, and replaces
// those that fail. All calls come from the calling goroutine.
func (r *Reader) Watch(ctx context.Context, topic holder.Topic, f func(Change) error) error {
	return r.watch(ctx, topic, watched, false, f)
}

// Snapshot returns the records that every holder of topic has now: one Change
// per record and holder, including copies that are not the newest. Holders that
// have not answered within a second are left out. If there is no record because
// the holders have no place for a watcher, the error wraps Busy; if too few of
// them have answered to say so, it is a [*place.Unanswered].
func (r *Reader) Snapshot(ctx context.Context, topic holder.Topic) ([]Change, error) {
	list, _, err := r.Read(ctx, topic)
	return list, err
}

// OfNode returns id's records among changes, as held by nodes other than id.
func OfNode(changes []Change, id peer.ID) []capacity.Record {
	var list []capacity.Record
	for _, c := range changes {
		if c.Err == nil && c.Node == id && c.Holder != id {
			list = append(list, c.Record)
		}
	}
	return list
}

// Read is Snapshot that also returns which holders are left out.
func (r *Reader) Read(ctx context.Context, topic holder.Topic) (list []Change, heard place.Hearing, err error) {
	errDone := errors.New("done")
	err = r.watch(ctx, topic, holder.Replicas, true, func(c Change) error {
		if c.Synced {
			heard = c.Hearing
		}
		switch {
		case c.Synced && len(list) == 0 && len(c.Busy) > 0:
			return fmt.Errorf("%w: %d of the holders asked have no place for a watcher", r.Busy, len(c.Busy))
		case c.Synced && len(list) == 0 && !heard.Enough():
			return &place.Unanswered{Topic: topic, Hearing: heard}
		case c.Synced:
			return errDone
		}
		if !c.Gone {
			list = append(list, c)
		}
		return nil
	})
	if errors.Is(err, errDone) {
		err = nil
	}
	return list, heard, err
}

func (r *Reader) watch(ctx context.Context, topic holder.Topic, remotes int, all bool, f func(Change) error) error {
	if err := topic.CheckAsked(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{
		r:      r,
		f:      f,
		all:    all,
		events: make(chan watchEvent, 64),
		from:   make(map[watchedAt]*watchSource),
		nodes:  make(map[peer.ID]*watchedNode),
	}
	w.topics = r.Topics(ctx, topic)
	defer w.wg.Wait()
	defer cancel()
	return w.run(ctx, remotes)
}

// A watching is one Watch in progress, owned by the goroutine that called it.
type watching struct {
	r      *Reader
	topics []holder.Topic // at most MaxTopics
	f      func(Change) error
	all    bool // older records too
	events chan watchEvent
	wg     sync.WaitGroup // one per source

	from   map[watchedAt]*watchSource
	nodes  map[peer.ID]*watchedNode
	bad    int
	synced bool
}

// watchedAt is one topic at one holder.
type watchedAt struct {
	holder peer.ID
	topic  holder.Topic
}

type watchSource struct {
	synced bool
	busy   bool      // ended because the holder had no place
	why    string    // why it ended
	ended  time.Time // zero: it goes on
}

type watchedNode struct {
	seq     uint64
	holders map[watchedAt]bool
	expires time.Time // by this node's clock
}

// watchEvent is a message of one source.
type watchEvent struct {
	from watchedAt
	Event
	ended bool
	busy  bool // with ended: the holder had no place
	why   string
}

func (w *watching) run(ctx context.Context, remotes int) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	w.listen(ctx, remotes)
	for {
		if !w.synced && w.complete(time.Since(start)) {
			w.synced = true
			if err := w.f(Change{Synced: true, Hearing: w.hearing(), Busy: w.busy()}); err != nil {
				return err
			}
		}
		select {
		case e := <-w.events:
			topics := len(w.topics)
			if err := w.take(time.Now(), e); err != nil {
				return err
			}
			if len(w.topics) > topics {
				w.listen(ctx, remotes)
			}
		case <-tick.C:
			w.listen(ctx, remotes)
			if err := w.expire(time.Now()); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-w.r.Closed:
			return context.Canceled
		}
	}
}

// complete reports whether every source has sent its records, or most have had
// the time to.
func (w *watching) complete(waited time.Duration) bool {
	open := 0
	for _, s := range w.from {
		if !s.synced && s.ended.IsZero() {
			open++
		}
	}
	return len(w.from) > 0 && open == 0 || waited > syncedAfter
}

// busy are the holders that had no place for a watcher.
func (w *watching) busy() []peer.ID {
	var ids []peer.ID
	for at, s := range w.from {
		if !s.synced && s.busy && !slices.Contains(ids, at.holder) {
			ids = append(ids, at.holder)
		}
	}
	slices.Sort(ids)
	return ids
}

// hearing counts the holders that have sent all their records in each topic.
func (w *watching) hearing() place.Hearing {
	all := make(map[peer.ID]bool)
	var silent []place.Silence
	for at, s := range w.from {
		if !s.synced && w.r.Ignore(at.holder) {
			continue // every record that only it may hold has expired
		}
		all[at.holder] = true
		if !s.synced {
			silent = append(silent, place.Silence{Node: at.holder, Err: cmp.Or(s.why, "no answer in time")})
		}
	}
	h := place.Hear(0, 0, 0, silent) // each once
	must := place.Quorum(w.topics[0], len(all))
	if w.r.Each {
		must = len(all)
	}
	return place.Hear(len(all), len(all)-len(h.Silent), must, h.Silent)
}

// listen starts sources until there are as many as wanted.
func (w *watching) listen(ctx context.Context, remotes int) {
	if w.r.Each {
		remotes = maxListedWatch
	}
	for _, topic := range w.topics {
		self, remote := w.r.Holders(topic)
		if self {
			w.source(ctx, watchedAt{w.r.Self, topic}, w.r.watchSelf)
		}
		live := 0
		for at, s := range w.from {
			if at.topic == topic && at.holder != w.r.Self && s.ended.IsZero() {
				live++
			}
		}
		for _, p := range remote {
			if live >= remotes {
				break
			}
			if p != w.r.Self && w.source(ctx, watchedAt{p, topic}, w.r.Remote) {
				live++
			}
		}
	}
}

// deepen adds the finer shards of topic.
func (w *watching) deepen(topic holder.Topic) {
	region, bits, ok := topic.Shard()
	for _, bit := range []string{"0", "1"} {
		finer := holder.ShardTopic(region, bits+bit)
		if ok && len(bits) < holder.MaxShardBits && len(w.topics) < MaxTopics && !slices.Contains(w.topics, finer) {
			w.topics = append(w.topics, finer)
		}
	}
}

// source starts listening to p, unless that goes on already or has ended just
// now.
func (w *watching) source(ctx context.Context, at watchedAt, listen func(context.Context, peer.ID, holder.Topic, func(Event) bool) error) bool {
	if s := w.from[at]; s != nil && (s.ended.IsZero() || time.Since(s.ended) < watchRetry) {
		return false
	}
	w.from[at] = &watchSource{}
	emit := func(e watchEvent) bool {
		e.from = at
		e.Holder, e.Topic = at.holder, at.topic
		select {
		case w.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	w.wg.Go(func() {
		err := listen(ctx, at.holder, at.topic, func(e Event) bool { return emit(watchEvent{Event: e}) })
		if err != nil && ctx.Err() == nil {
			w.r.Log.Debug("watch ended by holder", "peer", at.holder, "topic", at.topic, "err", err)
		}
		e := watchEvent{ended: true, busy: errors.Is(err, w.r.Busy)}
		if err != nil {
			e.why = w.r.Why(err)
		}
		emit(e)
	})
	return true
}

func (w *watching) take(now time.Time, e watchEvent) error {
	s := w.from[e.from]
	switch {
	case e.ended:
		s.ended, s.busy, s.why = now, e.busy, e.why
		// Its records are not gone; they expire unless others have them.
		for _, node := range w.nodes {
			delete(node.holders, e.from)
		}
		return nil
	case e.Synced:
		s.synced = true
		if e.Split {
			w.deepen(e.from.topic)
		}
		return nil
	case e.Err != nil:
		if w.bad++; w.bad > maxBad {
			return nil
		}
		return w.f(e.Change)
	case e.Gone:
		node := w.nodes[e.Node]
		if node == nil {
			return nil
		}
		delete(node.holders, e.from)
		if len(node.holders) > 0 {
			return nil
		}
		delete(w.nodes, e.Node)
		return w.f(e.Change)
	}
	node := w.nodes[e.Node]
	if node == nil {
		if len(w.nodes) >= maxWatched {
			return nil
		}
		node = &watchedNode{}
		w.nodes[e.Node] = node
	}
	switch {
	case e.Record.Seq < node.seq && w.all:
		return w.f(e.Change)
	case e.Record.Seq < node.seq:
		return nil
	case e.Record.Seq > node.seq:
		*node = watchedNode{seq: e.Record.Seq, holders: make(map[watchedAt]bool)}
	}
	node.holders[e.from] = true
	node.expires = now.Add(e.Record.TTL - min(e.HeldFor, e.Record.TTL))
	return w.f(e.Change)
}

// expire reports nodes whose record has expired without an event of a holder.
func (w *watching) expire(now time.Time) error {
	for p, node := range w.nodes {
		if node.expires.After(now) {
			continue
		}
		delete(w.nodes, p)
		if err := w.f(Change{Gone: true, Node: p}); err != nil {
			return err
		}
	}
	return nil
}

// watchSelf emits the records in the node's own table, and their changes.
func (r *Reader) watchSelf(ctx context.Context, _ peer.ID, topic holder.Topic, emit func(Event) bool) error {
	snapshot, watcher, err := r.Table.Watch(time.Now(), "", topic)
	if err != nil {
		return err
	}
	defer r.Table.Unwatch(watcher)
	for _, h := range snapshot {
		if !emit(changeOf(holder.Event{Held: h})) {
			return nil
		}
	}
	_, split := r.Table.Count(time.Now(), topic, 1)
	if !emit(Event{Change: Change{Synced: true}, Split: split}) {
		return nil
	}
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return watcher.Err
			}
			if !emit(changeOf(e)) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func changeOf(e holder.Event) Event {
	c := Change{Node: e.Held.Node(), Gone: e.Gone}
	if !e.Gone {
		c.Sealed, c.Record, c.HeldFor = e.Held.Sealed, e.Held.Record, time.Since(e.Held.Received)
	}
	return Event{Change: c}
}
