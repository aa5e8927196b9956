package tree

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
)

const (
	// moveTime bounds the search for another parent while there is one, and
	// movePause is the time after which a search that failed is repeated. It
	// doubles with each, up to movePauseMost.
	moveTime      = 4 * time.Second
	movePause     = time.Second
	movePauseMost = 15 * time.Second
	// switchTime is how long another parent has to bring a keyframe of each track
	// until the change is made without, and switchCheck the interval of checks:
	// the payload may be encrypted end to end.
	switchTime  = 2 * time.Second
	switchCheck = 10 * time.Millisecond
)

// A move is the change to another parent while the present one still serves: the
// other is connected first, and takes over with its first keyframe. The pull's
// goroutine owns it.
type move struct {
	tree  *Tree
	st    *Stream
	ctx   context.Context
	found chan Upstream // nil: none

	from   peer.ID            // the parent that is left; "": none is
	cancel context.CancelFunc // of the search
	began  time.Time
}

func (t *Tree) newMove(ctx context.Context, st *Stream) *move {
	return &move{tree: t, st: st, ctx: ctx, found: make(chan Upstream)}
}

// leaving is closed when in is about to go, unless that is known.
func (m *move) leaving(in Upstream) <-chan struct{} {
	if m.from == in.Peer() {
		return nil
	}
	return in.Leaving()
}

// begin looks for a parent other than from, until one is found or stop is called.
func (m *move) begin(from peer.ID) {
	m.stop()
	ctx, cancel := context.WithCancel(m.ctx)
	wait := movePause - time.Since(m.began) // since the last search, if it found one in vain
	m.from, m.cancel, m.began = from, cancel, time.Now()
	m.tree.wg.Go(func() {
		for pause := movePause; ; wait, pause = pause, min(2*pause, movePauseMost) {
			again := time.NewTimer(max(0, wait))
			select {
			case <-again.C:
			case <-ctx.Done():
				again.Stop()
				return
			}
			try, done := context.WithTimeout(ctx, moveTime)
			in, err := m.search(try, from)
			done()
			if err == nil {
				select {
				case m.found <- in:
				case <-ctx.Done():
					in.Unsubscribe()
				}
				return
			}
			m.tree.log.DebugContext(ctx, "no other parent yet", "stream", m.st.Name, "parent", from, "err", err)
		}
	})
}

// search pulls the stream from a carrier that it does not reach by way of from.
// The others have to move as well: of two children that search at once, each
// would find the other.
func (m *move) search(ctx context.Context, from peer.ID) (in Upstream, err error) {
	exclude := []peer.ID{from}
	for range pullAttempts {
		if in, _, err = m.tree.pullFrom(ctx, m.st.Name, nil, exclude); err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(in.Path(), from):
			err = errors.New("it has to move too")
		case !in.Continues(m.st.Tracks):
			err = errors.New("it has other tracks")
		default:
			return in, nil
		}
		in.Unsubscribe()
		exclude = append(exclude, in.Peer())
	}
	return nil, err
}

// stop ends the search.
func (m *move) stop() {
	if m.cancel != nil {
		m.cancel()
		m.cancel, m.from = nil, ""
	}
}

// change continues the stream from next instead of in, and returns next, or in if
// that has failed: then in has all tracks again, also those that next has taken.
// Both serve until next has brought a keyframe of each track.
func (m *move) change(in, next Upstream) Upstream {
	t := m.tree
	next.Prepare(m.st.Tracks)
	check := time.NewTicker(switchCheck)
	defer check.Stop()
	late := time.NewTimer(switchTime)
	defer late.Stop()
	var path []peer.ID // of next, if that has changed
	giveUp := func() {
		m.take(in)
		m.stop() // told again by whoever is left
	}
	for !next.Taken() {
		select {
		case <-check.C:
		case b := <-in.Beats():
			t.heard(m.st, b)
		case <-in.Done():
			m.take(next)
		case <-late.C:
			m.take(next)
		case <-next.Done():
			giveUp()
			return in
		case path = <-next.Moved():
			if slices.Contains(path, t.cfg.Self) {
				next.Unsubscribe()
				giveUp()
				return in
			}
		case <-m.ctx.Done():
			next.Unsubscribe()
			return in
		}
	}
	began := m.began
	m.stop()
	if _, ok := m.st.pulledBy(next, t.cfg.Self, time.Now()); !ok {
		next.Unsubscribe() // it is published here
		return in
	}
	if path == nil {
		path = next.Path()
	}
	t.moved(m.st, append(path, t.cfg.Self))
	t.event(event.Event{Kind: event.PullMoved, Stream: m.st.Name, Peer: next.Peer(), Elapsed: capacity.Milliseconds(time.Since(began))})
	in.Unsubscribe()
	return next
}

// take makes in the source of all tracks, unless a publisher is.
func (m *move) take(in Upstream) {
	if m.ctx.Err() == nil {
		in.Take()
	}
}
