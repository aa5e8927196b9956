package tree

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
)

// Reasons why a stream or a pull ends here, as sent to the nodes that pull it
// from here.
const (
	Finished = "finished" // the publisher has gone
	Lost     = "lost"     // this node lost its own source
	Loop     = "loop"     // the path would contain this node twice
	Orphaned = "orphan"   // this node is cut off from the stream's origin
)

// A linkError is why a pull over a link failed, other than by a refusal.
type linkError string

func (e linkError) Error() string { return string(e) }

// Word returns the error's name in traces.
func (e linkError) ErrorType() string { return "link-gone" }

// Errors of [Config].Subscribe, after which the same node may be asked again.
const (
	// ErrCrossed means that both ends opened a link at once and the link of the
	// other end was kept.
	ErrCrossed = linkError("both ends opened a link at once; the other one is used")
	// ErrGone means that the link ended before the node answered.
	ErrGone = linkError("the cascade link is gone")
)

// ErrLoop means that a pull from that node would close a loop.
var ErrLoop = errors.New("the stream would come back to where it is")

// A Source is a node to pull a stream from.
type Source struct {
	Node  peer.ID
	Addrs []multiaddr.Multiaddr
	Lease string // ID of the lease that Node granted for the pull; may be empty
}

// An Upstream is one stream that is pulled from another node. Its methods do
// not block.
type Upstream interface {
	Peer() peer.ID      // the node that it is pulled from
	Path() []peer.ID    // from the origin to that node
	RTT() time.Duration // to that node

	// Tracks makes tracks from the node's description. Continues reports
	// whether the node's tracks can continue the given ones.
	Tracks() []*forward.Track
	Continues(tracks []*forward.Track) bool
	// Connect makes the pull the source of tracks, and asks the node to start.
	Connect(tracks []*forward.Track)
	// Prepare is Connect for tracks that have a source, which goes on until the
	// pull brings a keyframe of each, as Taken reports; Take does not wait for it.
	Prepare(tracks []*forward.Track)
	Taken() bool
	Take()
	// Leaving is closed when the node is about to go: the stream had better be
	// pulled from another.
	Leaving() <-chan struct{}

	// Moved receives the node's path when that changes.
	Moved() <-chan []peer.ID
	// Beat returns the newest beat when the pull was set up, of the age that it
	// has now; false: the node is of a release before there were beats. Beats receives later ones; the last
	// counts.
	Beat() (b Beat, ok bool)
	Beats() <-chan Beat
	// Done is closed when the pull has ended; Reason then returns why.
	Done() <-chan struct{}
	Reason() string
	// Unsubscribe ends the pull from our side, and End records that it is over.
	Unsubscribe()
	End(reason string)
}

// Config configures a Tree. All fields are required. Functions may be called
// from several goroutines and must return when their ctx ends.
type Config struct {
	Self peer.ID
	// Locate finds a carrier of the stream to pull, other than those in
	// exclude, and reserves the pull there. The error is problem.ErrNotLive if
	// there is none, a [capacity.Refusal] if none has room, and a
	// problem.UnansweredError if neither can be determined.
	Locate func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Source, error)
	// Live reports whether another node carries stream, as far as known now.
	Live func(ctx context.Context, stream string) bool
	// Subscribe pulls stream from a node. The error is a [capacity.Refusal] if
	// the node refused.
	Subscribe func(ctx context.Context, from Source, stream string) (Upstream, error)
	// AwaitLink waits shortly for a link that node is opening to us.
	AwaitLink func(node peer.ID)
	// Changed is called when a stream has come, moved or gone.
	Changed func()
	// Ended is called when a stream has ended here.
	Ended  func(*forward.Stream)
	Linger func() time.Duration // current time that an unwatched relay is kept
	Grace  func() time.Duration // current time that a stream outlives its origin or publisher
	Event  func(event.Event)    // receives events; must not block
	Log    *slog.Logger
	Tracer trace.Tracer
}

// A Tree is the set of streams of one node.
type Tree struct {
	cfg    Config
	log    *slog.Logger
	tracer trace.Tracer

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu         sync.Mutex
	closed     bool
	leaving    bool // the node is about to go
	streams    map[string]*Stream
	publishing map[string]bool // names whose publisher is being set up
	pulls      map[string]*pull
	watches    map[string]*watch

	wg sync.WaitGroup // pulls, and watches
}

// New makes a Tree without streams.
func New(cfg Config) *Tree {
	ctx, cancel := context.WithCancel(context.Background())
	return &Tree{
		cfg: cfg, log: cfg.Log, tracer: cfg.Tracer, ctx: ctx, cancel: cancel,
		streams: map[string]*Stream{}, publishing: map[string]bool{}, pulls: map[string]*pull{}, watches: map[string]*watch{},
	}
}

// Close ends all pulls and waits for them.
func (t *Tree) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
}

// Pulls returns the number of streams that are being pulled or are kept by a
// pull.
func (t *Tree) Pulls() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pulls)
}

// Leave says whether the node is about to go: then the nodes that pull streams
// that are relayed here pull them from others, now or once a stream that was
// published here is relayed.
func (t *Tree) Leave(leave bool) {
	t.mu.Lock()
	t.leaving = leave
	t.mu.Unlock()
	for _, st := range t.All() {
		t.tellLeave(st)
	}
}

// tellLeave has the nodes that pull st pull it from others, if this one is about
// to go and relays it.
func (t *Tree) tellLeave(st *Stream) {
	t.mu.Lock()
	leaving := t.leaving
	t.mu.Unlock()
	if !leaving || st.Published() {
		return // it is nowhere else
	}
	for _, c := range st.Children() {
		c.TellLeave()
	}
}

// All returns the streams that are carried here, sorted by name.
func (t *Tree) All() []*Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.streams), func(a, b *Stream) int { return cmp.Compare(a.Name, b.Name) })
}

// Get returns the stream of that name that is carried here, or nil.
func (t *Tree) Get(name string) *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if st := t.streams[name]; st != nil && !st.Ended() {
		return st
	}
	return nil
}

// Here returns the stream of that name, which may have ended just now, or nil.
// Origin reports whether its publisher is here.
func (t *Tree) Here(name string) (st *forward.Stream, origin bool) {
	t.mu.Lock()
	here := t.streams[name]
	t.mu.Unlock()
	if here != nil {
		return here.Stream, here.Published()
	}
	return nil, false
}

// Reserve reserves a name for a publisher that is being set up, until done is
// called: meanwhile the stream is not pulled. It reports false if the name is
// reserved already.
func (t *Tree) Reserve(name string) (done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.publishing[name] {
		return nil, false
	}
	t.publishing[name] = true
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.publishing, name)
	}, true
}

// Publish makes the stream of a publisher known here, and ends any other stream
// of its name. A stream that was carried here before goes on: a pull of it ends.
// Since is when it has lost its source; zero: it had one.
func (t *Tree) Publish(st *forward.Stream) (since time.Time) {
	now := time.Now()
	t.mu.Lock()
	old := t.streams[st.Name]
	if old == nil || old.Stream != st {
		t.streams[st.Name] = newOrigin(st, t.cfg.Self, now)
	}
	t.sighted(st.Name)
	t.mu.Unlock()
	switch {
	case old == nil:
	case old.Stream == st:
		if since = old.publish(t.cfg.Self, now); !since.IsZero() {
			t.event(event.Event{Kind: event.StreamResumed, Stream: st.Name, Elapsed: capacity.Milliseconds(now.Sub(since))})
		}
		t.moved(old, []peer.ID{t.cfg.Self})
		return since
	case len(old.Path()) == 1:
		old.End(Finished)
	default: // a relay of a publisher that has gone
		old.End(Lost)
	}
	t.cfg.Changed()
	return time.Time{}
}

// Drop ends and forgets the stream of a publisher that has gone.
func (t *Tree) Drop(st *forward.Stream) { t.drop(st, Finished) }

// Vanish has the stream of a publisher that has vanished wait, for the grace from
// since on, for another to continue it, here or at another node. Since is the
// publisher's last sign of life. A stream without users ends: it would cost
// memory, and nobody anything.
func (t *Tree) Vanish(st *forward.Stream, since time.Time) {
	t.mu.Lock()
	here := t.streams[st.Name]
	if t.closed || here == nil || here.Stream != st {
		t.mu.Unlock()
		t.drop(st, Lost)
		return
	}
	if users, _ := st.Users(); len(users) == 0 {
		t.mu.Unlock()
		t.drop(st, Finished)
		return
	}
	here.vanish(since)
	ctx := here.pulling(t.ctx)
	t.wg.Go(func() { t.outlast(ctx, here) })
	t.mu.Unlock()
	t.event(event.Event{Kind: event.StreamWaiting, Stream: st.Name, Elapsed: capacity.Milliseconds(time.Since(since))})
	t.cfg.Changed()
}

// outlast keeps a stream whose publisher has vanished: it looks for the node at
// which the publisher is again, and pulls the stream from there.
func (t *Tree) outlast(ctx context.Context, st *Stream) {
	in, err := t.seek(ctx, st, "")
	if err == nil {
		t.tellLeave(st) // the publisher has gone elsewhere
		t.keepOn(ctx, st, in)
	} else if ctx.Err() == nil || t.ctx.Err() != nil {
		why := Finished
		if t.ctx.Err() != nil {
			why = Lost
		}
		t.drop(st.Stream, why)
	}
}

func (t *Tree) drop(st *forward.Stream, why string) {
	st.End(why)
	t.mu.Lock()
	if here := t.streams[st.Name]; here != nil && here.Stream == st {
		delete(t.streams, st.Name)
	}
	t.mu.Unlock()
	t.cfg.Ended(st)
	t.cfg.Changed()
}

func (t *Tree) event(e event.Event) {
	e.Time = time.Now()
	t.cfg.Event(e)
}
