package whip

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/problem"
	"weir/sfu/sdp"
	"weir/sfu/steering"
)

// A fake is a Server on fakes: streams are a map, and a test sets what media
// does.
type fake struct {
	*Server
	handler http.Handler
	ledger  *ledger.Ledger

	mu         sync.Mutex
	streams    map[string]*forward.Stream
	reserved   map[string]bool
	transports []*fakeTransport // in the order in which they were made
	events     []event.Event
	vanished   []time.Time // last signs of life of publishers that may come back
	refuse     error       // of publishers' offers
	unlike     bool        // tracks of a publisher differ from those of the one before
}

func newFake(t *testing.T, change func(*Config)) *fake {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{ledger: ledger.New(self, ledger.Limits{}), streams: map[string]*forward.Stream{}, reserved: map[string]bool{}}
	cfg := Config{
		Self: self, Key: key, Ledger: f.ledger, Streams: f, Media: fakeMedia{f},
		Place: func(context.Context, capacity.Need, []peer.ID) (Helper, error) {
			return Helper{}, &capacity.Refusal{Reason: "sessions", Detail: "nobody has room"}
		},
		Addrs:           func() []multiaddr.Multiaddr { return nil },
		Gate:            scope.NewGate(slog.New(slog.DiscardHandler), false),
		AddressSessions: func() int { return 0 },
		Overflow:        func() Overflow { return Redirect },
		RoomWait:        DefaultRoomWait,
		Event: func(e event.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		},
		Measured: func(meter.Measure, time.Duration) {},
		Log:      slog.New(slog.DiscardHandler),
		Tracer:   noop.Tracer{},
	}
	if change != nil {
		change(&cfg)
	}
	f.Server = New(cfg)
	f.handler = f.Handler()
	t.Cleanup(func() {
		f.Close()
		if got := f.ledger.Totals(time.Now()); got.Viewers+got.Publishers != 0 {
			t.Errorf("after Close the ledger counts %d viewers and %d publishers", got.Viewers, got.Publishers)
		}
	})
	return f
}

// post sends an offer as a client does.
func (f *fake) post(path, offer string) *http.Response {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(offer))
	r.Header.Set("Content-Type", "application/sdp")
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w.Result()
}

// saw returns the events of a kind.
func (f *fake) saw(kind event.Kind) (all []event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

func (f *fake) Here(name string) (*forward.Stream, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.streams[name]
	return st, st != nil
}

func (f *fake) Reserve(name string) (func(), bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reserved[name] {
		return nil, false
	}
	f.reserved[name] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.reserved, name)
	}, true
}

func (f *fake) Publish(st *forward.Stream) (since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.streams[st.Name]; old != nil && old != st {
		old.End("replaced")
	}
	f.streams[st.Name] = st
	return time.Time{}
}

func (f *fake) Vanish(st *forward.Stream, since time.Time) {
	f.mu.Lock()
	f.vanished = append(f.vanished, since)
	f.mu.Unlock()
	f.Drop(st)
}

func (f *fake) Drop(st *forward.Stream) {
	st.End("finished")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[st.Name] == st {
		delete(f.streams, st.Name)
	}
}

func (f *fake) Acquire(_ context.Context, name string, _ *Source, _ time.Time, rest func() error) (*forward.Stream, func(), error) {
	if err := rest(); err != nil {
		return nil, nil, err
	}
	if st, _ := f.Here(name); st != nil {
		return st, func() {}, nil
	}
	return nil, nil, problem.ErrNotLive
}

func (f *fake) Await(ctx context.Context, name string, _ int) error {
	for {
		if st, _ := f.Here(name); st != nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type fakeMedia struct{ f *fake }

func (m fakeMedia) made() *fakeTransport {
	t := &fakeTransport{connected: make(chan struct{}), ended: make(chan string, 1), checked: time.Now(), alike: !m.f.unlike}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.f.transports = append(m.f.transports, t)
	return t
}

func (m fakeMedia) Publish(_ context.Context, _ *sdp.Offer, tell func(event.Event)) (Publisher, []*forward.Track, string, error) {
	if m.f.refuse != nil {
		return nil, nil, "", m.f.refuse
	}
	t := m.made()
	t.tell = tell
	return t, []*forward.Track{{ID: "audio0", Codec: forward.Codec{MimeType: "audio/opus"}}}, "v=0\r\n", nil
}

func (m fakeMedia) View(context.Context, *forward.Stream, *sdp.Offer, func(forward.Kind, time.Time)) (Viewer, string, error) {
	return m.made(), "v=0\r\n", nil
}

// A fakeTransport does what its test says.
type fakeTransport struct {
	connected chan struct{}
	ended     chan string
	tell      func(event.Event)
	checked   time.Time // when the last connectivity check came
	quiet     time.Duration
	alike     bool // it can adopt
	looks     int
	skipped   atomic.Int64
	choice    forward.Choice

	stopped, closed bool
}

func (t *fakeTransport) Connected() <-chan struct{}                  { return t.connected }
func (t *fakeTransport) Ended() <-chan string                        { return t.ended }
func (t *fakeTransport) Silence(now time.Time) (time.Duration, bool) { return now.Sub(t.checked), true }
func (t *fakeTransport) Knows(ufrag string) bool                     { return ufrag == "abcd" }
func (t *fakeTransport) Add(*sdp.Fragment)                           {}
func (t *fakeTransport) State() string                               { return "connected" }
func (t *fakeTransport) Video() bool                                 { return false }
func (t *fakeTransport) Traffic() Traffic                            { return Traffic{Packets: 1, Skipped: t.skipped.Load()} }
func (t *fakeTransport) RTT() time.Duration                          { return 0 }
func (t *fakeTransport) Congestion() steering.Status                 { return steering.Status{} }
func (t *fakeTransport) Tick()                                       {}
func (t *fakeTransport) NotTaken() []string                          { return nil }
func (t *fakeTransport) Unused() map[string]int                      { return nil }
func (t *fakeTransport) Stop()                                       { t.stopped = true }
func (t *fakeTransport) Close()                                      { t.closed = true }
func (t *fakeTransport) Adopt([]*forward.Track) bool                 { return t.alike }
func (t *fakeTransport) Quiet(time.Time, time.Time) time.Duration    { return t.quiet }
func (t *fakeTransport) Look(time.Time, time.Time)                   { t.looks++ }
func (t *fakeTransport) Sections(time.Time) []sdp.SectionStatus      { return nil }
func (t *fakeTransport) NotForwarded() map[string]int64              { return nil }
func (t *fakeTransport) Layers() map[int][]forward.Layer {
	return map[int][]forward.Layer{1: make([]forward.Layer, 2)}
}
func (t *fakeTransport) Choose(_ int, c forward.Choice) { t.choice = c }
func (t *fakeTransport) Sending() (forward.Layer, bool) {
	return forward.Layer{RID: t.choice.RID}, true
}
func (t *fakeTransport) Pause(forward.Kind, bool)                                {}
func (t *fakeTransport) Paused(forward.Kind) (paused, ok bool)                   { return false, false }
func (t *fakeTransport) Restart(context.Context, string, string) (string, error) { return "", nil }
