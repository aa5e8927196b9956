package dht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
)

func TestParseBootstrap(t *testing.T) {
	id := idOf(t, newKey(t)).String()
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
		free := addr(t, "/ip4/127.0.0.1/tcp/0")
		n, err := Listen(Config{Key: newKey(t), Network: "test", Listen: []multiaddr.Multiaddr{free, addr(t, busy)}})
		if err == nil {
			n.Close()
			t.Fatalf("listening on %s, which is taken", busy)
		}
		if !strings.Contains(err.Error(), busy) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error %q, want the address and the reason", err)
		}
	}
	first, err := Listen(Config{Key: newKey(t), Network: "test", Listen: []multiaddr.Multiaddr{addr(t, "/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(Config{Key: newKey(t), Network: "test", Listen: first.Host().Addrs()})
	if err == nil {
		second.Close()
		t.Errorf("two nodes listen on %v", first.Host().Addrs())
	}
	if _, err := Listen(Config{Network: "test"}); err == nil {
		t.Error("a node without a key")
	}
}

func TestRealAddrs(t *testing.T) {
	strs := func(as []multiaddr.Multiaddr) (list []string) {
		for _, a := range as {
			list = append(list, a.String())
		}
		return list
	}
	in := []multiaddr.Multiaddr{
		addr(t, "/ip4/127.0.0.1/tcp/1"), addr(t, "/ip4/0.0.0.0/tcp/1"), addr(t, "/ip6/::1/tcp/1"),
		addr(t, "/ip6/fe80::1/tcp/1"), addr(t, "/ip4/192.0.2.1/tcp/1"),
	}
	if got := strs(realAddrs(in)); !slices.Equal(got, []string{"/ip4/192.0.2.1/tcp/1"}) {
		t.Errorf("got %v, want the address others can reach", got)
	}
	if got := strs(realAddrs(in[:2])); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/1"}) {
		t.Errorf("got %v, want loopback for want of better", got)
	}
	public := netip.MustParseAddr("203.0.113.7")
	in = []multiaddr.Multiaddr{
		addr(t, "/ip4/127.0.0.1/tcp/4001"), addr(t, "/ip4/10.0.0.5/tcp/4001"), addr(t, "/ip4/172.17.0.1/tcp/4001"),
		addr(t, "/ip4/10.0.0.5/udp/4001/quic-v1"), addr(t, "/ip6/2001:db8::1/tcp/4001"),
	}
	want := []string{"/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/udp/4001/quic-v1", "/ip6/2001:db8::1/tcp/4001"}
	if got := strs(realAddrs(mapped(in, public))); !slices.Equal(got, want) {
		t.Errorf("behind a NAT: got %v, want %v", got, want)
	}
	if got := strs(realAddrs(mapped(in[:1], public))); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/4001"}) {
		t.Errorf("bound to loopback: got %v", got)
	}
}

// at returns what makes a node with that key listen on ports that are free now
// and stay the same.
func fixedPorts(t *testing.T) []multiaddr.Multiaddr {
	t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := tcp.Addr().(*net.TCPAddr).Port
	tcp.Close()
	return []multiaddr.Multiaddr{
		addr(t, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)),
		addr(t, fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)),
	}
}

// A bootstrap peer that is down at first is found when it comes up; another one
// that never comes up does not matter.
func TestBootstrapPeerComesUpLater(t *testing.T) {
	ports, key := fixedPorts(t), newKey(t)
	never := peer.AddrInfo{ID: idOf(t, newKey(t)), Addrs: fixedPorts(t)}
	early := newTestNode(t, func(c *Config) {
		c.Bootstrap = []peer.AddrInfo{never, {ID: idOf(t, key), Addrs: ports}}
	})
	early.run(t)
	early.awaitReady(t) // alone, after one attempt
	if a, err := early.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil); err != nil || len(a.Candidates) != 0 {
		t.Errorf("alone, Find = %d candidates, %v", len(a.Candidates), err)
	}
	late := newTestNode(t, func(c *Config) {
		c.Key, c.Listen = key, ports
		c.Bootstrap = []peer.AddrInfo{{ID: idOf(t, key), Addrs: ports}} // itself: skipped
	})
	late.run(t)
	both := []*testNode{early, late}
	for _, n := range both {
		eventually(t, func() error { return n.sees(CapacityTopic(), both) })
	}
}

// A node that is cut off comes back by itself when the bootstrap peer does,
// under the same address but with all memory lost.
func TestRejoinAfterBootstrapPeerRestarts(t *testing.T) {
	ports, key := fixedPorts(t), newKey(t)
	first := newTestNode(t, func(c *Config) { c.Key, c.Listen = key, ports })
	first.run(t)
	n := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{first.info()} })
	n.run(t)
	eventually(t, func() error { return n.sees(CapacityTopic(), []*testNode{first}) })
	first.stop()
	second := newTestNode(t, func(c *Config) { c.Key, c.Listen = key, ports })
	second.run(t)
	eventually(t, func() error { return second.sees(CapacityTopic(), []*testNode{n}) })
	eventually(t, func() error { return n.sees(CapacityTopic(), []*testNode{second}) })
}

// After a restart, remembered peers suffice.
func TestRememberedPeersSuffice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	nodes := newTestNetwork(t, 2)
	key := newKey(t)
	before := newTestNode(t, func(c *Config) {
		c.Key, c.PeerFile = key, file
		c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
	})
	before.run(t)
	eventually(t, func() error {
		if got := len(before.members()); got != len(nodes) {
			return fmt.Errorf("%d members connected", got)
		}
		return nil
	})
	before.stop()

	remembered, err := readPeerFile(file)
	if err != nil || len(remembered) != 2 {
		t.Fatalf("remembered %v, %v; want both peers", remembered, err)
	}
	nodes[0].stop() // the bootstrap peer is gone for good
	after := newTestNode(t, func(c *Config) { c.Key, c.PeerFile = key, file })
	after.run(t)
	after.awaitReady(t)
	eventually(t, func() error { return after.sees(CapacityTopic(), nodes[1:]) })
}

func TestPeerFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "peers.json")
	if got, err := readPeerFile(path); err != nil || got != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	if got, err := readPeerFile(""); err != nil || got != nil {
		t.Errorf("no path: %v, %v", got, err)
	}
	var peers []peer.AddrInfo
	for range maxRemembered + 5 {
		peers = append(peers, peer.AddrInfo{ID: idOf(t, newKey(t)), Addrs: slices.Repeat([]multiaddr.Multiaddr{addr(t, "/ip4/192.0.2.1/tcp/1")}, 12)})
	}
	peers[3].Addrs = nil
	if err := writePeerFile(path, mergePeers(peers, peers[:10])); err != nil {
		t.Fatal(err)
	}
	got, err := readPeerFile(path)
	if err != nil || len(got) != maxRemembered || got[0].ID != peers[0].ID || got[3].ID != peers[4].ID || len(got[0].Addrs) != maxPeerAddrs {
		t.Errorf("%d peers, %v", len(got), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files, want the peer file only", len(left))
	}
	for _, bad := range []string{"", "{", `{"peers":[{"id":"x"}]}`, `{"peers":[{"id":"` + peers[0].ID.String() + `","addrs":["x"]}]}`, strings.Repeat(" ", maxPeerFile+1)} {
		if _, err := parsePeerFile([]byte(bad)); err == nil {
			t.Errorf("%.60q was read", bad)
		}
	}
}

// A peer file that cannot be read costs the peers in it and nothing else.
// A data directory that cannot be written to is told of once, not every ten
// seconds, and when that changes.
func TestPeerFileThatCannotBeWritten(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "absent")
	k := peerKeeper{path: filepath.Join(dir, "peers.json"), log: slog.New(slog.NewTextHandler(&log, nil))}
	peers := func(port int) []peer.AddrInfo {
		return []peer.AddrInfo{{ID: idOf(t, newKey(t)), Addrs: []multiaddr.Multiaddr{addr(t, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port))}}}
	}
	said := func(want int, words string) {
		t.Helper()
		if got := strings.Count(log.String(), "\n"); got != want || !strings.Contains(log.String(), words) {
			t.Fatalf("%d lines, want %d with %q:\n%s", got, want, words, &log)
		}
	}
	for i := range 3 {
		k.keep(peers(1 + i))
	}
	said(1, "no such file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.keep(peers(1))
	k.keep(peers(2))
	said(2, "not a directory")
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	k.keep(peers(1))
	k.keep(peers(2))
	said(3, "remembered again")
}

func TestCorruptPeerFileIsSurvived(t *testing.T) {
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
	eventually(t, func() error { return n.sees(CapacityTopic(), nodes) })
	n.stop()
	if got, err := readPeerFile(file); err != nil || len(got) != 1 {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}

func FuzzParsePeerFile(f *testing.F) {
	id := idOf(f, newKey(f))
	f.Add([]byte(`{"peers":[{"id":"` + id.String() + `","addrs":["/ip4/127.0.0.1/tcp/1"]}]}`))
	f.Add([]byte(`{"peers":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := parsePeerFile(b)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "p")
		if err := writePeerFile(path, peers); err != nil {
			t.Fatal(err)
		}
		again, err := readPeerFile(path)
		if err != nil || !slices.EqualFunc(peers, again, samePeer) {
			t.Fatalf("%v became %v, %v", peers, again, err)
		}
	})
}

// Nothing starts after Close, and Close may be called again.
func TestCloseIsFinal(t *testing.T) {
	nodes := newTestNetwork(t, 2)
	n := nodes[1]
	n.stop()
	if err := n.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if n.start(func() { t.Error("started after Close") }) {
		t.Error("start after Close")
	}
	if _, err := n.Find(t.Context(), StreamTopic("x"), capacity.Need{}, nil); err != nil && !errors.Is(err, ErrNoHolders) && !errors.Is(err, context.Canceled) {
		t.Logf("Find after Close: %v", err)
	}
	if _, _, err := n.Place(t.Context(), CapacityTopic(), capacity.Need{}, nil); err == nil {
		t.Error("Place after Close succeeded")
	}
}

func TestPeersTellsWhoIsConnected(t *testing.T) {
	nodes := newTestNetwork(t, 3)
	eventually(t, func() error {
		peers := nodes[0].Peers()
		if len(peers) != 2 {
			return fmt.Errorf("%d peers, want 2", len(peers))
		}
		for _, p := range peers {
			if !p.Connected || !p.Holder || p.RTT <= 0 || p.Transport == "" || p.Direction == "" || p.Since.IsZero() || len(p.Addrs) == 0 {
				return fmt.Errorf("incomplete: %+v", p)
			}
			if time.Since(p.Since) > patience {
				return fmt.Errorf("connected since %v", p.Since)
			}
		}
		return nil
	})
	var records Traffic
	for _, tr := range nodes[0].Traffic() {
		if tr.Protocol == string(nodes[0].records) {
			records = tr
		}
	}
	if records.MessagesIn == 0 || records.MessagesOut == 0 || records.BytesIn == 0 || records.BytesOut == 0 {
		t.Errorf("traffic %+v", records)
	}
}
