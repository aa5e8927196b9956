package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht"
	"weir/dht/inspect"
)

// A full node places publishers while nearly a third of all processes are
// stopped, and again right after every holder of its key was killed.
func TestPlacementOutlivesItsHoldersTimed(t *testing.T) {
	w := up(t, 14, only(1, "--session-limit", "1"))
	full := w.n(1)
	publish(t, full.whip("own"))

	placed := func(what, stream string) (took time.Duration) {
		t.Helper()
		p := publish(t, full.whip(stream))
		if full.serves(p.NodeURL()) {
			t.Fatalf("%s: the full node took the publisher itself", what)
		}
		d := full.decisions(t)
		i := slices.IndexFunc(d, func(d dht.Decision) bool { return d.Topic == dht.CapacityTopic() && d.Chosen != "" })
		if i < 0 {
			t.Fatalf("%s: no decision is told of", what)
		}
		for _, n := range w.Nodes() {
			if n.PeerID == d[i].Chosen && !w.Alive(n.Name) {
				t.Errorf("%s: placed on %s, which is dead", what, n.Name)
			}
		}
		return time.Duration(d[i].TotalMillis * float64(time.Millisecond))
	}
	placed("all well", "a")

	stopped := []string{"n5", "n8", "n11", "n14"}
	for _, name := range stopped {
		if err := w.Pause(name); err != nil {
			t.Fatal(err)
		}
	}
	var took []time.Duration
	for _, stream := range []string{"b", "c", "d", "e", "f"} {
		took = append(took, placed("4 of 14 stopped", stream))
	}
	inTime(t, "placements with 4 of 14 stopped", time.Second, took)
	for _, name := range stopped {
		if err := w.Resume(name); err != nil {
			t.Fatal(err)
		}
	}

	var holders []peer.ID
	for _, p := range ask[[]inspect.PeerInfo](t, full, "/peers") {
		if p.Holder {
			holders = append(holders, p.ID)
		}
	}
	if len(holders) < 7 {
		t.Fatalf("%d holders", len(holders))
	}
	for _, n := range w.Nodes() {
		if slices.Contains(holders, n.PeerID) {
			if err := w.Kill(n.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	within(t, 5*time.Second, "publishers are placed again", func() bool {
		p, err := tryPublish(t, full.whip("g"))
		return err == nil && !full.serves(p.NodeURL())
	})
}
