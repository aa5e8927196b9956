package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"weir/capacity/scope"
	"weir/dht/dhttest"
	"weir/dht/pb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A testNode is an overlay on loopback that echoes fetches over its members'
// protocol.
type testNode struct {
	*Overlay
	stop func()
}

func newTestNode(t testing.TB, change func(*Config)) *testNode {
	t.Helper()
	cfg := Config{
		Key: dhttest.Key(t), Network: "test", Prefix: "/weir/test",
		Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"), multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")},
		Gate:   scope.NewGate(nil, false), Uses: []scope.Use{scope.Dial},
	}
	if change != nil {
		change(&cfg)
	}
	cfg.Member = cfg.Prefix + "/records/1"
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{Overlay: o}
	n.Serve(cfg.Member, Handler(n.Server, 1024, &pb.Fetch{}, func(_ context.Context, _ peer.ID, req *pb.Fetch) *pb.Fetch { return req }))
	n.stop = sync.OnceFunc(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { n.stop() })
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	return n
}

// run runs the node until it is stopped.
func (n *testNode) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	closes := n.stop
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		closes()
	})
}

func (n *testNode) info() peer.AddrInfo { return peer.AddrInfo{ID: n.ID(), Addrs: n.Host.Addrs()} }

// meets fails unless n learns of m.
func (n *testNode) meets(t testing.TB, m *testNode) {
	t.Helper()
	dhttest.Eventually(t, func() error {
		if n.Peers.Connected(m.ID()) && n.Peers.Member(m.ID()) {
			return nil
		}
		return fmt.Errorf("%s has not met %s", n.ID(), m.ID())
	})
}

// A peer answers a call, and its cost is counted; a missing peer is
// unreachable.
func TestCall(t *testing.T) {
	t.Parallel()
	a, b := newTestNode(t, nil), newTestNode(t, nil)
	a.Peers.Learn(b.ID(), b.Host.Addrs())
	ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
	defer cancel()
	req, resp := &pb.Fetch{Topic: "stream/a", Max: 3}, &pb.Fetch{}
	if _, spent, err := a.Call(ctx, b.ID(), b.cfg.Member, req, resp, 1024); err != nil || !proto.Equal(req, resp) || spent.Messages != 2 {
		t.Fatalf("answered %v for %+v, %v", resp, spent, err)
	}
	rtt, spent, err := a.Call(ctx, b.ID(), b.cfg.Member, req, resp, 1024)
	if want := 2 * CostOf(b.cfg.Member, req).Bytes; err != nil || rtt <= 0 || spent.Bytes != want {
		t.Errorf("over a connection: %v, %d bytes, want %d, %v", rtt, spent.Bytes, want, err)
	}
	if n := a.Calls(b.ID()); n != 0 {
		t.Errorf("%d calls are under way", n)
	}
	nobody := dhttest.ID(t, dhttest.Key(t))
	a.Peers.Learn(nobody, dhttest.FixedPorts(t)[:1]) // TCP reports it at once
	_, _, err = a.Call(ctx, nobody, b.cfg.Member, req, resp, 1024)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("to nobody: %v", err)
	}
	a.Peers.Failed(nobody, err)
	if !a.Peers.Live.Down(time.Now(), nobody) {
		t.Error("a peer that cannot be reached is not down")
	}
}

// A request that comes while all places are taken is answered by busy.
func TestInboundLimit(t *testing.T) {
	var l InboundLimit
	for i := range MaxServedPeer {
		if !l.Enter("a", false) {
			t.Fatalf("no place for request %d", i)
		}
	}
	if l.Enter("a", false) {
		t.Error("a request too many of one peer")
	}
	if !l.Enter("b", false) || !l.Enter("a", true) {
		t.Error("no place for another peer, or for a watch")
	}
	l.Leave("a", false)
	if !l.Enter("a", false) {
		t.Error("a place given back is not there")
	}
	if requests, peers := l.Served(); requests != MaxServedPeer+1 || peers != 3 {
		t.Errorf("%d requests, %d peers", requests, peers)
	}
}

// A bootstrap peer that is down at first is found when it comes up; another one
// that never comes up does not matter. A node that is cut off rejoins by itself
// when the bootstrap peer is back.
func TestJoinAndRejoin(t *testing.T) {
	t.Parallel()
	ports, key := dhttest.FixedPorts(t), dhttest.Key(t)
	never := peer.AddrInfo{ID: dhttest.ID(t, dhttest.Key(t)), Addrs: dhttest.FixedPorts(t)}
	early := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{never, {ID: dhttest.ID(t, key), Addrs: ports}} })
	early.run(t)
	select {
	case <-early.Tried():
	case <-time.After(dhttest.Patience):
		t.Fatal("not everything is tried")
	}
	if !early.Peers.Alone() {
		t.Error("it is not alone")
	}
	for range 2 { // the second time with the same identity, but without memory
		late := newTestNode(t, func(c *Config) { c.Key, c.Listen = key, ports })
		late.run(t)
		early.meets(t, late)
		late.meets(t, early)
		late.stop()
	}
}

// After a restart, remembered peers suffice to join.
func TestRememberedPeersSuffice(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil { // costs the peers in it, and nothing else
		t.Fatal(err)
	}
	first := newTestNode(t, nil)
	second := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{first.info()} })
	key := dhttest.Key(t)
	before := newTestNode(t, func(c *Config) {
		c.Key, c.PeerFile = key, file
		c.Bootstrap = []peer.AddrInfo{first.info(), second.info()}
	})
	for _, n := range []*testNode{first, second, before} {
		n.run(t)
	}
	before.meets(t, first)
	before.meets(t, second)
	before.stop()
	remembered, err := ReadPeerFile(file)
	if err != nil || len(remembered) != 2 {
		t.Fatalf("remembered %v, %v; want both peers", remembered, err)
	}
	first.stop() // the bootstrap peer is gone for good
	after := newTestNode(t, func(c *Config) { c.Key, c.PeerFile = key, file })
	after.run(t)
	after.meets(t, second)
}
