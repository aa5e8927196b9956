package sfu

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/client"
)

// chain makes n nodes of which each pulls stream from the one before, with a
// viewer at each but the first, where the caller publishes. Any node may look
// for the stream at any other afterwards.
func chain(t *testing.T, m *mesh, n int, stream string, change func(*Config)) (nodes []*meshNode, viewers []*client.Viewer) {
	t.Helper()
	for range n {
		nodes = append(nodes, m.add(ledger.Limits{}, change))
	}
	nodes[0].publish(stream)
	for i, node := range nodes[1:] {
		m.set(func(string, []peer.ID) []peer.ID { return []peer.ID{nodes[i].id} })
		viewers = append(viewers, node.watch(stream))
	}
	m.set(nil)
	return nodes, viewers
}

// set replaces the search for carriers of a stream; nil: any node that says it
// carries it.
func (m *mesh) set(carriers func(stream string, exclude []peer.ID) []peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.carriers = carriers
}

// closings returns when each viewer's session ended, after since.
func closings(t *testing.T, since time.Time, viewers []*client.Viewer) []time.Duration {
	t.Helper()
	ended := make(chan time.Duration, len(viewers))
	for _, v := range viewers {
		go func() {
			<-v.Done() // ends with the viewer, at the latest by the test's cleanup
			ended <- time.Since(since)
		}()
	}
	var all []time.Duration
	deadline := time.After(patience)
	for range viewers {
		select {
		case d := <-ended:
			all = append(all, d.Round(10*time.Millisecond))
		case <-deadline:
			t.Fatalf("%d of %d viewers were told within %v: %v", len(all), len(viewers), patience, all)
		}
	}
	slices.Sort(all)
	return all
}

// When the origin dies, nobody takes a copy for the stream: all viewers are
// told at one time, whatever their depth, and no new one is let in meanwhile.
func TestOriginDies(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	m := newMesh(t)
	nodes, viewers := chain(t, m, 5, "demo", func(c *Config) { c.Grace = always(grace) })
	died := time.Now()
	nodes[0].crash()
	eventually(t, "the relay is an orphan", func() bool { return nodes[2].saw(event.StreamOrphaned) == 1 })
	_, err := client.View(t.Context(), client.ViewConfig{URL: nodes[2].web.URL + "/whep/demo"})
	var refused *client.Refused
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.RetryAfter == 0 || !strings.Contains(refused.Body, "orphan") {
		t.Errorf("a new viewer of an orphan = %v, want 503 that says so, with Retry-After", err)
	}
	at := closings(t, died, viewers)
	t.Logf("viewers told after %v", at)
	if spread := at[len(at)-1] - at[0]; spread > grace/2 { // level by level it is three times the grace
		t.Errorf("viewers were told after %v: %v apart", at, spread)
	}
}

// claims makes every node ask the others for a stream's name: a publisher that
// has been silent gives way.
func claims(c *Config, m *mesh) {
	c.Claim = func(_ context.Context, stream string, _ []byte) (func(), error) {
		for _, other := range m.all() {
			if other.id == c.Self || other.isDown() {
				continue
			}
			if _, origin := other.tree.Here(stream); origin && !other.Clients().Yield(stream, false) {
				return nil, &TakenError{Node: other.id}
			}
		}
		return func() {}, nil
	}
}

// A publisher that fell silent comes back: where it was, at a relay of its
// stream, or at a node that has nothing of it. No viewer's session ends, and none
// sees a break in its numbering.
func TestPublisherComesBack(t *testing.T) {
	for where, node := range map[string]int{"at the origin": 0, "at a relay": 1, "elsewhere": 3} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			nodes, viewers := chain(t, m, 3, "demo", func(c *Config) { claims(c, m) })
			viewers = append(viewers, nodes[0].watch("demo"))
			nodes = append(nodes, m.add(ledger.Limits{}, func(c *Config) { claims(c, m) }))
			nodes[0].silence()
			var back *client.Publisher
			eventually(t, "the silent publisher gives way", func() (ok bool) {
				back, ok = nodes[node].tryPublish("demo")
				return ok
			})
			for _, v := range viewers {
				flows(t, v, 15)
			}
			eventually(t, "the tree hangs on the node of the publisher", func() bool {
				for _, n := range nodes[:3] {
					c, ok := n.carriage("demo")
					if !ok || c.Path[0] != nodes[node].id || c.State != capacity.Live {
						return false
					}
				}
				return true
			})
			// DELETE ends it for all.
			if err := back.Close(); err != nil {
				t.Error(err)
			}
			closings(t, time.Now(), viewers)
		})
	}
}

// A relay that drains is left by its children before it goes: none of their
// viewers loses a packet or sees a picture that it cannot decode. It takes no
// other children, and its own viewers stay.
func TestRelayDrains(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	nodes, viewers := chain(t, m, 4, "demo", nil)
	late := m.add(ledger.Limits{}, func(c *Config) { c.RoomWait = time.Millisecond })
	for _, v := range viewers {
		flows(t, v, 30)
	}
	drains := nodes[1]
	drains.SetDraining(true)
	eventually(t, "the child has moved", func() bool { c, _ := nodes[2].carriage("demo"); return c.Parent == nodes[0].id })
	eventually(t, "nobody pulls from it", func() bool { c, _ := drains.carriage("demo"); return c.Children == 0 })
	for i, v := range viewers {
		flows(t, v, 60)
		s := v.Stats()
		if s.Lost != 0 {
			t.Errorf("viewer %d: %d packets lost", i, s.Lost)
		}
		for _, tr := range s.Tracks {
			t.Logf("viewer %d, %s: longest gap %v", i, tr.Kind, tr.LongestGap)
		}
	}
	if n := nodes[2].saw(event.PullMoved); n != 1 || nodes[2].saw(event.PullLost) != 0 || nodes[3].saw(event.PullMoved) != 0 {
		t.Errorf("moved %d times, lost %d", n, nodes[2].saw(event.PullLost))
	}
	m.set(func(_ string, exclude []peer.ID) []peer.ID { return without(exclude, drains.id) })
	_, err := client.View(t.Context(), client.ViewConfig{URL: late.web.URL + "/whep/demo"})
	if refused := new(client.Refused); !errors.As(err, &refused) || !strings.Contains(refused.Body, "about to go") {
		t.Errorf("a new child of a relay that drains: %v", err)
	}
}
