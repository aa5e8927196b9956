package sfu

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
	"weir/sfu/whip"
)

const (
	// retryLive is when to ask again for a stream that no carrier let us pull.
	retryLive = 2 * time.Second
	// answerTime is how long those who had a stream pulled may take until they are
	// answered.
	answerTime = whip.SetupTimeout
	// maxPulls bounds the streams that are being fetched at once: unknown names
	// cost a search each.
	maxPulls = 128
	// pullAttempts is how many carriers are tried for one pull.
	pullAttempts = 4
	// resumeFor is how long a relay looks for another carrier after it lost
	// its own, before it gives the stream up.
	resumeFor = 5 * time.Second
	// resumePause is between two such attempts.
	resumePause = 200 * time.Millisecond
	// attemptTimeout bounds one attempt: finding, dialling, subscribing.
	attemptTimeout = 4 * time.Second
	// roomPause is until a pull is tried again after no carrier had room. It
	// doubles with each try, up to roomPauseMost: relays of a stream that many
	// come for appear within seconds.
	roomPause     = 250 * time.Millisecond
	roomPauseMost = 2 * time.Second
)

// lasting are the reasons of refusals that no further carrier of a stream
// would cure. All others, those after rules of the policy included, are for
// want of room: on a node, of a stream's fan-out or depth.
var lasting = map[string]bool{
	// Of a carrier, or its ledger.
	"not-here": true, reasonLoop: true, "pull": true, "error": true, "malformed": true, "claimed": true,
	// Of the search for one.
	"no-candidates": true, problem.ReasonUnreachable: true, "unproven": true, "gone": true, "closed": true,
}

// RoomPause is the time between two tries to pull a stream of which no carrier
// has room, after so many tries. chance, 0…1, keeps apart who was refused at the
// same time.
func RoomPause(tries int, chance float64) time.Duration {
	pause := min(roomPause<<min(tries, 8), roomPauseMost)
	return pause/2 + time.Duration(chance*float64(pause))
}

// wantOfRoom returns the refusal in err if it is for want of room, or nil.
func wantOfRoom(err error) *capacity.Refusal {
	var refusal *capacity.Refusal
	if errors.As(err, &refusal) && !lasting[refusal.Reason] {
		return refusal
	}
	return nil
}

// A pull fetches one stream for as long as somebody here takes it. There is
// one for a stream, however many ask for it.
type pull struct {
	name  string
	ctx   context.Context // of the request that began it: its trace only
	ready chan struct{}   // closed once stream or err is set
	// The next two are set before ready is closed, and not changed.
	stream *Stream
	err    error

	short    chan struct{} // closed once refused is set
	deserted chan struct{} // told when the last who waited has gone

	// The rest belongs to SFU.mu.
	waiting int               // how many wait for ready
	refused *capacity.Refusal // for want of room, the last time
}

// A hold keeps a stream from being let go while a viewer of it is set up.
type hold struct{ stream *Stream }

// acquire returns the stream, pulling it here if it is carried elsewhere, and
// holds it until the returned function is called. hint names a carrier to try
// first. While no carrier has room it waits for one that has; when that has
// not come at until, the error is the last [capacity.Refusal]. Before it waits it
// calls rest, whose error it returns.
func (s *SFU) acquire(ctx context.Context, name string, hint *Carrier, until time.Time, rest func() error) (*Stream, func(), error) {
	st, err := s.find(ctx, name, hint, until, rest)
	if err != nil {
		return nil, nil, err
	}
	release, ok := st.Use(&hold{st}, false)
	if !ok {
		return nil, nil, whip.ErrEnded
	}
	return st, release, nil
}

func (s *SFU) find(ctx context.Context, name string, hint *Carrier, until time.Time, rest func() error) (*Stream, error) {
	s.mu.Lock()
	if st := s.streams[name]; st != nil && !st.Ended() {
		s.mu.Unlock()
		return st, nil
	}
	p := s.pulls[name]
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, problem.ErrClosing
	case p == nil && s.publishing[name]:
		s.mu.Unlock()
		return nil, ErrNotLive
	case p == nil && len(s.pulls) >= maxPulls:
		s.mu.Unlock()
		return nil, &capacity.Refusal{Reason: "pulls", Detail: fmt.Sprintf("%d streams are being fetched already", maxPulls), RetryAfter: time.Second}
	case p == nil:
		p = &pull{name: name, ctx: tracing.Carry(s.ctx, ctx), ready: make(chan struct{}), short: make(chan struct{}), deserted: make(chan struct{}, 1)}
		s.pulls[name] = p
		s.wg.Go(func() { s.runPull(p, hint) })
	}
	p.waiting++
	s.mu.Unlock()
	defer s.leave(p)
	if span := trace.SpanFromContext(ctx); span.IsRecording() && tracing.ID(p.ctx) != tracing.ID(ctx) {
		span.AddLink(trace.LinkFromContext(p.ctx)) // the request that had the stream pulled
	}
	if err := rest(); err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
		return p.stream, p.err
	case <-p.short:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	patience := time.NewTimer(time.Until(until))
	defer patience.Stop()
	select {
	case <-p.ready:
		return p.stream, p.err
	case <-patience.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, p.refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leave takes one who waits off p.
func (s *SFU) leave(p *pull) {
	s.mu.Lock()
	p.waiting--
	last := p.waiting == 0
	s.mu.Unlock()
	if last {
		select {
		case p.deserted <- struct{}{}:
		default:
		}
	}
}

// awaitRoom pauses p after a try that failed, and returns nil when it is to be
// tried again. It returns an error when that would not help, when nobody waits
// any more, and when the stream has come to be here by itself.
func (s *SFU) awaitRoom(p *pull, tries int, failed error) error {
	refused := wantOfRoom(failed)
	if refused == nil {
		return failed
	}
	s.mu.Lock()
	first := p.refused == nil
	p.refused = refused
	s.mu.Unlock()
	if first {
		close(p.short)
		s.event(Event{Trace: tracing.ID(p.ctx), Kind: event.PullWaiting, Stream: p.name, Detail: refused.Error()})
	}
	again := time.NewTimer(RoomPause(tries, rand.Float64()))
	defer again.Stop()
	for {
		s.mu.Lock()
		st, deserted := s.streams[p.name], p.waiting == 0
		if deserted {
			delete(s.pulls, p.name) // whoever comes from now on begins another
		}
		s.mu.Unlock()
		if deserted || st != nil && !st.Ended() {
			return failed
		}
		select {
		case <-again.C:
			return nil
		case <-p.deserted:
		case <-s.ctx.Done():
			return problem.ErrClosing
		}
	}
}

func (s *SFU) runPull(p *pull, hint *Carrier) {
	began := time.Now()
	s.event(Event{Trace: tracing.ID(p.ctx), Kind: event.PullStarted, Stream: p.name})
	ctx, span := tracing.Start(p.ctx, s.tracer, "pull", trace.SpanKindInternal, tracing.Stream.String(p.name))
	in, carrier, err := s.pullFrom(ctx, p.name, hint, nil)
	for tries := 0; err != nil; tries++ {
		if err = s.awaitRoom(p, tries, err); err != nil {
			break
		}
		in, carrier, err = s.pullFrom(ctx, p.name, nil, nil)
	}
	s.mu.Lock()
	if err == nil && (s.streams[p.name] != nil || s.publishing[p.name]) {
		err = fmt.Errorf("%w: it is being published here", ErrNotLive)
	}
	if err == nil {
		p.stream = newRelay(p.name, in.newTracks(), in.pathTo(s.cfg.Self), time.Now())
		s.streams[p.name] = p.stream
		s.sighted(p.name)
	}
	if here := s.streams[p.name]; err != nil && here != nil && !here.Ended() {
		p.stream = here
	} else {
		p.err = err
	}
	if err != nil && s.pulls[p.name] == p {
		delete(s.pulls, p.name)
	}
	s.mu.Unlock()
	if err != nil {
		if in != nil {
			in.unsubscribe()
		}
		e := Event{Kind: event.PullFailed, Stream: p.name, Detail: err.Error(), Elapsed: milliseconds(time.Since(began))}
		if errors.Is(err, ErrNotLive) {
			e.Reason = event.NotLive
		}
		e.Trace = tracing.ID(p.ctx)
		s.event(e)
		problem.Failed(span, err)
		span.End()
		close(p.ready)
		return
	}
	in.connect(p.stream.Tracks)
	if span.IsRecording() {
		span.SetAttributes(tracing.Peer.String(carrier.Node.String()))
	}
	span.End()
	close(p.ready)
	s.event(Event{Trace: tracing.ID(p.ctx), Kind: event.PullReady, Stream: p.name, Peer: carrier.Node, Elapsed: milliseconds(time.Since(began))})
	s.cfg.Changed()

	why, detail := s.keep(p.stream, in)
	s.mu.Lock()
	delete(s.pulls, p.name)
	s.mu.Unlock()
	s.drop(p.stream.Stream, why)
	s.event(Event{Kind: event.PullEnded, Stream: p.name, Detail: detail})
}

// keep holds the pull until nobody takes the stream or nobody carries it any
// more, and says which: as a reason for those who pull it from here, and for
// people. A carrier that is lost is replaced.
func (s *SFU) keep(st *Stream, in *inbound) (why, detail string) {
	measure := time.NewTicker(time.Second)
	defer measure.Stop()
	// Whoever had it pulled is still being answered: that is no idleness, however
	// short Linger is.
	most := s.cfg.Linger()
	answered := time.Now().Add(answerTime)
	linger := time.NewTimer(max(most, answerTime))
	defer linger.Stop()
	for {
		select {
		case <-s.ctx.Done():
			in.unsubscribe()
			return reasonLost, "this node is closing"
		case <-st.Idle():
			answered = time.Time{}
			linger.Reset(most)
		case <-linger.C:
			idle := st.IdleFor(time.Now())
			if idle >= most && st.Retire(reasonLost) {
				in.unsubscribe()
				return reasonLost, "nobody watches it"
			}
			linger.Reset(max(most-idle, time.Millisecond))
		case <-measure.C:
			st.near(time.Duration(in.link.rtt.Load()))
			if now := s.cfg.Linger(); now != most {
				most = now
				linger.Reset(max(most-st.IdleFor(time.Now()), time.Until(answered), time.Millisecond))
			}
		case path := <-in.moved:
			if slices.Contains(path, s.cfg.Self) {
				in.unsubscribe()
				in.end(reasonLoop)
				continue
			}
			s.moved(st, append(path, s.cfg.Self))
		case <-in.over:
			if in.reason() == reasonFinished {
				return reasonFinished, "the publisher has finished"
			}
			lost := in.link.Peer
			s.event(Event{Kind: event.PullLost, Stream: st.Name, Peer: lost, Detail: in.reason()})
			next, err := s.resume(st, lost)
			if err != nil {
				return reasonLost, err.Error()
			}
			in = next
		}
	}
}

// resume finds another carrier for st and lets its tracks go on from there.
func (s *SFU) resume(st *Stream, lost peer.ID) (*inbound, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, resumeFor)
	defer cancel()
	// Nobody asked for it: it is a trace of its own.
	ctx, span := s.tracer.Start(ctx, "resume pull", trace.WithAttributes(tracing.Stream.String(st.Name)))
	defer span.End()
	for exclude := []peer.ID{lost}; ; exclude = nil { // it may come back
		in, carrier, err := s.pullFrom(tracing.Carry(s.ctx, ctx), st.Name, nil, exclude)
		if err == nil && !in.sameTracks(st.Tracks) {
			in.unsubscribe()
			err = errors.New("it came back with other tracks")
		}
		if err == nil {
			in.connect(st.Tracks)
			s.moved(st, in.pathTo(s.cfg.Self))
			s.event(Event{Trace: tracing.ID(ctx), Kind: event.PullResumed, Stream: st.Name, Peer: carrier.Node, Elapsed: milliseconds(time.Since(began))})
			return in, nil
		}
		select {
		case <-time.After(resumePause):
		case <-ctx.Done():
			problem.Failed(span, err)
			return nil, fmt.Errorf("no other carrier within %v: %w", resumeFor, err)
		}
	}
}

// moved notes the stream's new path and tells those who pull it from here.
func (s *SFU) moved(st *Stream, path []peer.ID) {
	st.move(path)
	for _, b := range st.branches() {
		b.tellPath(path)
	}
	s.cfg.Changed()
}

// pullFrom subscribes to name at a carrier: hint if there is one, else those
// that Locate finds, one after another. The error is a [capacity.Refusal] if
// one of them lacked room, whatever the others said, and a [problem.Problem] if
// none could be reached. Ctx is the SFU's, with a trace.
func (s *SFU) pullFrom(ctx context.Context, name string, hint *Carrier, exclude []peer.ID) (*inbound, Carrier, error) {
	exclude = append(slices.Clone(exclude), s.cfg.Self)
	var (
		problems []string          // what carriers said
		causes   []string          // why others were not reached
		lacking  *capacity.Refusal // of the last that lacked room
		tried    = map[peer.ID]bool{}
	)
	failed := func(err error) error {
		said := strings.Join(problems, "; ")
		switch {
		case lacking != nil && said != "":
			return &capacity.Refusal{Reason: lacking.Reason, Detail: fmt.Sprintf("no carrier of %s has room (%s)", name, said), RetryAfter: lacking.RetryAfter}
		case errors.Is(err, ErrNotLive), problem.Of(err) != nil, wantOfRoom(err) != nil, len(tried) == 0 && errors.As(err, new(*UnansweredError)):
			return err
		case len(tried) == 0 && !errors.As(err, new(*capacity.Refusal)):
			return err
		}
		p := problem.New(problem.OriginUnreachable, fmt.Sprintf("stream %q is live, but no node that carries it can be reached from here: try again, or at another node", name)).Retry(retryLive)
		return fmt.Errorf("%w (%s%w)", p, strings.Join(append(causes, ""), "; "), err)
	}
	for range pullAttempts {
		in, carrier, err := s.attempt(ctx, name, hint, exclude)
		if err == nil {
			return in, carrier, nil
		}
		if s.ctx.Err() != nil {
			return nil, Carrier{}, problem.ErrClosing
		}
		if refusal := wantOfRoom(err); refusal != nil {
			lacking = refusal
		}
		if carrier.Node == "" { // nobody left to ask
			return nil, Carrier{}, failed(err)
		}
		s.log.DebugContext(ctx, "pull refused", "stream", name, "carrier", carrier.Node, "err", err)
		if refusal := (*capacity.Refusal)(nil); errors.As(err, &refusal) {
			problems = append(problems, fmt.Sprintf("%s: %v", shortID(carrier.Node), refusal))
		} else {
			causes = append(causes, fmt.Sprintf("%s: %v", shortID(carrier.Node), err))
		}
		switch {
		case errors.Is(err, errCrossed):
			s.awaitLink(carrier.Node)
		case tried[carrier.Node], hint == nil && !errors.Is(err, errGone):
			exclude = append(exclude, carrier.Node)
		}
		tried[carrier.Node] = true
		hint = nil
	}
	return nil, Carrier{}, failed(fmt.Errorf("no carrier of %s let us pull it", name))
}

// shortID is the end of a peer ID, for people.
func shortID(id peer.ID) string {
	s := id.String()
	return "…" + s[max(0, len(s)-8):]
}

// awaitLink waits a moment for the link that node has opened to us.
func (s *SFU) awaitLink(node peer.ID) {
	patience := time.NewTimer(linkDead)
	defer patience.Stop()
	for {
		s.mu.Lock()
		there, arrived := s.links[node] != nil, s.arrived
		s.mu.Unlock()
		if there {
			return
		}
		select {
		case <-arrived:
		case <-patience.C:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *SFU) attempt(ctx context.Context, name string, hint *Carrier, exclude []peer.ID) (*inbound, Carrier, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	carrier := Carrier{}
	if hint != nil {
		carrier = *hint
	} else {
		found, err := s.cfg.Locate(ctx, meter.DefaultNeed(capacity.Cascade, name), exclude)
		if err != nil {
			return nil, Carrier{}, err
		}
		carrier = found
	}
	link, err := s.link(ctx, carrier)
	if err != nil {
		return nil, carrier, err
	}
	in, err := link.subscribe(ctx, name, carrier.Lease)
	return in, carrier, err
}
