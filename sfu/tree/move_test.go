package tree

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/rtp"

	"weir/capacity/event"
	"weir/sfu/forward"
)

// relay sets the path by which a carrier has the stream.
func (g *grove) relay(node peer.ID, path ...peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paths[node] = path
}

// A relay whose parent is about to go connects to another one, leaves the first
// when the other has taken over, and keeps the first as long as there is none.
func TestMoveBeforeTheParentGoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(g *grove, near *parent)
		path  []peer.ID
		moves int
		why   string // the first pull ends; "": it goes on
	}{
		{"another takes over", func(g *grove, near *parent) {
			g.set("near", "far")
			time.Sleep(2 * movePause)
			g.last().Take()
		}, []peer.ID{"far", "self"}, 1, "unsubscribed"},
		{"another brings no keyframe", func(g *grove, near *parent) {
			g.set("near", "far")
			time.Sleep(2*movePause + switchTime)
		}, []peer.ID{"far", "self"}, 1, "unsubscribed"},
		{"there is no other", func(g *grove, near *parent) {}, []peer.ID{"near", "self"}, 0, ""},
		{"the other goes too", func(g *grove, near *parent) {
			g.set("near", "far")
			time.Sleep(2*movePause - time.Millisecond)
			g.last().End("link")
			g.set("near")
		}, []peer.ID{"near", "self"}, 0, ""},
		{"the other comes by way of here", func(g *grove, near *parent) {
			g.set("near", "far")
			time.Sleep(2*movePause - time.Millisecond)
			g.set("near")
			g.last().moved <- []peer.ID{"origin", "self", "far"}
			time.Sleep(time.Millisecond)
			if g.last().why != "unsubscribed" {
				t.Error("a circle is kept")
			}
		}, []peer.ID{"near", "self"}, 0, ""},
		{"the other moves", func(g *grove, near *parent) {
			g.set("near", "far")
			time.Sleep(2*movePause - time.Millisecond)
			g.last().moved <- []peer.ID{"origin", "far"}
			time.Sleep(time.Millisecond)
			g.last().Take()
		}, []peer.ID{"origin", "far", "self"}, 1, "unsubscribed"},
		{"a sibling is nearer", func(g *grove, near *parent) {
			g.relay("sibling", "near", "sibling")
			g.set("near", "sibling", "far")
			time.Sleep(2*movePause + switchTime)
		}, []peer.ID{"far", "self"}, 1, "unsubscribed"},
		{"there are only siblings", func(g *grove, near *parent) {
			g.relay("sibling", "near", "sibling")
			g.relay("nephew", "near", "sibling", "nephew")
			g.set("near", "sibling", "nephew")
		}, []peer.ID{"near", "self"}, 0, ""},
		{"the sibling has moved", func(g *grove, near *parent) {
			g.relay("sibling", "near", "sibling")
			g.set("near", "sibling")
			time.Sleep(5 * time.Second)
			g.relay("sibling", "origin", "sibling")
		}, []peer.ID{"origin", "sibling", "self"}, 1, "unsubscribed"},
		{"the first goes at once", func(g *grove, near *parent) {
			near.End("link")
			g.set("far")
		}, []peer.ID{"far", "self"}, 0, "link"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrove(t, "near")
				st, release := g.view(t)
				defer release()
				near := g.last()
				close(near.leave)
				time.Sleep(time.Millisecond)
				c.do(g, near)
				time.Sleep(time.Minute)
				if got := st.Path(); !slices.Equal(got, c.path) || st.Ended() || g.saw(event.PullMoved) != c.moves {
					t.Errorf("by %v, ended %t, %d moves", got, st.Ended(), g.saw(event.PullMoved))
				}
				why := ""
				select {
				case <-near.over:
					why = near.why
				default:
				}
				if why != c.why {
					t.Errorf("the first pull ended for %q, want %q", why, c.why)
				}
			})
		})
	}
}

// A move that fails after some tracks have come from the other parent gives them
// back: audio changes with its first packet, and video waits for a keyframe.
func TestFailedMoveGivesTracksBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		_, release := g.view(t)
		defer release()
		near := g.last()
		close(near.leave)
		time.Sleep(time.Millisecond)
		g.set("near", "far")
		time.Sleep(movePause + switchTime/2)
		far := g.last()
		audio := far.sources()[0]
		audio.Forward(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: 1}, Payload: []byte{1}}, time.Now())
		if !audio.Taken() || far.Taken() {
			t.Fatalf("audio taken %t, all taken %t", audio.Taken(), far.Taken())
		}
		g.set("near")
		far.End("link")
		synctest.Wait()
		if !near.Taken() {
			t.Error("a track has no source: it waits for the parent that has gone")
		}
	})
}

// A relay follows the beats of its parent while it waits for the keyframes of
// another, and so do its children.
func TestMoveFollowsBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		g.beating = true
		st, release := g.view(t)
		defer release()
		child := &listener{}
		leave, _ := st.Use(child, false)
		defer leave()
		near := g.last()
		go near.beat(1, time.Minute)
		close(near.leave)
		time.Sleep(time.Millisecond)
		g.set("near", "far")
		time.Sleep(movePause)
		before := child.beats.Load()
		time.Sleep(switchTime - beatEvery)
		if g.last() == near || g.last().Taken() {
			t.Fatal("it does not move just now")
		}
		if n := child.beats.Load() - before; n < int64((switchTime-beatEvery)/beatEvery) {
			t.Errorf("its child was told of %d beats", n)
		}
		if st.Orphan(time.Now()) || g.saw(event.StreamOrphaned) != 0 {
			t.Error("an orphan although beats come")
		}
	})
}

// A listener is a child that counts what it is told.
type listener struct{ beats, leaves atomic.Int64 }

func (c *listener) TellPath([]peer.ID) {}
func (c *listener) TellBeat()          { c.beats.Add(1) }
func (c *listener) TellLeave()         { c.leaves.Add(1) }

// The children of a stream that is published here stay while the node is about
// to go, and move once its publisher is elsewhere.
func TestLeaveOnceThePublisherHasMoved(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := newGrove(t)
			st := forward.NewStream("demo", nil, time.Now())
			g.Publish(st)
			child := &listener{}
			gone, _ := st.Use(child, false)
			defer gone()
			g.Leave(true)
			g.Leave(leaves)
			if child.leaves.Load() != 0 {
				t.Error("told to leave the only carrier")
			}
			g.Vanish(st, time.Now())
			g.set("far")
			time.Sleep(time.Second)
			if path := g.Get("demo").Path(); !slices.Equal(path, []peer.ID{"far", "self"}) {
				t.Fatalf("it comes by %v", path)
			}
			if told := child.leaves.Load() == 1; told != leaves {
				t.Errorf("about to go %t, told %d times to leave", leaves, child.leaves.Load())
			}
		})
	}
}

// A relay whose parent stays, or has no peer, looks for another ever more
// seldom.
func TestMoveIsTriedEverMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrove(t, "near")
		_, release := g.view(t)
		defer release()
		close(g.last().leave)
		time.Sleep(10 * time.Minute)
		g.mu.Lock()
		defer g.mu.Unlock()
		if most := 6 + int(10*time.Minute/movePauseMost); g.looks < most/2 || g.looks > most {
			t.Errorf("it has looked %d times in 10 minutes, want at most %d", g.looks, most)
		}
	})
}
