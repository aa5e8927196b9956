package tree

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/tracing"
	"weir/sfu/meter"
	"weir/sfu/problem"
)

const (
	// retryLive is the Retry-After for a stream that could be pulled from no
	// carrier.
	retryLive = 2 * time.Second
	// answerTime bounds the time from the end of a pull's setup until the
	// requests that caused it are answered.
	answerTime = 8 * time.Second
	// maxPulls bounds the streams that are being pulled at once: an unknown
	// name costs a search each.
	maxPulls = 128
	// pullAttempts is the number of carriers that are tried for one pull.
	pullAttempts = 4
	// seekPause is the time between two attempts of a relay that has lost its
	// parent to find another one. It grows by half with each, up to
	// seekPauseMost.
	seekPause     = 200 * time.Millisecond
	seekPauseMost = 400 * time.Millisecond
	// attemptTimeout bounds one attempt: finding, dialling, subscribing.
	attemptTimeout = 4 * time.Second
	// roomPause is the time until a pull is tried again after no carrier had
	// room. It doubles with each try, up to roomPauseMost: relays of a popular
	// stream appear within seconds.
	roomPause     = 250 * time.Millisecond
	roomPauseMost = 2 * time.Second
)

// lasting are the reasons of refusals that no other carrier of a stream would
// cure. All other reasons, policy rules included, are a lack of room: on a
// node, or in the fan-out or depth of a stream.
var lasting = map[string]bool{
	// From a carrier or its ledger.
	"not-here": true, Orphaned: true, Loop: true, "pull": true, "error": true, "malformed": true, "claimed": true,
	// From the search for a carrier.
	"no-candidates": true, problem.ReasonUnreachable: true, "unproven": true, "gone": true, "closed": true,
}

// RoomPause returns the time until a pull is tried again that has failed tries
// times because no carrier had room. Chance, 0…1, spreads out requests that
// were refused at the same time.
func RoomPause(tries int, chance float64) time.Duration {
	pause := min(roomPause<<min(tries, 8), roomPauseMost)
	return pause/2 + time.Duration(chance*float64(pause))
}

// wantOfRoom returns the refusal in err if its reason is a lack of room, or
// nil.
func wantOfRoom(err error) *capacity.Refusal {
	var refusal *capacity.Refusal
	if errors.As(err, &refusal) && !lasting[refusal.Reason] {
		return refusal
	}
	return nil
}

// A pull fetches one stream for as long as it has users here. There is one for
// each stream, for any number of requests.
type pull struct {
	name  string
	ctx   context.Context // of the first request, for its trace only
	ready chan struct{}   // closed once stream or err is set
	// The following two are set before ready is closed, and constant from then
	// on.
	stream *Stream
	err    error

	noRoom    chan struct{} // closed once refused is set
	abandoned chan struct{} // signalled when the last waiting request has gone

	// Tree.mu guards the following fields.
	waiting int               // requests that wait for ready
	refused *capacity.Refusal // the last refusal for a lack of room
}

// A hold is a user of a stream that keeps it while a viewer is set up.
type hold struct{ stream *Stream }

// Acquire returns the stream, pulled here if it is carried elsewhere, and holds
// it until the returned function is called. Hint is a carrier to try first, or
// nil. While no carrier has room, Acquire waits for one up to the time until;
// the error is then the last [capacity.Refusal]. Before it waits it calls rest,
// whose error it returns.
func (t *Tree) Acquire(ctx context.Context, name string, hint *Source, until time.Time, rest func() error) (*Stream, func(), error) {
	st, err := t.find(ctx, name, hint, until, rest)
	if err != nil {
		return nil, nil, err
	}
	release, ok := st.Use(&hold{st}, false)
	if !ok {
		return nil, nil, problem.ErrEnded
	}
	return st, release, nil
}

func (t *Tree) find(ctx context.Context, name string, hint *Source, until time.Time, rest func() error) (*Stream, error) {
	t.mu.Lock()
	if st := t.streams[name]; st != nil && !st.Ended() {
		t.mu.Unlock()
		if now := time.Now(); st.Orphan(now) {
			return nil, orphaned(st, now)
		}
		return st, nil
	}
	p := t.pulls[name]
	switch {
	case t.closed:
		t.mu.Unlock()
		return nil, problem.ErrClosing
	case p == nil && t.publishing[name]:
		t.mu.Unlock()
		return nil, problem.ErrNotLive
	case p == nil && len(t.pulls) >= maxPulls:
		t.mu.Unlock()
		return nil, &capacity.Refusal{Reason: "pulls", Detail: fmt.Sprintf("%d streams are being fetched already", maxPulls), RetryAfter: time.Second}
	case p == nil:
		p = &pull{name: name, ctx: tracing.Carry(t.ctx, ctx), ready: make(chan struct{}), noRoom: make(chan struct{}), abandoned: make(chan struct{}, 1)}
		t.pulls[name] = p
		t.wg.Go(func() { t.runPull(p, hint) })
	}
	p.waiting++
	t.mu.Unlock()
	defer t.leave(p)
	if span := trace.SpanFromContext(ctx); span.IsRecording() && tracing.ID(p.ctx) != tracing.ID(ctx) {
		span.AddLink(trace.LinkFromContext(p.ctx)) // the request that started the pull
	}
	if err := rest(); err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
		return p.stream, p.err
	case <-p.noRoom:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	patience := time.NewTimer(time.Until(until))
	defer patience.Stop()
	select {
	case <-p.ready:
		return p.stream, p.err
	case <-patience.C:
		t.mu.Lock()
		defer t.mu.Unlock()
		return nil, p.refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// orphaned is the problem of a request for an orphan.
func orphaned(st *Stream, now time.Time) error {
	return problem.New(problem.Orphaned, fmt.Sprintf("stream %q is cut off from its origin, which has given no sign of life for %v: this node is an orphan, which looks for another way to it; try again", st.Name, st.Beat(now).Age.Round(100*time.Millisecond))).Retry(retryLive)
}

// leave removes one waiting request from p.
func (t *Tree) leave(p *pull) {
	t.mu.Lock()
	p.waiting--
	last := p.waiting == 0
	t.mu.Unlock()
	if last {
		select {
		case p.abandoned <- struct{}{}:
		default:
		}
	}
}

// awaitRoom pauses p after a failed try, and returns nil when the pull is to be
// tried again. It returns an error when a retry would not help, when no request
// waits any more, and when the stream has been published here.
func (t *Tree) awaitRoom(p *pull, tries int, failed error) error {
	refused := wantOfRoom(failed)
	if refused == nil {
		return failed
	}
	t.mu.Lock()
	first := p.refused == nil
	p.refused = refused
	t.mu.Unlock()
	if first {
		close(p.noRoom)
		t.event(event.Event{Trace: tracing.ID(p.ctx), Kind: event.PullWaiting, Stream: p.name, Detail: refused.Error()})
	}
	again := time.NewTimer(RoomPause(tries, rand.Float64()))
	defer again.Stop()
	for {
		t.mu.Lock()
		st, abandoned := t.streams[p.name], p.waiting == 0
		if abandoned {
			delete(t.pulls, p.name) // the next request starts another
		}
		t.mu.Unlock()
		if abandoned || st != nil && !st.Ended() {
			return failed
		}
		select {
		case <-again.C:
			return nil
		case <-p.abandoned:
		case <-t.ctx.Done():
			return problem.ErrClosing
		}
	}
}

func (t *Tree) runPull(p *pull, hint *Source) {
	began := time.Now()
	t.event(event.Event{Trace: tracing.ID(p.ctx), Kind: event.PullStarted, Stream: p.name})
	ctx, span := tracing.Start(p.ctx, t.tracer, "pull", trace.SpanKindInternal, tracing.Stream.String(p.name))
	in, carrier, err := t.pullFrom(ctx, p.name, hint, nil)
	for tries := 0; err != nil; tries++ {
		if err = t.awaitRoom(p, tries, err); err != nil {
			break
		}
		in, carrier, err = t.pullFrom(ctx, p.name, nil, nil)
	}
	t.mu.Lock()
	if err == nil && (t.streams[p.name] != nil || t.publishing[p.name]) {
		err = fmt.Errorf("%w: it is being published here", problem.ErrNotLive)
	}
	if err == nil {
		p.stream = newRelay(p.name, in, t.cfg.Self, time.Now())
		t.streams[p.name] = p.stream
		t.sighted(p.name)
	}
	if here := t.streams[p.name]; err != nil && here != nil && !here.Ended() {
		p.stream = here
	} else {
		p.err = err
	}
	if err != nil && t.pulls[p.name] == p {
		delete(t.pulls, p.name)
	}
	t.mu.Unlock()
	if err != nil {
		if in != nil {
			in.Unsubscribe()
		}
		e := event.Event{Kind: event.PullFailed, Stream: p.name, Detail: err.Error(), Elapsed: capacity.Milliseconds(time.Since(began))}
		if errors.Is(err, problem.ErrNotLive) {
			e.Reason = event.NotLive
		}
		e.Trace = tracing.ID(p.ctx)
		t.event(e)
		problem.Failed(span, err)
		span.End()
		close(p.ready)
		return
	}
	in.Connect(p.stream.Tracks)
	if span.IsRecording() {
		span.SetAttributes(tracing.Peer.String(carrier.Node.String()))
	}
	span.End()
	close(p.ready)
	t.event(event.Event{Trace: tracing.ID(p.ctx), Kind: event.PullReady, Stream: p.name, Peer: carrier.Node, Elapsed: capacity.Milliseconds(time.Since(began))})
	t.cfg.Changed()

	t.keepOn(p.stream.pulling(t.ctx), p.stream, in)
}

// pullFrom subscribes to name at a carrier: at hint if it is not nil, else at
// those that Locate finds, one after another. The error is a [capacity.Refusal]
// if any of them lacked room, whatever the others answered, and a
// [problem.Problem] if none could be reached. Ctx is the tree's, with a trace.
func (t *Tree) pullFrom(ctx context.Context, name string, hint *Source, exclude []peer.ID) (Upstream, Source, error) {
	exclude = append(slices.Clone(exclude), t.cfg.Self)
	var (
		problems []string          // answers of carriers
		causes   []string          // why other carriers were unreachable
		lacking  *capacity.Refusal // of the last carrier that lacked room
		tried    = map[peer.ID]bool{}
	)
	failed := func(err error) error {
		said := strings.Join(problems, "; ")
		switch {
		case lacking != nil && said != "":
			return &capacity.Refusal{Reason: lacking.Reason, Detail: fmt.Sprintf("no carrier of %s has room (%s)", name, said), RetryAfter: lacking.RetryAfter}
		case errors.Is(err, problem.ErrNotLive), problem.Of(err) != nil, wantOfRoom(err) != nil, len(tried) == 0 && errors.As(err, new(*problem.UnansweredError)):
			return err
		case len(tried) == 0 && !errors.As(err, new(*capacity.Refusal)):
			return err
		}
		p := problem.New(problem.OriginUnreachable, fmt.Sprintf("stream %q is live, but no node that carries it can be reached from here: try again, or at another node", name)).Retry(retryLive)
		return fmt.Errorf("%w (%s%w)", p, strings.Join(append(causes, ""), "; "), err)
	}
	for range pullAttempts {
		in, carrier, err := t.attempt(ctx, name, hint, exclude)
		if err == nil {
			return in, carrier, nil
		}
		if t.ctx.Err() != nil {
			return nil, Source{}, problem.ErrClosing
		}
		if ctx.Err() != nil {
			return nil, Source{}, failed(err)
		}
		if refusal := wantOfRoom(err); refusal != nil {
			lacking = refusal
		}
		if carrier.Node == "" { // no carrier left to try
			return nil, Source{}, failed(err)
		}
		t.log.DebugContext(ctx, "pull refused", "stream", name, "carrier", carrier.Node, "err", err)
		if refusal := (*capacity.Refusal)(nil); errors.As(err, &refusal) {
			problems = append(problems, fmt.Sprintf("%s: %v", shortID(carrier.Node), refusal))
		} else {
			causes = append(causes, fmt.Sprintf("%s: %v", shortID(carrier.Node), err))
		}
		switch {
		case errors.Is(err, ErrCrossed):
			t.cfg.AwaitLink(carrier.Node)
		case tried[carrier.Node], hint == nil && !errors.Is(err, ErrGone):
			exclude = append(exclude, carrier.Node)
		}
		tried[carrier.Node] = true
		hint = nil
	}
	return nil, Source{}, failed(fmt.Errorf("no carrier of %s let us pull it", name))
}

// shortID returns the end of a peer ID, for people.
func shortID(id peer.ID) string {
	s := id.String()
	return "…" + s[max(0, len(s)-8):]
}

// attempt makes one attempt: at hint, or at the carrier that Locate finds.
func (t *Tree) attempt(ctx context.Context, name string, hint *Source, exclude []peer.ID) (Upstream, Source, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	carrier := Source{}
	if hint != nil {
		carrier = *hint
	} else {
		found, err := t.cfg.Locate(ctx, meter.DefaultNeed(capacity.Cascade, name), exclude)
		if err != nil {
			return nil, Source{}, err
		}
		carrier = found
	}
	in, err := t.cfg.Subscribe(ctx, carrier, name)
	if err != nil {
		return nil, carrier, err
	}
	if b, ok := in.Beat(); ok && b.Age >= orphanAfter { // it ought to have refused
		in.Unsubscribe()
		return nil, carrier, &capacity.Refusal{Reason: Orphaned, Detail: fmt.Sprintf("its newest beat is %v old", b.Age)}
	}
	return in, carrier, nil
}
