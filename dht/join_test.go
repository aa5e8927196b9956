package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"weir/capacity"
	"weir/dht/dhttest"
	"weir/dht/overlay"
)

func TestBusyPortIsAnError(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, busy := range []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udp.LocalAddr().(*net.UDPAddr).Port),
	} {
		// The other address is fine; that must not hide it.
		free := multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")
		n, err := Listen(Config{Key: dhttest.Key(t), Network: "test", Listen: []multiaddr.Multiaddr{free, multiaddr.StringCast(busy)}})
		if err == nil {
			n.Close()
			t.Fatalf("listening on %s, which is taken", busy)
		}
		if !strings.Contains(err.Error(), busy) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error %q, want the address and the reason", err)
		}
	}
	first, err := Listen(Config{Key: dhttest.Key(t), Network: "test", Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(Config{Key: dhttest.Key(t), Network: "test", Listen: first.Overlay.Host.Addrs()})
	if err == nil {
		second.Close()
		t.Errorf("two nodes listen on %v", first.Overlay.Host.Addrs())
	}
	if _, err := Listen(Config{Network: "test"}); err == nil {
		t.Error("a node without a key")
	}
}

// A bootstrap peer that is down at first is found when it comes up; another one
// that never comes up does not matter.
func TestBootstrapPeerComesUpLater(t *testing.T) {
	t.Parallel()
	ports, key := dhttest.FixedPorts(t), dhttest.Key(t)
	never := peer.AddrInfo{ID: dhttest.ID(t, dhttest.Key(t)), Addrs: dhttest.FixedPorts(t)}
	early := newTestNode(t, func(c *Config) {
		c.Bootstrap = []peer.AddrInfo{never, {ID: dhttest.ID(t, key), Addrs: ports}}
	})
	early.run(t)
	early.awaitReady(t) // alone, after one attempt
	if a, err := early.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil); err != nil || len(a.Candidates) != 0 {
		t.Errorf("alone, Find = %d candidates, %v", len(a.Candidates), err)
	}
	late := newTestNode(t, func(c *Config) {
		c.Key, c.Listen = key, ports
		c.Bootstrap = []peer.AddrInfo{{ID: dhttest.ID(t, key), Addrs: ports}} // itself: skipped
	})
	late.run(t)
	both := []*testNode{early, late}
	for _, n := range both {
		dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), both) })
	}
}

// A node that is cut off rejoins by itself when the bootstrap peer restarts
// under the same address, with all memory lost.
func TestRejoinAfterBootstrapPeerRestarts(t *testing.T) {
	t.Parallel()
	ports, key := dhttest.FixedPorts(t), dhttest.Key(t)
	first := newTestNode(t, func(c *Config) { c.Key, c.Listen = key, ports })
	first.run(t)
	n := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{first.info()} })
	n.run(t)
	dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), []*testNode{first}) })
	first.stop()
	second := newTestNode(t, func(c *Config) { c.Key, c.Listen = key, ports })
	second.run(t)
	dhttest.Eventually(t, func() error { return second.sees(CapacityTopic(), []*testNode{n}) })
	dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), []*testNode{second}) })
}

// After a restart, remembered peers suffice to join.
func TestRememberedPeersSuffice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "peers.json")
		nodes := newTestNetwork(t, 2)
		key := dhttest.Key(t)
		before := newTestNode(t, func(c *Config) {
			c.Key, c.PeerFile = key, file
			c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
		})
		before.run(t)
		dhttest.Eventually(t, func() error {
			if got := len(before.peers.Members()); got != len(nodes) {
				return fmt.Errorf("%d members connected", got)
			}
			return nil
		})
		before.stop()

		remembered, err := overlay.ReadPeerFile(file)
		if err != nil || len(remembered) != 2 {
			t.Fatalf("remembered %v, %v; want both peers", remembered, err)
		}
		nodes[0].stop() // the bootstrap peer is gone for good
		after := newTestNode(t, func(c *Config) { c.Key, c.PeerFile = key, file })
		after.run(t)
		after.awaitReady(t)
		dhttest.Eventually(t, func() error { return after.sees(CapacityTopic(), nodes[1:]) })
	})
}

func TestCorruptPeerFileIsSurvived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		nodes := newTestNetwork(t, 1)
		n := newTestNode(t, func(c *Config) {
			c.PeerFile = file
			c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
		})
		n.run(t)
		dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), nodes) })
		n.stop()
		if got, err := overlay.ReadPeerFile(file); err != nil || len(got) != 1 {
			t.Errorf("afterwards: %v, %v", got, err)
		}
	})
}

// Nothing starts after Close, and Close may be called again.
func TestCloseIsFinal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		n := nodes[1]
		n.stop()
		if err := n.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		if n.Overlay.Go(func() { t.Error("started after Close") }) {
			t.Error("start after Close")
		}
		if _, err := n.Seeker.Find(t.Context(), StreamTopic("x"), capacity.Need{}, nil); err != nil && !errors.Is(err, ErrUnanswered) && !errors.Is(err, context.Canceled) {
			t.Logf("Find after Close: %v", err)
		}
		if _, _, err := n.Seeker.Place(t.Context(), CapacityTopic(), capacity.Need{}, nil); err == nil {
			t.Error("Place after Close succeeded")
		}
	})
}

func TestPeersTellsWhoIsConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		dhttest.Eventually(t, func() error {
			peers := nodes[0].Prober.Peers()
			if len(peers) != 2 {
				return fmt.Errorf("%d peers, want 2", len(peers))
			}
			for _, p := range peers {
				if !p.Connected || !p.Holder || p.RTT <= 0 || p.Transport == "" || p.Direction == "" || p.Since.IsZero() || len(p.Addrs) == 0 {
					return fmt.Errorf("incomplete: %+v", p)
				}
				if time.Since(p.Since) > dhttest.Patience {
					return fmt.Errorf("connected since %v", p.Since)
				}
			}
			return nil
		})
		var records overlay.Usage
		for _, tr := range nodes[0].Overlay.Traffic.List() {
			if tr.Protocol == string(nodes[0].protocols.records) {
				records = tr
			}
		}
		if records.MessagesIn == 0 || records.MessagesOut == 0 || records.BytesIn == 0 || records.BytesOut == 0 {
			t.Errorf("traffic %+v", records)
		}
	})
}

func TestParseBootstrap(t *testing.T) {
	id := dhttest.ID(t, dhttest.Key(t)).String()
	cases := []struct{ name, in, want string }{
		{"a full address", "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/" + id, ""},
		{"a name", "/dns4/example.org/tcp/4001/p2p/" + id, ""},
		{"without peer ID", "/ip4/192.0.2.1/tcp/4001", "append /p2p/"},
		{"without address", "/p2p/" + id, "not where"},
		{"host and port", "192.0.2.1:4001", "not a multiaddr"},
		{"nothing", "", "not a multiaddr"},
		{"half an ID", "/ip4/192.0.2.1/tcp/4001/p2p/" + id[:20], "not a multiaddr"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ai, err := ParseBootstrap(c.in)
			if c.want == "" {
				if err != nil || ai.ID.String() != id || len(ai.Addrs) != 1 {
					t.Errorf("got %v, %v", ai, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", c.in)) {
				t.Errorf("error %v, want %q in it, and the address", err, c.want)
			}
		})
	}
}

// Three nodes that share one name, which resolves to the addresses of all
// three, become one network; the first, which came up alone, resolves it again.
func TestSeedsSuffice(t *testing.T) {
	t.Parallel()
	ports := [3][]multiaddr.Multiaddr{dhttest.FixedPorts(t), dhttest.FixedPorts(t), dhttest.FixedPorts(t)}
	var seeds []overlay.Seed
	for _, p := range ports {
		na, err := manet.ToNetAddr(p[0])
		if err != nil {
			t.Fatal(err)
		}
		port := na.(*net.TCPAddr).AddrPort().Port()
		seeds = append(seeds, overlay.Seed{Host: "localhost", Port: port})
	}
	var nodes []*testNode
	for i := range ports {
		n := newTestNode(t, func(c *Config) { c.Listen, c.Seeds = ports[i], seeds })
		n.run(t)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), nodes) })
	}
}
