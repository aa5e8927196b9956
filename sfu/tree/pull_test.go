package tree

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
)

// A looker is a Tree without links whose search for carriers finds none with
// room. It lives in a synctest bubble.
type looker struct {
	*Tree
	mu     sync.Mutex
	looks  []time.Duration // times of the calls of Locate, since the start
	events []string
}

// newLooker makes a Locate that fails with the result of answer for each call,
// from 0 on.
func newLooker(t *testing.T, answer func(look int) error) *looker {
	l := &looker{}
	start := time.Now()
	l.Tree = New(Config{
		Self:    "self",
		Changed: func() {},
		Event: func(e event.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, string(e.Kind))
		},
		Locate: func(context.Context, capacity.Need, []peer.ID) (Source, error) {
			l.mu.Lock()
			look := len(l.looks)
			l.looks = append(l.looks, time.Since(start))
			l.mu.Unlock()
			return Source{}, answer(look)
		},
		Live:   func(context.Context, string) bool { return false },
		Grace:  func() time.Duration { return DefaultGrace },
		Ended:  func(*forward.Stream) {},
		Linger: func() time.Duration { return time.Minute },
		Log:    slog.New(slog.DiscardHandler),
		Tracer: noop.Tracer{},
	})
	t.Cleanup(l.Close)
	return l
}

func (l *looker) seen() ([]time.Duration, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.looks), slices.Clone(l.events)
}

// ask waits as one viewer, for up to patience.
func (l *looker) ask(ctx context.Context, patience time.Duration) error {
	_, release, err := l.Acquire(ctx, "demo", nil, time.Now().Add(patience), func() error { return nil })
	if err == nil {
		release()
	}
	return err
}

var full = &capacity.Refusal{Reason: "fanout", Detail: "8 of 8 pulls are taken", RetryAfter: time.Second}

// pulling returns the number of pulls.
func (l *looker) pulling() int {
	l.Tree.mu.Lock()
	defer l.Tree.mu.Unlock()
	return len(l.pulls)
}

// A pull for which no carrier has room is tried again, at growing intervals,
// for as long as the viewer waits. Then the viewer gets the reason.
func TestPullIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, func(int) error { return full })
		start := time.Now()
		err := l.ask(t.Context(), 10*time.Second)
		var refusal *capacity.Refusal
		if waited := time.Since(start); !errors.As(err, &refusal) || refusal.Reason != "fanout" || waited != 10*time.Second {
			t.Errorf("after %v: %v, want the refusal after 10 s", waited, err)
		}
		synctest.Wait()
		looks, events := l.seen()
		if n := len(looks); n < 5 || n > 12 {
			t.Errorf("tried %d times, at %v", n, looks)
		}
		for i := 1; i < len(looks); i++ {
			pause, mean := looks[i]-looks[i-1], min(roomPause<<(i-1), roomPauseMost)
			if pause < mean/2 || pause > mean*3/2 {
				t.Errorf("try %d came after %v, want about %v", i, pause, mean)
			}
		}
		if want := []string{"pull.started", "pull.waiting", "pull.failed"}; !slices.Equal(events, want) {
			t.Errorf("events = %v, want %v", events, want)
		}
		if l.pulling() != 0 {
			t.Error("the pull goes on though nobody waits")
		}
	})
}

// Only a lack of room is waited for.
func TestPullFailsAtOnce(t *testing.T) {
	for name, err := range map[string]error{
		"not live":          problem.ErrNotLive,
		"a loop":            &capacity.Refusal{Reason: Loop},
		"nobody to ask":     &capacity.Refusal{Reason: "no-candidates"},
		"nobody reachable":  &capacity.Refusal{Reason: "unreachable"},
		"no refusal at all": errors.New("broken"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLooker(t, func(int) error { return err })
				start := time.Now()
				if got := l.ask(t.Context(), 10*time.Second); !errors.Is(got, err) || time.Since(start) != 0 {
					t.Errorf("after %v: %v, want %v at once", time.Since(start), got, err)
				}
			})
		})
	}
	for _, reason := range []string{"sessions", "uplink", "packets", "cpu", "streams", "leases", "draining", "fanout", "depth", "slots", "a policy's rule"} {
		if wantOfRoom(fmt.Errorf("wrapped: %w", &capacity.Refusal{Reason: reason})) == nil {
			t.Errorf("%q is not waited for", reason)
		}
	}
}

// All waiting requests get the error that ends the wait.
func TestPullStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, func(look int) error {
			if look < 3 {
				return full
			}
			return problem.ErrNotLive
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := l.ask(t.Context(), time.Minute); !errors.Is(err, problem.ErrNotLive) {
					t.Errorf("ask = %v, want that it is not live any more", err)
				}
			})
		}
		all.Wait()
		if looks, _ := l.seen(); len(looks) != 4 {
			t.Errorf("20 viewers had %d looks made, want 4", len(looks))
		}
	})
}

// A pull is tried for as long as one viewer waits, and no longer; each viewer
// waits for its own time.
func TestDesertedPullEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, func(int) error { return full })
		ctx, cancel := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() {
			if err := l.ask(ctx, 10*time.Second); !errors.Is(err, context.Canceled) {
				t.Errorf("ask = %v, want the context's error", err)
			}
		})
		time.Sleep(3 * time.Second)
		both.Go(func() {
			start := time.Now()
			if err := l.ask(t.Context(), 10*time.Second); !errors.Is(err, full) || time.Since(start) != 10*time.Second {
				t.Errorf("after %v: %v, want the refusal after 10 s of one's own", time.Since(start), err)
			}
		})
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if l.pulling() != 1 {
			t.Error("the pull ended with its first viewer, though another waits")
		}
		both.Wait()
		synctest.Wait()
		if _, events := l.seen(); l.pulling() != 0 || events[len(events)-1] != "pull.failed" {
			t.Errorf("the pull goes on though nobody waits; events = %v", events)
		}
	})
}

func TestClosingEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, func(int) error { return full })
		result := make(chan error, 1)
		go func() { result <- l.ask(t.Context(), time.Minute) }()
		time.Sleep(5 * time.Second)
		start := time.Now()
		l.cancel()
		if err := <-result; !errors.Is(err, problem.ErrClosing) || time.Since(start) != 0 {
			t.Errorf("after %v: %v, want %v at once", time.Since(start), err, problem.ErrClosing)
		}
	})
}

// Waiting requests get the stream if its publisher comes to this node.
func TestPublishedHereWhileAPullWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, func(int) error { return full })
		result := make(chan error, 1)
		go func() { result <- l.ask(t.Context(), time.Minute) }()
		time.Sleep(5 * time.Second)
		start := time.Now()
		l.Tree.mu.Lock()
		l.streams["demo"] = newOrigin(forward.NewStream("demo", nil, start), "self", time.Now())
		l.Tree.mu.Unlock()
		if err := <-result; err != nil || time.Since(start) > 2*roomPauseMost {
			t.Errorf("after %v: %v, want the stream soon", time.Since(start), err)
		}
	})
}
