package dht

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/pb"
)

const (
	watched      = 3                // remote holders watched at once
	watchSilence = 3 * watchBeat    // a holder silent for so long is given up
	watchRetry   = 2 * time.Second  // before a holder that ended is asked again
	syncedAfter  = time.Second      // the snapshot is called complete without the slower ones
	watchOpen    = 2 * time.Second  // to open a watch
	maxWatched   = 4 * maxHeldTopic // nodes followed by one watch
	maxBad       = 64               // bad records told of in one watch
)

// Change is one step of a watch.
type Change struct {
	// Synced: what is held at the beginning has been told. It comes once, and
	// by itself.
	Synced bool
	// Sealed is a verified record of Node as held by Holder, HeldFor long. The
	// same record comes once per holder that has it; an older one never.
	//
	// With Err set it is what Holder passes for a record but is none, or has
	// run out; Record and Node are not set then. At most maxBad of them come.
	Sealed  []byte
	Err     error
	Record  capacity.Record
	Holder  peer.ID
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
	return n.watch(ctx, topic, watched, f)
}

// Snapshot returns what every holder of topic holds now: one Change per record
// and holder. Holders that have not answered within a second are left out.
func (n *Node) Snapshot(ctx context.Context, topic Topic) ([]Change, error) {
	errDone := errors.New("done")
	var list []Change
	err := n.watch(ctx, topic, replicas, func(c Change) error {
		if c.Synced {
			return errDone
		}
		if !c.Gone {
			list = append(list, c)
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		return list, err
	}
	return list, nil
}

func (n *Node) watch(ctx context.Context, topic Topic, remotes int, f func(Change) error) error {
	if err := topic.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{
		n:      n,
		topic:  topic,
		f:      f,
		events: make(chan watchEvent, 64),
		from:   make(map[peer.ID]*watchSource),
		nodes:  make(map[peer.ID]*watchedNode),
	}
	defer w.wg.Wait()
	defer cancel()
	return w.run(ctx, remotes)
}

// A watching is one Watch under way, owned by the goroutine that called it.
type watching struct {
	n      *Node
	topic  Topic
	f      func(Change) error
	events chan watchEvent
	wg     sync.WaitGroup // one per source

	from   map[peer.ID]*watchSource
	nodes  map[peer.ID]*watchedNode
	bad    int
	synced bool
}

type watchSource struct {
	synced bool
	ended  time.Time // zero: it goes on
}

type watchedNode struct {
	seq     uint64
	holders map[peer.ID]bool
	expires time.Time // by our clock
}

// watchEvent is what one source said.
type watchEvent struct {
	from peer.ID
	Change
	ended bool
}

func (w *watching) run(ctx context.Context, remotes int) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	w.listen(ctx, remotes)
	for {
		if !w.synced && w.complete(time.Since(start)) {
			w.synced = true
			if err := w.f(Change{Synced: true}); err != nil {
				return err
			}
		}
		select {
		case e := <-w.events:
			if err := w.take(time.Now(), e); err != nil {
				return err
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

// listen starts sources until there are as many as wanted.
func (w *watching) listen(ctx context.Context, remotes int) {
	h, _ := w.n.holders(w.topic)
	if h.self {
		w.source(ctx, w.n.ID(), w.n.watchSelf)
	}
	live := 0
	for p, s := range w.from {
		if p != w.n.ID() && s.ended.IsZero() {
			live++
		}
	}
	for _, p := range w.n.nearestFirst(h.remote) {
		if live >= remotes {
			return
		}
		if w.source(ctx, p, w.n.watchRemote) {
			live++
		}
	}
}

// source starts listening to p, unless that goes on already or has ended just
// now.
func (w *watching) source(ctx context.Context, p peer.ID, listen func(context.Context, peer.ID, Topic, func(watchEvent) bool) error) bool {
	if s := w.from[p]; s != nil && (s.ended.IsZero() || time.Since(s.ended) < watchRetry) {
		return false
	}
	w.from[p] = &watchSource{}
	emit := func(e watchEvent) bool {
		e.from = p
		e.Holder = p
		select {
		case w.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	w.wg.Go(func() {
		if err := listen(ctx, p, w.topic, emit); err != nil && ctx.Err() == nil {
			w.n.log.Debug("watch ended by holder", "peer", p, "topic", w.topic, "err", err)
		}
		emit(watchEvent{ended: true})
	})
	return true
}

func (w *watching) take(now time.Time, e watchEvent) error {
	s := w.from[e.from]
	switch {
	case e.ended:
		s.ended = now
		// What it held is not gone for that; it expires unless others have it.
		for _, node := range w.nodes {
			delete(node.holders, e.from)
		}
		return nil
	case e.Synced:
		s.synced = true
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
	case e.Record.Seq < node.seq:
		return nil
	case e.Record.Seq > node.seq:
		*node = watchedNode{seq: e.Record.Seq, holders: make(map[peer.ID]bool)}
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
	snapshot, watcher, err := n.table.watch(time.Now(), topic)
	if err != nil {
		return err
	}
	defer n.table.unwatch(watcher)
	for _, h := range snapshot {
		if !emit(changeOf(tableEvent{held: h})) {
			return nil
		}
	}
	if !emit(watchEvent{Change: Change{Synced: true}}) {
		return nil
	}
	for {
		select {
		case e, ok := <-watcher.events:
			if !ok {
				return errors.New("too slow")
			}
			if !emit(changeOf(e)) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func changeOf(e tableEvent) watchEvent {
	c := Change{Node: e.held.node(), Gone: e.gone}
	if !e.gone {
		c.Sealed, c.Record, c.HeldFor = e.held.sealed, e.held.record, time.Since(e.held.received)
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
	if _, err := writeFrame(s, &pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: string(topic)}}}); err != nil {
		return err
	}
	r := bufio.NewReader(s)
	for {
		var resp pb.Response
		if _, err := readFrame(r, maxEvent, &resp); err != nil {
			return err
		}
		_ = s.SetDeadline(time.Now().Add(watchSilence))
		if resp.Error != "" {
			return fmt.Errorf("holder refused: %.200s", resp.Error)
		}
		event := resp.GetEvent()
		if event == nil {
			return errors.New("holder answered something else")
		}
		e, ok, err := eventFromWire(time.Now(), topic, event)
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
		e.Synced = true
		return e, true, nil
	case len(w.Gone) > 0:
		e.Gone = true
		e.Node, err = peer.IDFromBytes(w.Gone)
		return e, err == nil, err
	case len(w.Sealed) > 0:
		e.Sealed, e.HeldFor = w.Sealed, time.Duration(w.HeldMs)*time.Millisecond
		r, err := capacity.Open(w.Sealed, now)
		if err == nil {
			err = topic.fits(&r)
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
