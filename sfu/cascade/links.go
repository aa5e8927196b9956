package cascade

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/pion/webrtc/v4"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/rtc"
	"weir/sfu/tree"
)

// Signal carries a link's signalling: a libp2p stream, or one end of a pipe in
// a test.
type Signal = interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Config configures Links. All fields are required. Functions may be called
// from several goroutines.
type Config struct {
	Self   peer.ID
	Engine *rtc.Engine
	Ledger *ledger.Ledger
	// Stream returns the stream of that name that is carried here, or nil.
	Stream func(name string) *tree.Stream
	Fanout func() int // current limit of pulls of one stream; 0: none
	Depth  func() int // current limit of links between origin and viewer
	// Leaving reports whether this node is about to go: nobody begins to pull a
	// stream that is only relayed here.
	Leaving func() bool
	// Dial opens the signalling stream of a link. It must return when ctx ends.
	Dial func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Overflowed returns the number of packets that this node's socket has
	// dropped.
	Overflowed func() int64
	// Delivered receives the share, 0…1, of the packets sent by node that
	// arrived in the last seconds, Measured durations, and Event events. They
	// must not block.
	Delivered func(node peer.ID, share float64)
	Measured  func(meter.Measure, time.Duration)
	Event     func(event.Event)
	Drops     *forward.Drops // counts packets that are not forwarded
	Log       *slog.Logger
	Tracer    trace.Tracer
}

// Links is the set of links of one node, at most one for each other node.
type Links struct {
	cfg    Config
	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	links   map[peer.ID]*Link
	arrived chan struct{} // closed when the next link is accepted
	dialing map[peer.ID]chan struct{}

	lost         atomic.Int64 // see Lost
	beatsIgnored atomic.Int64

	wg sync.WaitGroup // goroutines of links
}

// New makes Links without any link.
func New(cfg Config) *Links {
	ctx, cancel := context.WithCancel(context.Background())
	return &Links{cfg: cfg, ctx: ctx, cancel: cancel, links: map[peer.ID]*Link{}, arrived: make(chan struct{}), dialing: map[peer.ID]chan struct{}{}}
}

// Close ends all links and waits for them.
func (s *Links) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// Count returns the number of links.
func (s *Links) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// Lost returns the number of packets lost on the way here, of pulls that are
// over. Those of current pulls are in [Links.All].
func (s *Links) Lost() int64 { return s.lost.Load() }

// BeatsIgnored returns the number of beats that came faster than an origin
// counts and were passed on to nobody.
func (s *Links) BeatsIgnored() int64 { return s.beatsIgnored.Load() }

// Sections returns the number of media sections that this end sends in to node,
// and how many of them another track may take.
func (s *Links) Sections(node peer.ID) (all, rested int) {
	s.mu.Lock()
	l := s.links[node]
	s.mu.Unlock()
	if l == nil {
		return 0, 0
	}
	return l.sections.count(time.Now())
}

func (s *Links) event(e event.Event) {
	e.Time = time.Now()
	s.cfg.Event(e)
}

// link returns the link to carrier.Node, and opens one if there is none.
func (s *Links) link(ctx context.Context, carrier tree.Source) (*Link, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, problem.ErrClosing
		}
		if l := s.links[carrier.Node]; l != nil {
			s.mu.Unlock()
			return l, nil
		}
		wait := s.dialing[carrier.Node]
		if wait == nil {
			wait = make(chan struct{})
			s.dialing[carrier.Node] = wait
			s.mu.Unlock()
			return s.dial(ctx, carrier, wait)
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Links) dial(ctx context.Context, carrier tree.Source, done chan struct{}) (*Link, error) {
	ctx, span := tracing.Start(ctx, s.cfg.Tracer, "open link", trace.SpanKindInternal, tracing.Peer.String(carrier.Node.String()))
	began := time.Now()
	signal, err := s.cfg.Dial(ctx, carrier.Node, carrier.Addrs)
	var l *Link
	if err == nil {
		l, err = s.newLink(carrier.Node, signal, true, span)
	}
	s.mu.Lock()
	delete(s.dialing, carrier.Node)
	close(done)
	switch {
	case err != nil:
	case s.closed:
		err = problem.ErrClosing
	case s.links[carrier.Node] != nil: // accepted meanwhile
		err = tree.ErrCrossed
	default:
		l.opened = began
		s.links[carrier.Node] = l
		s.wg.Go(l.run)
	}
	s.mu.Unlock()
	if err != nil {
		if l != nil {
			l.discard()
		}
		if signal != nil {
			_ = signal.Close()
		}
		problem.Failed(span, err)
		span.End()
		return nil, fmt.Errorf("open a cascade link to %s: %w", carrier.Node, err)
	}
	return l, nil
}

// Accept serves a cascade link that node opened, until the link ends. The
// caller's goroutine may be reused afterwards; signal is closed.
func (s *Links) Accept(node peer.ID, signal Signal) {
	l, err := s.newLink(node, signal, false, noop.Span{})
	if err != nil {
		s.cfg.Log.Warn("cascade link not accepted", "peer", node, "err", err)
		_ = signal.Close()
		return
	}
	s.mu.Lock()
	old := s.links[node]
	// Of two links opened at once, the one that the lower peer ID opened stays.
	// An older link must be dead for the peer, or it would not open another.
	crossed := s.dialing[node] != nil || old != nil && old.dialer && time.Since(old.opened) < linkDead
	refuse := s.closed || crossed && s.cfg.Self < node
	if !refuse {
		s.links[node] = l
		close(s.arrived)
		s.arrived = make(chan struct{})
		s.wg.Go(l.run)
	}
	s.mu.Unlock()
	if refuse {
		_ = signal.SetWriteDeadline(time.Now().Add(linkDead))
		_ = writeMessage(signal, &pb.Message{Body: &pb.Message_Refused{Refused: &pb.Refused{Reason: reasonCrossed}}})
		_ = signal.Close()
		l.discard()
		return
	}
	if old != nil {
		old.fail(reasonCrossed)
	}
	<-l.done
}

func (s *Links) newLink(node peer.ID, signal Signal, dialer bool, opening trace.Span) (*Link, error) {
	media, err := rtc.LinkMedia()
	if err != nil {
		return nil, err
	}
	pc, err := s.cfg.Engine.Link(media)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	l := &Link{
		Peer: node, links: s, dialer: dialer, pc: pc, ctx: ctx, cancel: cancel, signal: signal, opened: time.Now(), opening: opening, sections: newSections(),
		queue:       make(chan *pb.Message, sendQueue),
		beaten:      make(chan struct{}, 1),
		connected:   make(chan struct{}),
		done:        make(chan struct{}),
		upstreams:   map[uint64]*upstream{},
		downstreams: map[uint64]*downstream{},
		idle:        time.Now(),
	}
	l.negotiator = &negotiator{
		dialer: dialer, pc: pc, sections: l.sections, tasks: &l.tasks, ctx: ctx, closing: s.ctx, done: l.done,
		wanted: make(chan struct{}, 1), remote: make(chan *pb.Description, 1),
		send: l.send, begin: l.beginOffer, assign: l.assign,
	}
	pc.OnTrack(l.onTrack)
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			l.connectOnce.Do(func() {
				close(l.connected)
				l.opening.End()
				l.tasks.Go(l.sections.reachable)
				s.event(event.Event{Kind: event.LinkOpened, Peer: l.Peer, Elapsed: capacity.Milliseconds(time.Since(l.opened))})
			})
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			l.fail("media connection " + state.String())
		}
	})
	if dialer {
		if err := l.negotiator.open(); err != nil {
			l.discard()
			return nil, err
		}
		l.offering = true
	}
	return l, nil
}

// All returns the status of this node's links.
func (s *Links) All() []LinkStatus {
	s.mu.Lock()
	links := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		links = append(links, l)
	}
	s.mu.Unlock()
	all := make([]LinkStatus, 0, len(links))
	for _, l := range links {
		all = append(all, l.status())
	}
	slices.SortFunc(all, func(a, b LinkStatus) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	return all
}

// Await waits shortly for a link that node is opening to us.
func (s *Links) Await(node peer.ID) {
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

// Subscribe pulls a stream from a node. The error is a [capacity.Refusal] if
// the node refused.
func (s *Links) Subscribe(ctx context.Context, from tree.Source, stream string) (tree.Upstream, error) {
	link, err := s.link(ctx, from)
	if err != nil {
		return nil, err
	}
	in, err := link.subscribe(ctx, stream, from.Lease)
	if err != nil {
		return nil, err // avoids a nil *upstream in an interface
	}
	return in, nil
}
