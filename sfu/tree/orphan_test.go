package tree

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
)

// beat has the parent pass beats on, five a second, for as long as d, or until
// the pull ends.
func (p *parent) beat(from uint64, d time.Duration) {
	for n := range uint64(d / beatEvery) {
		select {
		case p.beats <- Beat{Count: from + n}:
		case <-p.over:
			return
		}
		select {
		case <-time.After(beatEvery):
		case <-p.over:
			return
		}
	}
}

func (g *grove) last() *parent {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parents[len(g.parents)-1]
}

// state is what the node's record says of the stream.
func (g *grove) state(st *Stream) capacity.StreamState { return st.Info(0, time.Now()).State }

// refuses fails the test unless a new viewer is refused as one of an orphan.
func (g *grove) refuses(t *testing.T) {
	t.Helper()
	_, _, err := g.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil })
	if p := problem.Of(err); p == nil || p.Code != problem.Orphaned || p.RetryAfter == 0 {
		t.Errorf("a new viewer of an orphan gets %v", err)
	}
}

// A relay whose parent is there and passes no beats on is an orphan: it takes no
// viewers, does not look for a parent itself, and ends at the grace.
func TestOrphanUnderAnOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near", "far")
		g.beating = true
		st, release := g.view(t)
		defer release()
		near := g.last()
		near.beat(1, 5*time.Second)
		if st.Orphan(time.Now()) || g.saw(event.StreamOrphaned) != 0 {
			t.Fatal("an orphan although beats come")
		}
		time.Sleep(orphanAfter)
		if n := g.saw(event.StreamOrphaned); n != 1 || g.state(st) != capacity.Orphan {
			t.Errorf("told %d times, its record says %v", n, g.state(st))
		}
		g.refuses(t)
		near.beat(26, time.Second)
		if n := g.saw(event.StreamResumed); n != 1 || g.state(st) != capacity.Live {
			t.Errorf("told %d times, its record says %v", n, g.state(st))
		}
		heard := time.Now().Add(-beatEvery)
		<-st.Done()
		if alone := time.Since(heard); alone != DefaultGrace || st.Reason() != Lost || len(g.parents) != 1 {
			t.Errorf("ended %v after the last beat for %q, %d parents", alone, st.Reason(), len(g.parents))
		}
	})
}

// A relay that has lost its parent looks for another for as long as the last
// beat is not older than the grace, however often its parents pass on none.
func TestOrphanLooksForAParent(t *testing.T) {
	for after, found := range map[time.Duration]bool{600 * time.Millisecond: true, 9 * time.Second: true, 12 * time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			g := newGrove(t, "near")
			g.beating = true
			st, release := g.view(t)
			defer release()
			g.set()
			lost := time.Now()
			g.last().End("link")
			time.Sleep(after)
			g.set("far")
			time.Sleep(seekPauseMost)
			if ended := st.Ended(); ended == found || found && g.last().node != "far" {
				t.Errorf("after %v: ended %t, pulled from %s", after, ended, g.last().node)
			}
			orphan := after >= orphanAfter
			if n := g.saw(event.StreamOrphaned); (n == 1) != orphan || found && g.saw(event.StreamResumed) != n {
				t.Errorf("after %v: told %d times to be an orphan, %d times not to be", after, n, g.saw(event.StreamResumed))
			}
			if !found {
				<-st.Done()
				if spent := time.Since(lost); spent > 12*time.Second+2*seekPauseMost || st.Reason() != Lost {
					t.Errorf("after %v it ended for %q", spent, st.Reason())
				}
			}
		})
	}
}

// All nodes of a chain end the stream at one time, by the age of the beat.
func TestOrphansEndAtOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ends []time.Duration
		start := time.Now()
		for hop := range 5 {
			g := newGrove(t, "parent")
			g.beating = true
			st, release := g.view(t)
			defer release()
			p := g.last()
			p.beats <- Beat{Count: 7, Age: time.Duration(hop) * 20 * time.Millisecond}
			time.Sleep(20 * time.Millisecond) // to the next one
			go func() {
				<-st.Done()
				mu.Lock()
				defer mu.Unlock()
				ends = append(ends, time.Since(start))
			}()
		}
		time.Sleep(2 * DefaultGrace)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(ends)
		if len(ends) != 5 || ends[4]-ends[0] > 100*time.Millisecond {
			t.Errorf("ended after %v", ends)
		}
	})
}

// A parent of a release without beats is relied on while it is linked, and the
// node counts for its own children.
func TestParentWithoutBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "old")
		st, release := g.view(t)
		defer release()
		time.Sleep(time.Minute)
		if b := st.Beat(time.Now()); b.Count != 300 || st.Orphan(time.Now()) {
			t.Errorf("beat %v after a minute, orphan %t", b, st.Orphan(time.Now()))
		}
		g.set()
		g.last().End("link")
		time.Sleep(2 * time.Second)
		if !st.Orphan(time.Now()) {
			t.Error("no orphan without its parent")
		}
	})
}

// A leaver is a user of a stream that can leave.
type leaver struct{ leave func() }

// A stream without users does not wait, and a parent that is an orphan itself is
// none, whatever it answers.
func TestWhatIsNotWorthAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t)
		st := forward.NewStream("demo", nil, time.Now())
		g.Publish(st)
		g.Vanish(st, time.Now())
		if !st.Ended() || st.Reason() != Finished || g.saw(event.StreamWaiting) != 0 {
			t.Errorf("ended %t, %d waits", st.Ended(), g.saw(event.StreamWaiting))
		}
		g.beating, g.first = true, Beat{Age: time.Hour}
		g.set("stale")
		if _, _, err := g.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil }); err == nil {
			t.Error("pulled from an orphan")
		}
		if why := g.last().why; why != "unsubscribed" {
			t.Errorf("its pull ended for %q", why)
		}
	})
}

// The stream of a publisher that has vanished waits for the grace, and goes on
// with whoever publishes it then, here or elsewhere.
func TestVanishedPublisher(t *testing.T) {
	const away = 3 * time.Second
	for _, c := range []struct {
		name string
		back func(g *grove, st *forward.Stream)
		ends string
		path []peer.ID
	}{
		{"back here", func(g *grove, st *forward.Stream) {
			if since := g.Publish(st); time.Since(since) != away {
				panic("it does not know how long it was away")
			}
		}, "", []peer.ID{"self"}},
		{"back at another node", func(g *grove, st *forward.Stream) { g.set("far") }, "", []peer.ID{"far", "self"}},
		{"it does not come back", func(*grove, *forward.Stream) {}, Finished, nil},
		{"its viewers leave meanwhile", func(_ *grove, st *forward.Stream) {
			for users, _ := st.Users(); len(users) > 0; users, _ = st.Users() {
				users[0].(*leaver).leave()
			}
		}, Lost, nil},
		{"another with other tracks comes", func(g *grove, st *forward.Stream) {
			g.Publish(forward.NewStream(st.Name, nil, time.Now()))
		}, Finished, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrove(t)
				st := forward.NewStream("demo", nil, time.Now())
				g.Publish(st)
				viewer := &leaver{}
				viewer.leave, _ = st.Use(viewer, true)
				since := time.Now()
				g.Vanish(st, since)
				here := g.Get("demo")
				if g.state(here) != capacity.Waiting || here.Orphan(time.Now()) || here.Published() {
					t.Errorf("its record says %v", g.state(here))
				}
				time.Sleep(away)
				c.back(g, st)
				time.Sleep(time.Minute)
				if st.Ended() != (c.ends != "") || st.Ended() && st.Reason() != c.ends {
					t.Errorf("ended %t, want %q", st.Ended(), c.ends)
				}
				if c.path == nil {
					return
				}
				if got := here.Path(); !slices.Equal(got, c.path) || g.state(here) != capacity.Live || g.saw(event.StreamResumed) != 1 {
					t.Errorf("by %v, %v, told %d times", got, g.state(here), g.saw(event.StreamResumed))
				}
			})
		})
	}
}

// A publisher that comes to a relay of its stream continues it: the pull ends,
// and nobody notices.
func TestPublisherComesToARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		st, release := g.view(t)
		defer release()
		g.Publish(st.Stream)
		synctest.Wait()
		if st.Ended() || !st.Published() || !slices.Equal(st.Path(), []peer.ID{"self"}) || g.last().why != "unsubscribed" || g.Pulls() != 0 {
			t.Errorf("ended %t, published %t, by %v, the parent was told %q, %d pulls", st.Ended(), st.Published(), st.Path(), g.last().why, g.Pulls())
		}
	})
}

// A publisher that comes to a relay just before the pull is kept ends it as well:
// else the pull would end the stream when nobody watches.
func TestPublisherComesBeforeThePullIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := &parent{node: "near", path: []peer.ID{"near"}, over: make(chan struct{})}
		st := newRelay("demo", near, "self", time.Now())
		st.publish("self", time.Now())
		if st.pulling(t.Context()).Err() == nil {
			t.Error("it is pulled although it is published here")
		}
	})
}

// A viewer that waits does so until the orphan has a way to its origin again.
func TestViewerWaitsForAnOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		g.beating = true
		st, release := g.view(t)
		defer release()
		time.Sleep(2 * time.Second)
		g.refuses(t)
		go func() {
			time.Sleep(time.Second)
			g.last().beats <- Beat{Count: 9}
		}()
		began := time.Now()
		for tries := 0; st.Orphan(time.Now()); tries++ {
			if err := g.Await(t.Context(), "demo", tries); errors.Is(err, problem.ErrClosing) || time.Since(began) > time.Minute {
				t.Fatal(err)
			}
		}
		if n := time.Since(began); n < time.Second {
			t.Errorf("it waited %v", n)
		}
	})
}
