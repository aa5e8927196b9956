package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// When a publisher's node crashes, the publisher may come back on another node
// at once, though the dead node's records still exist; viewers at other nodes
// see only a pause.
func TestPublishersNodeIsKilled(t *testing.T) {
	t.Parallel()
	w := up(t, 4, nil)
	dies, relay, other := w.n(2), w.n(1), w.n(3) // n1 is the bootstrap peer
	w.witness(w.n(4), w.n(4), relay)
	publish(t, dies.whip("demo"))
	relay.finds(t, "demo")
	v := view(t, relay.whep("demo"))
	other.finds(t, "demo")

	if err := w.Kill(dies.Name); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(other.carriers(t, "demo"), dies.PeerID) {
		t.Error("the dead node's record is gone already: this test proves nothing")
	}
	publish(t, other.whip("demo"))
	flows(t, v)
	continuous(t, v)
	if url := v.NodeURL(); !relay.serves(url) || v.Stats().State != "connected" {
		t.Errorf("the viewer is %s at %s", v.Stats().State, url)
	}
	eventually(t, "the relay pulls from the new origin", func() bool {
		for _, l := range relay.links(t) {
			if l.Peer == other.PeerID && slices.Contains(l.PullsIn, "demo") {
				return true
			}
		}
		return false
	})
	eventually(t, "the dead node's records have run out", func() bool {
		return !slices.Contains(relay.carriers(t, "demo"), dies.PeerID) && !slices.Contains(known(t, relay), dies.PeerID)
	})
	// It comes back with the same identity.
	if err := w.Restart(t.Context(), dies.Name); err != nil {
		t.Fatal(err)
	}
	w.see(t)
	flows(t, view(t, w.n(2).whep("demo")))
}

// known lists the nodes whose records n sees.
func known(t *testing.T, n node) []peer.ID {
	t.Helper()
	ids, err := n.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// A relay whose parent dies is served by another carrier.
func TestRelayInTheMiddleIsKilled(t *testing.T) {
	w := up(t, 3, nil)
	origin, middle, edge := w.n(1), w.n(2), w.n(3)
	publish(t, origin.whip("demo"))
	middle.finds(t, "demo")
	view(t, middle.whep("demo"))
	eventually(t, "both carry it", func() bool { return len(edge.carriers(t, "demo")) == 2 })
	v := view(t, edge.whep("demo"))
	w.witness(origin, origin)
	if err := w.Kill(middle.Name); err != nil {
		t.Fatal(err)
	}
	flows(t, v)
	flows(t, v)
	continuous(t, v)
}

// A publisher that dies silently is detected, and its stream ends everywhere.
func TestPublisherVanishes(t *testing.T) {
	t.Parallel()
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	cmd := exec.Command(weir, "publish", "--pattern", "--json", a.whip("demo"))
	cmd.Env = cleanEnv()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	b.finds(t, "demo")
	v := view(t, b.whep("demo"))
	flows(t, v)

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Its name is kept for the time of a possible network interruption.
	if _, err := tryPublish(t, a.whip("demo")); refusal(t, err).Status != http.StatusConflict {
		t.Errorf("before it is given up: %v", err)
	}
	eventually(t, "the publisher's session is reaped", func() bool { return a.status(t).Publishers == 1 })
	eventually(t, "the viewer elsewhere is told", func() bool { return isClosed(v.Done()) })
	eventually(t, "nobody carries the stream", func() bool { return len(a.carriers(t, "demo"))+len(b.carriers(t, "demo")) == 0 })
	eventually(t, "the viewer's session has ended", func() bool { return b.status(t).Viewers == 1 })

	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	flows(t, view(t, b.whep("demo")))
}

// A viewer that dies silently is detected, too.
func TestViewerVanishes(t *testing.T) {
	t.Parallel()
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	cmd := exec.Command(weir, "view", "--json", b.whep("witness"))
	cmd.Env = cleanEnv()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	eventually(t, "it is connected", func() bool {
		connected := 0
		for _, s := range b.sessions(t) {
			if s.State == "connected" && s.Packets > 0 {
				connected++
			}
		}
		return connected == 2
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its session is reaped", func() bool { return b.status(t).Viewers == 1 })
}

// A network outlives its bootstrap peer, which can rejoin it.
func TestBootstrapPeerIsKilled(t *testing.T) {
	t.Parallel()
	w := up(t, 4, only(1, "--listen", "/ip4/127.0.0.1/tcp/"+port(t, freePort(t))))
	first, second, third, fourth := w.n(1), w.n(2), w.n(3), w.n(4)
	w.witness(third, third, fourth)
	for _, n := range []node{first, second} {
		eventually(t, n.Name+" has written down whom it met", func() bool {
			_, err := os.Stat(filepath.Join(n.Dir, "peers.json"))
			return err == nil
		})
	}
	if err := w.Kill(first.Name); err != nil {
		t.Fatal(err)
	}
	// A node whose only --bootstrap is dead rejoins by its remembered peers.
	if err := w.Restart(t.Context(), second.Name); err != nil {
		t.Fatal(err)
	}
	w.see(t)
	third.finds(t, "witness")
	flows(t, view(t, w.n(2).whep("witness")))

	if err := w.Restart(t.Context(), first.Name); err != nil {
		t.Fatal(err)
	}
	w.see(t)
	if again := w.n(1); again.PeerID != first.PeerID {
		t.Errorf("it came back as %s, was %s", again.PeerID, first.PeerID)
	}
	flows(t, view(t, w.n(1).whep("witness")))
}
