package dht

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	watched      = 3                   // remote holders watched at once
	watchSilence = 3 * watchBeat       // a holder silent for so long is given up
	watchRetry   = 2 * time.Second     // before a holder that ended is asked again
	syncedAfter  = time.Second         // the snapshot is called complete without the slower ones
	watchOpen    = 2 * time.Second     // to open a watch
	maxWatched   = 4 * holder.MaxTopic // nodes followed by one watch
	maxBad       = 64                  // bad records told of in one watch

	maxWatchedTopics = 64  // of one watch
	maxListedWatch   = 512 // nodes watched, where each holds its own record only
)

// Change is one step of a watch.
type Change struct {
	// Synced: what is held at the beginning has been told. It comes once, and
	// by itself. Hearing says by whom, and which holders had not told all of theirs
	// by then; Busy are those of them that have no place for a watcher.
	Synced  bool
	Hearing Hearing
	Busy    []peer.ID
	// Sealed is a verified record of Node as held by Holder in Topic, HeldFor
	// long. The same record comes once per holder and topic that has it; an
	// older one only from Snapshot.
	//
	// With Err set it is what Holder passes for a record but is none, or has
	// run out; Record and Node are not set then. At most maxBad of them come.
	Sealed  []byte
	Err     error
	Record  capacity.Record
	Holder  peer.ID
	Topic   Topic
	HeldFor time.Duration // by the holder's clock
	// Gone: no watched holder has a record of Node any more.
	Gone bool
	Node peer.ID
}

// Watch calls f with what is held in topic, with a marker, and then with every
// change, until ctx is done or f returns an error, which it returns. It listens
// to the node's own table, where it is a holder, and to three others, and
// replaces those that fail. All calls come from the calling goroutine.
func (n *Node) Watch(ctx context.Context, topic Topic, f func(Change) error) error {
	return n.watch(ctx, topic, watched, false, f)
}

// Snapshot returns what every holder of topic holds now: one Change per record
// and holder, copies that are not the newest included. Holders that have not
// answered within a second are left out. If there is nothing since they have no
// place for a watcher, the error is an ErrBusy; if there is nothing that too few of
// them have said, an [*Unanswered].
func (n *Node) Snapshot(ctx context.Context, topic Topic) ([]Change, error) {
	list, _, err := n.Inspect(ctx, topic)
	return list, err
}

// Inspect is Snapshot that also says which holders are left out.
func (n *Node) Inspect(ctx context.Context, topic Topic) (list []Change, heard Hearing, err error) {
	errDone := errors.New("done")
	err = n.watch(ctx, topic, holder.Replicas, true, func(c Change) error {
		if c.Synced {
			heard = c.Hearing
		}
		switch {
		case c.Synced && len(list) == 0 && len(c.Busy) > 0:
			return fmt.Errorf("%w: %d of the holders asked have no place for a watcher", ErrBusy, len(c.Busy))
		case c.Synced && len(list) == 0 && !heard.Enough():
			return &Unanswered{Topic: topic, Hearing: heard}
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

func (n *Node) watch(ctx context.Context, topic Topic, remotes int, all bool, f func(Change) error) error {
	if err := topic.CheckAsked(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{
		n:      n,
		topics: []Topic{topic},
		f:      f,
		all:    all,
		events: make(chan watchEvent, 64),
		from:   make(map[watchedAt]*watchSource),
		nodes:  make(map[peer.ID]*watchedNode),
	}
	if topic == CapacityTopic() {
		w.topics = n.shards(ctx)
	}
	defer w.wg.Wait()
	defer cancel()
	return w.run(ctx, remotes)
}

// A watching is one Watch under way, owned by the goroutine that called it.
type watching struct {
	n      *Node
	topics []Topic // at most maxWatchedTopics
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
	topic  Topic
}

type watchSource struct {
	synced bool
	busy   bool      // ended since the holder had no place
	why    string    // it ended
	ended  time.Time // zero: it goes on
}

type watchedNode struct {
	seq     uint64
	holders map[watchedAt]bool
	expires time.Time // by our clock
}

// watchEvent is what one source said.
type watchEvent struct {
	from watchedAt
	Change
	split bool // with Synced: there are finer shards
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
		case <-w.n.ctx.Done():
			return context.Canceled
		}
	}
}

// complete reports whether every source has told what it holds, or most have
// had the time to.
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

// hearing says which holders have told all that they hold in each topic.
func (w *watching) hearing() Hearing {
	all := make(map[peer.ID]bool)
	var silent []Silence
	for at, s := range w.from {
		if !s.synced && w.n.reach.SilentFor(time.Now(), at.holder, capacity.DefaultTTL) {
			continue // no record is valid that only it may hold
		}
		all[at.holder] = true
		if !s.synced {
			silent = append(silent, Silence{Node: at.holder, Err: cmp.Or(s.why, "no answer in time")})
		}
	}
	h := place.Hear(0, 0, 0, silent) // each once
	must := place.Quorum(w.topics[0], len(all))
	if w.n.cfg.Discovery.Own() {
		must = len(all)
	}
	return place.Hear(len(all), len(all)-len(h.Silent), must, h.Silent)
}

// listen starts sources until there are as many as wanted.
func (w *watching) listen(ctx context.Context, remotes int) {
	for _, topic := range w.topics {
		h, _ := w.n.dir.Holders(time.Now(), topic)
		h = w.n.withTheSlow(topic, h)
		if each, own := w.n.dir.Each(); own {
			h.Remote, remotes = each, maxListedWatch // each has its own record only
		}
		if h.Self {
			w.source(ctx, watchedAt{w.n.ID(), topic}, w.n.watchSelf)
		}
		live := 0
		for at, s := range w.from {
			if at.topic == topic && at.holder != w.n.ID() && s.ended.IsZero() {
				live++
			}
		}
		for _, p := range w.n.nearestFirst(h.Remote) {
			if live >= remotes {
				break
			}
			if p != w.n.ID() && w.source(ctx, watchedAt{p, topic}, w.n.watchRemote) {
				live++
			}
		}
	}
}

// deepen adds the finer shards of topic.
func (w *watching) deepen(topic Topic) {
	region, bits, ok := topic.Shard()
	for _, bit := range []string{"0", "1"} {
		finer := ShardTopic(region, bits+bit)
		if ok && len(bits) < holder.MaxShardBits && len(w.topics) < maxWatchedTopics && !slices.Contains(w.topics, finer) {
			w.topics = append(w.topics, finer)
		}
	}
}

// source starts listening to p, unless that goes on already or has ended just
// now.
func (w *watching) source(ctx context.Context, at watchedAt, listen func(context.Context, peer.ID, Topic, func(watchEvent) bool) error) bool {
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
		err := listen(ctx, at.holder, at.topic, emit)
		if err != nil && ctx.Err() == nil {
			w.n.log.Debug("watch ended by holder", "peer", at.holder, "topic", at.topic, "err", err)
		}
		e := watchEvent{ended: true, busy: errors.Is(err, ErrBusy)}
		if err != nil {
			e.why = silence(err)
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
		// What it held is not gone for that; it expires unless others have it.
		for _, node := range w.nodes {
			delete(node.holders, e.from)
		}
		return nil
	case e.Synced:
		s.synced = true
		if e.split {
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

// expire tells of nodes whose record has run out without a holder saying so.
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

// watchSelf emits what the node's own table holds, and its changes.
func (n *Node) watchSelf(ctx context.Context, _ peer.ID, topic Topic, emit func(watchEvent) bool) error {
	snapshot, watcher, err := n.table.Watch(time.Now(), "", topic)
	if err != nil {
		return err
	}
	defer n.table.Unwatch(watcher)
	for _, h := range snapshot {
		if !emit(changeOf(holder.Event{Held: h})) {
			return nil
		}
	}
	_, split := n.table.Count(time.Now(), topic, n.sharding.Quorum())
	if !emit(watchEvent{Change: Change{Synced: true}, split: split}) {
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

func changeOf(e holder.Event) watchEvent {
	c := Change{Node: e.Held.Node(), Gone: e.Gone}
	if !e.Gone {
		c.Sealed, c.Record, c.HeldFor = e.Held.Sealed, e.Held.Record, time.Since(e.Held.Received)
	}
	return watchEvent{Change: c}
}

// watchRemote emits what p holds, and its changes, as far as they verify.
func (n *Node) watchRemote(ctx context.Context, p peer.ID, topic Topic, emit func(watchEvent) bool) error {
	opening, cancel := context.WithTimeout(ctx, watchOpen)
	defer cancel()
	s, err := n.host.NewStream(opening, p, n.records)
	if err != nil {
		n.failed(p, callError(opening, err))
		return err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()

	_ = s.SetDeadline(time.Now().Add(watchOpen))
	if _, err := frame.Write(s, &pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: string(topic)}}}); err != nil {
		return err
	}
	r := bufio.NewReader(s)
	for {
		var resp pb.Response
		if _, err := frame.ReadPrintable(r, maxEvent, &resp); err != nil {
			return err
		}
		_ = s.SetDeadline(time.Now().Add(watchSilence))
		if err := holderError(&resp); err != nil {
			return err
		}
		event := resp.GetEvent()
		if event == nil {
			return errors.New("holder answered something else")
		}
		e, ok, err := eventFromWire(n.wall(time.Now()), topic, event)
		if err != nil {
			return err
		}
		if ok && !emit(e) {
			return nil
		}
	}
}

// eventFromWire verifies w; ok is false if there is nothing in it. A record
// that does not verify is told of, with why; whoever inspects wants to know.
func eventFromWire(now time.Time, topic Topic, w *pb.Event) (e watchEvent, ok bool, err error) {
	switch {
	case w.Synced:
		e.Synced, e.split = true, w.Split
		return e, true, nil
	case len(w.Gone) > 0:
		e.Gone = true
		e.Node, err = peer.IDFromBytes(w.Gone)
		return e, err == nil, err
	case len(w.Sealed) > 0:
		e.Sealed, e.HeldFor = w.Sealed, time.Duration(w.HeldMs)*time.Millisecond
		r, err := signed.OpenRecord(w.Sealed, now)
		if err == nil {
			err = topic.Fits(&r)
		}
		if err != nil {
			e.Err = err
			return e, true, nil
		}
		e.Record, e.Node = r, r.Node
		return e, true, nil
	}
	return e, false, nil
}
