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

// Why a stream ends here, and a pull, as that travels to those who pull it from
// here.
const (
	Finished = "finished" // the publisher has gone
	Lost     = "lost"     // this node lost its own source
	Loop     = "loop"     // it would come back to where it is
)

// A linkError is why a pull over a link came to nothing, other than by a refusal.
type linkError string

func (e linkError) Error() string { return string(e) }

// Word is what traces call it.
func (e linkError) Word() string { return "link-gone" }

// Errors of [Config].Subscribe, after which the same node may be asked again.
const (
	// ErrCrossed means that both ends opened a link at once and the other's was
	// kept.
	ErrCrossed = linkError("both ends opened a link at once; the other one is used")
	// ErrGone means that the link ended meanwhile.
	ErrGone = linkError("the cascade link is gone")
)

// ErrLoop means that pulling from that node would close a circle.
var ErrLoop = errors.New("the stream would come back to where it is")

// A Source is a node to pull a stream from.
type Source struct {
	Node  peer.ID
	Addrs []multiaddr.Multiaddr
	Lease string // ID of a lease for the pull, granted by Node; may be empty
}

// An Upstream is one stream that is pulled from another node. All its methods
// return at once.
type Upstream interface {
	Peer() peer.ID      // the node
	Path() []peer.ID    // to that node, origin first
	RTT() time.Duration // to that node

	// Tracks makes tracks as the node described them, and Continues reports whether
	// the node's can go on as tracks.
	Tracks() []*forward.Track
	Continues(tracks []*forward.Track) bool
	// Connect makes the pull the source of tracks, and has the node start.
	Connect(tracks []*forward.Track)

	// Moved has the node's path when that changes.
	Moved() <-chan []peer.ID
	// Over is closed when the pull has ended; Reason is why, then.
	Over() <-chan struct{}
	Reason() string
	// Unsubscribe ends the pull by our will, and End notes that it is over.
	Unsubscribe()
	End(reason string)
}

// Config is what a Tree is made of. All fields are required. Functions may be
// called from several goroutines and must return when their ctx ends.
type Config struct {
	Self peer.ID
	// Locate finds a carrier of the stream to pull, other than those in exclude,
	// and reserves the pull on it. problem.ErrNotLive if there is none, a
	// [capacity.Refusal] if none has room, a problem.UnansweredError if neither can
	// be known.
	Locate func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Source, error)
	// Live tells whether another node carries stream, as far as that can be learnt
	// now.
	Live func(ctx context.Context, stream string) bool
	// Subscribe pulls stream from a node. The error is a [capacity.Refusal] if the
	// node said no.
	Subscribe func(ctx context.Context, from Source, stream string) (Upstream, error)
	// AwaitLink waits a moment for a link that node is opening to us.
	AwaitLink func(node peer.ID)
	// Changed is told when a stream has come, moved or gone.
	Changed func()
	Linger  func() time.Duration // how long an unwatched relay is kept, as of now
	Event   func(event.Event)    // told what happens; must not block
	Log     *slog.Logger
	Tracer  trace.Tracer
}

// A Tree is the streams of one node.
type Tree struct {
	cfg    Config
	log    *slog.Logger
	tracer trace.Tracer

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu         sync.Mutex
	closed     bool
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

// Pulls is how many streams are being fetched, or were and are kept.
func (t *Tree) Pulls() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pulls)
}

// All are the streams that are carried here, by name.
func (t *Tree) All() []*Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.streams), func(a, b *Stream) int { return cmp.Compare(a.Name, b.Name) })
}

// Get is the stream of that name that is carried here, or nil.
func (t *Tree) Get(name string) *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if st := t.streams[name]; st != nil && !st.Ended() {
		return st
	}
	return nil
}

// Here is the stream of that name, which may have ended just now, or nil; origin
// is whether its publisher is here.
func (t *Tree) Here(name string) (st *forward.Stream, origin bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if here := t.streams[name]; here != nil {
		return here.Stream, here.Origin
	}
	return nil, false
}

// Reserve keeps a name for a publisher that is being set up, until done is
// called: the stream is not pulled meanwhile. It reports false if it is kept
// already.
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

// Publish makes the stream of a publisher known, and ends another that was under
// its name.
func (t *Tree) Publish(st *forward.Stream) {
	t.mu.Lock()
	old := t.streams[st.Name]
	if old == nil || old.Stream != st {
		t.streams[st.Name] = newOrigin(st, t.cfg.Self)
	}
	t.sighted(st.Name)
	t.mu.Unlock()
	switch {
	case old == nil || old.Stream == st:
	case old.Origin:
		old.End(Finished)
	default: // a relay of a publisher that has gone
		old.End(Lost)
	}
	t.cfg.Changed()
}

// Drop ends the stream of a publisher that has gone, and forgets it.
func (t *Tree) Drop(st *forward.Stream) { t.drop(st, Finished) }

func (t *Tree) drop(st *forward.Stream, why string) {
	st.End(why)
	t.mu.Lock()
	if here := t.streams[st.Name]; here != nil && here.Stream == st {
		delete(t.streams, st.Name)
	}
	t.mu.Unlock()
	t.cfg.Changed()
}

func (t *Tree) event(e event.Event) {
	e.Time = time.Now()
	t.cfg.Event(e)
}
