package tree

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/webrtc/v4"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
)

// A parent is a fake Upstream that a test controls: it is the source of real
// tracks, and has no link.
type parent struct {
	node  peer.ID
	path  []peer.ID // to it
	alike bool
	moved chan []peer.ID
	first Beat
	beats chan Beat // nil: of a release before there were beats
	leave chan struct{}
	over  chan struct{}
	once  sync.Once
	why   string

	mu  sync.Mutex
	ups []*forward.UpTrack // audio and video
}

// Tracks are an audio track, which begins with any packet, and a video track,
// which waits for a keyframe.
func (p *parent) Tracks() []*forward.Track {
	return []*forward.Track{
		{ID: "audio0", Codec: forward.Codec{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}},
		{ID: "video0", Codec: forward.Codec{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}},
	}
}

func (p *parent) Connect(tracks []*forward.Track) { p.connect(tracks, (*forward.Track).Attach) }
func (p *parent) Prepare(tracks []*forward.Track) { p.connect(tracks, (*forward.Track).Prepare) }

func (p *parent) connect(tracks []*forward.Track, source func(*forward.Track, forward.Receiver) *forward.UpTrack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range tracks {
		p.ups = append(p.ups, source(t, p))
	}
}

func (p *parent) RequestKeyframe() bool { return true }

// sources returns the sources of the tracks.
func (p *parent) sources() []*forward.UpTrack {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ups)
}

func (p *parent) Taken() bool {
	return !slices.ContainsFunc(p.sources(), func(u *forward.UpTrack) bool { return !u.Taken() })
}

func (p *parent) Take() {
	for _, u := range p.sources() {
		if !u.Taken() {
			u.Take()
		}
	}
}

func (p *parent) End(why string) {
	p.once.Do(func() {
		p.why = why
		for _, u := range p.sources() {
			u.Close()
		}
		close(p.over)
	})
}

func (p *parent) Peer() peer.ID                   { return p.node }
func (p *parent) Path() []peer.ID                 { return slices.Clone(p.path) }
func (p *parent) RTT() time.Duration              { return time.Millisecond }
func (p *parent) Continues([]*forward.Track) bool { return p.alike }
func (p *parent) Beat() (Beat, bool)              { return p.first, p.beats != nil }
func (p *parent) Beats() <-chan Beat              { return p.beats }
func (p *parent) Leaving() <-chan struct{}        { return p.leave }
func (p *parent) Moved() <-chan []peer.ID         { return p.moved }
func (p *parent) Done() <-chan struct{}           { return p.over }
func (p *parent) Reason() string                  { return p.why }
func (p *parent) Unsubscribe()                    { p.End("unsubscribed") }

// A grove is a Tree with a fixed list of carriers, the nearest first.
type grove struct {
	*Tree

	mu       sync.Mutex
	carriers []peer.ID
	looks    int // for a carrier
	events   []event.Event
	beating  bool                  // parents pass beats on
	first    Beat                  // of new parents
	paths    map[peer.ID][]peer.ID // to carriers that relay; of others it is themselves
	unlike   bool                  // tracks of a pull differ from those of the one before
	parents  []*parent
}

func newGrove(t *testing.T, carriers ...peer.ID) *grove {
	g := &grove{carriers: carriers, paths: map[peer.ID][]peer.ID{}}
	g.Tree = New(Config{
		Self: "self",
		Locate: func(_ context.Context, _ capacity.Need, exclude []peer.ID) (Source, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.looks++
			for _, c := range g.carriers {
				if !slices.Contains(exclude, c) {
					return Source{Node: c}, nil
				}
			}
			return Source{}, problem.ErrNotLive
		},
		Live: func(context.Context, string) bool { return true },
		Subscribe: func(_ context.Context, from Source, _ string) (Upstream, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			path := g.paths[from.Node]
			if path == nil {
				path = []peer.ID{from.Node}
			}
			p := &parent{node: from.Node, path: path, alike: !g.unlike, moved: make(chan []peer.ID, 1), leave: make(chan struct{}), over: make(chan struct{})}
			if g.beating {
				p.beats, p.first = make(chan Beat), g.first
			}
			g.parents = append(g.parents, p)
			return p, nil
		},
		AwaitLink: func(peer.ID) {},
		Changed:   func() {},
		Grace:     func() time.Duration { return DefaultGrace },
		Ended:     func(*forward.Stream) {},
		Linger:    func() time.Duration { return 10 * time.Second },
		Event: func(e event.Event) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events = append(g.events, e)
		},
		Log:    slog.New(slog.DiscardHandler),
		Tracer: noop.Tracer{},
	})
	t.Cleanup(g.Close)
	return g
}

// set changes the carriers.
func (g *grove) set(carriers ...peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.carriers = carriers
}

func (g *grove) saw(kind event.Kind) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (g *grove) view(t *testing.T) (*Stream, func()) {
	t.Helper()
	st, release, err := g.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return st, release
}

// An unwatched relay is kept for as long as Linger says, and no longer.
func TestUnwatchedRelayIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		st, release := g.view(t)
		time.Sleep(time.Minute)
		if st.Ended() {
			t.Fatal("it was let go while it was watched")
		}
		release()
		time.Sleep(9 * time.Second)
		if st.Ended() {
			t.Error("it was let go within Linger")
		}
		time.Sleep(2 * time.Second)
		g.mu.Lock()
		defer g.mu.Unlock()
		<-g.parents[0].over
		if !st.Ended() || st.Reason() != Lost || g.parents[0].why != "unsubscribed" || g.Pulls() != 0 {
			t.Errorf("ended %t, %d pulls, the parent was told %q", st.Ended(), g.Pulls(), g.parents[0].why)
		}
	})
}

// A relay continues, moves or ends when its pull ends or its stream comes by
// another path.
func TestPullEnds(t *testing.T) {
	for _, c := range []struct {
		name     string
		carriers []peer.ID
		unlike   bool
		do       func(p *parent)
		parents  []peer.ID // in turn
		why      string    // the stream ends; empty: it goes on
	}{
		{"the publisher has finished", []peer.ID{"near", "far"}, false, func(p *parent) { p.End(Finished) }, []peer.ID{"near"}, Finished},
		{"the link is lost, and there is another carrier", []peer.ID{"near", "far"}, false, func(p *parent) { p.End("link") }, []peer.ID{"near", "far"}, ""},
		{"the link is lost, and comes back", []peer.ID{"near"}, false, func(p *parent) { p.End("link") }, []peer.ID{"near", "near"}, ""},
		{"the stream would come back to here", []peer.ID{"near", "far"}, false, func(p *parent) { p.moved <- []peer.ID{"self", "near"} }, []peer.ID{"near", "far"}, ""},
		{"the stream moves elsewhere", []peer.ID{"near", "far"}, false, func(p *parent) { p.moved <- []peer.ID{"origin", "near"} }, []peer.ID{"near"}, ""},
		{"only other tracks are there", []peer.ID{"near", "far"}, true, func(p *parent) { p.End("link") }, nil, Lost},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrove(t, c.carriers...)
				st, release := g.view(t)
				defer release()
				g.mu.Lock()
				g.unlike = c.unlike
				first := g.parents[0]
				g.mu.Unlock()
				c.do(first)
				time.Sleep(DefaultGrace + time.Second)
				g.mu.Lock()
				defer g.mu.Unlock()
				var parents []peer.ID
				for _, p := range g.parents {
					parents = append(parents, p.node)
				}
				if c.parents != nil && !slices.Equal(parents, c.parents) {
					t.Errorf("pulled from %v, want %v", parents, c.parents)
				}
				if st.Ended() != (c.why != "") || st.Ended() && st.Reason() != c.why {
					t.Errorf("ended %t, want %q", st.Ended(), c.why)
				}
				if path := st.Path(); !st.Ended() && path[len(path)-1] != "self" {
					t.Errorf("it comes by %v", path)
				}
			})
		})
	}
}

// There is one pull of a stream for any number of requests.
func TestOnePullOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, release, err := g.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil })
				if err != nil {
					t.Error(err)
					return
				}
				release()
			})
		}
		wg.Wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.parents) != 1 {
			t.Errorf("%d pulls", len(g.parents))
		}
	})
}

// A name that is reserved for a publisher is not pulled.
func TestReservedNameIsNotPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		done, ok := g.Reserve("demo")
		if _, again := g.Reserve("demo"); !ok || again {
			t.Errorf("reserved %t, and twice %t", ok, again)
		}
		if _, _, err := g.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil }); !errors.Is(err, problem.ErrNotLive) {
			t.Errorf("pulled beside a publisher that is being set up: %v", err)
		}
		done()
		_, release := g.view(t)
		release()
	})
}
