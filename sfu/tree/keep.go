package tree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/tracing"
	"weir/sfu/problem"
)

// keepOn keeps the pull of a stream, and drops the stream with it, unless its
// publisher has come here.
func (t *Tree) keepOn(ctx context.Context, st *Stream, in Upstream) {
	why, detail := t.keep(ctx, st, in)
	t.mu.Lock()
	if p := t.pulls[st.Name]; p != nil && p.stream == st {
		delete(t.pulls, st.Name)
	}
	t.mu.Unlock()
	if why != "" {
		t.drop(st.Stream, why)
	}
	t.event(event.Event{Kind: event.PullEnded, Stream: st.Name, Detail: detail})
}

// keep holds the pull until the stream has no user here, no source any more, or
// its publisher here, and returns the reason: as a word for downstream nodes, ""
// if the stream goes on, and as a sentence for people. It replaces a carrier that
// is lost.
func (t *Tree) keep(ctx context.Context, st *Stream, in Upstream) (why, detail string) {
	measure := time.NewTicker(time.Second)
	defer measure.Stop()
	// The requests that caused the pull are still being answered: the stream is
	// not idle meanwhile, however short Linger is.
	most := t.cfg.Linger()
	answered := time.Now().Add(answerTime)
	linger := time.NewTimer(max(most, answerTime))
	defer linger.Stop()
	pulse := time.NewTimer(orphanAfter)
	defer pulse.Stop()
	away := t.newMove(ctx, st)
	defer away.stop()
	for {
		select {
		case <-ctx.Done():
			in.Unsubscribe()
			if t.ctx.Err() != nil {
				return Lost, "this node is closing"
			}
			return "", "it is published here"
		case <-st.Idle():
			answered = time.Time{}
			linger.Reset(most)
		case <-linger.C:
			idle := st.IdleFor(time.Now())
			if idle >= most && st.Retire(Lost) {
				in.Unsubscribe()
				return Lost, "no viewers"
			}
			linger.Reset(max(most-idle, time.Millisecond))
		case <-measure.C:
			st.near(in.RTT())
			if now := t.cfg.Linger(); now != most {
				most = now
				linger.Reset(max(most-st.IdleFor(time.Now()), time.Until(answered), time.Millisecond))
			}
		case b := <-in.Beats():
			t.heard(st, b)
		case <-pulse.C:
			next := t.look(st)
			if next <= 0 {
				in.Unsubscribe()
				return Lost, gaveUp(st, errors.New("its parent has heard nothing either"))
			}
			pulse.Reset(next)
		case path := <-in.Moved():
			if slices.Contains(path, t.cfg.Self) {
				in.Unsubscribe()
				in.End(Loop)
				continue
			}
			t.moved(st, append(path, t.cfg.Self))
		case <-away.leaving(in):
			away.begin(in.Peer())
		case next := <-away.found:
			if next != nil {
				in = away.change(in, next)
			}
		case <-in.Done():
			away.stop()
			if in.Reason() == Finished {
				return Finished, "the publisher has finished"
			}
			lost := in.Peer()
			st.cutOff(time.Now())
			t.event(event.Event{Kind: event.PullLost, Stream: st.Name, Peer: lost, Detail: in.Reason()})
			next, err := t.seek(ctx, st, lost)
			switch {
			case err == nil:
				in = next
				pulse.Reset(orphanAfter)
			case ctx.Err() != nil && t.ctx.Err() == nil:
				return "", "it is published here"
			default:
				return Lost, err.Error()
			}
		}
	}
}

// heard takes a beat of the parent's, and has the children told.
func (t *Tree) heard(st *Stream, b Beat) {
	st.follow(b, time.Now())
	for _, c := range st.Children() {
		c.TellBeat()
	}
	t.look(st)
}

// look reports whether the stream has become an orphan, or is one no longer, and
// returns the time after which to look again; 0: its grace is over.
func (t *Tree) look(st *Stream) time.Duration {
	now := time.Now()
	orphan, changed, since := st.told(now)
	if changed {
		e := event.Event{Kind: event.StreamOrphaned, Stream: st.Name, Elapsed: capacity.Milliseconds(st.Beat(now).Age)}
		if !orphan {
			e.Kind, e.Elapsed = event.StreamResumed, capacity.Milliseconds(now.Sub(since))
		}
		t.event(e)
		t.cfg.Changed()
	}
	alone := now.Sub(st.since(now))
	if alone < orphanAfter {
		return orphanAfter - alone
	}
	return max(0, t.cfg.Grace()-alone)
}

// gaveUp says, for people, why a stream without source has ended.
func gaveUp(st *Stream, err error) string {
	now := time.Now()
	return fmt.Sprintf("no sign of its origin for %v: %v", now.Sub(st.since(now)).Round(time.Millisecond), err)
}

// seek finds another carrier for st, and continues its tracks from there. It
// gives up when the stream has had no source for as long as Grace says, and when
// ctx ends.
func (t *Tree) seek(ctx context.Context, st *Stream, lost peer.ID) (Upstream, error) {
	began := time.Now()
	// No request caused it: it is a trace of its own.
	ctx, span := t.tracer.Start(ctx, "resume pull", trace.WithAttributes(tracing.Stream.String(st.Name)))
	defer span.End()
	watch := time.AfterFunc(orphanAfter, func() { t.look(st) })
	defer watch.Stop()
	pause := seekPause
	for exclude := []peer.ID{lost}; ; exclude = nil { // the lost carrier may come back
		try, cancel := context.WithDeadline(ctx, st.since(time.Now()).Add(t.cfg.Grace()))
		in, carrier, err := t.pullFrom(try, st.Name, nil, exclude)
		if err == nil && !in.Continues(st.Tracks) {
			in.Unsubscribe()
			err = errors.New("it came back with other tracks")
		}
		var waited time.Time
		if err == nil {
			var ok bool
			if waited, ok = st.pulledBy(in, t.cfg.Self, time.Now()); !ok {
				in.Unsubscribe()
				err = ctx.Err()
			}
		}
		if err == nil {
			cancel()
			in.Connect(st.Tracks)
			t.moved(st, st.Path())
			if !waited.IsZero() {
				t.event(event.Event{Kind: event.StreamResumed, Stream: st.Name, Elapsed: capacity.Milliseconds(time.Since(waited))})
			}
			t.event(event.Event{Trace: tracing.ID(ctx), Kind: event.PullResumed, Stream: st.Name, Peer: carrier.Node, Elapsed: capacity.Milliseconds(time.Since(began))})
			t.look(st)
			return in, nil
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-st.Idle():
			again.Stop()
			if st.Retire(Lost) {
				cancel()
				return nil, errors.New("nobody watches it")
			}
		case <-try.Done():
			again.Stop()
			cancel()
			problem.Failed(span, err)
			return nil, errors.New(gaveUp(st, err))
		}
		cancel()
		pause = min(pause*3/2, seekPauseMost)
	}
}

// moved records the stream's new path and tells the downstream nodes.
func (t *Tree) moved(st *Stream, path []peer.ID) {
	st.move(path)
	for _, b := range st.Children() {
		b.TellPath(path)
	}
	t.cfg.Changed()
}
