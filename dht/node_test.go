package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/dht/dhttest"
	"weir/dht/dhttest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testHome is where nodes without a region publish.
var testHome = ShardTopic("", "")

// testLog is silent unless WEIR_TEST_LOG is set.
func testLog(name string) *slog.Logger {
	if os.Getenv("WEIR_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	h := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(h).With("node", name)
}

// A testNode is a node on loopback with a ledger of its own.
type testNode struct {
	*Node
	key    crypto.PrivKey
	ledger *ledger.Ledger
	region string

	mu       sync.Mutex
	features []string
	streams  []capacity.StreamInfo
	yield    func(stream string, same bool) bool // nil: no publisher gives way

	stop func()
}

// yields decides whether publishers of the node give way.
func (n *testNode) yields(f func(stream string, same bool) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.yield = f
}

// carry makes the node publish itself as the origin of exactly these streams.
func (n *testNode) carry(names ...string) {
	n.mu.Lock()
	n.streams = nil
	for _, name := range names {
		n.streams = append(n.streams, capacity.StreamInfo{Stream: name, Origin: true, Path: []peer.ID{n.ID()}})
	}
	n.mu.Unlock()
	n.Publisher.Kick()
}

func (n *testNode) sample() (capacity.Record, []capacity.StreamInfo) {
	totals := n.ledger.Totals(time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	r := capacity.Record{
		URL:      "http://127.0.0.1:8080",
		State:    totals.State,
		Region:   n.region,
		Features: n.features,
		Sessions: capacity.Usage{Used: int64(totals.Sessions), Limit: 10},
	}
	return r, append([]capacity.StreamInfo(nil), n.streams...)
}

// Host is the libp2p host below the node.
func (n *testNode) Host() host.Host { return n.Overlay.Host }

func (n *testNode) info() peer.AddrInfo { return peer.AddrInfo{ID: n.ID(), Addrs: n.Host().Addrs()} }

// wires are the networks of the tests in bubbles, *wire.Wire by testing.TB.
var wires sync.Map

// bubble runs f in a bubble of its own: its nodes are on a wire, and time passes
// when all of them wait. A busy machine makes none of them late.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := wire.New(1, 0, 0)
		wires.Store(t, w)
		t.Cleanup(func() {
			w.Close()
			wires.Delete(t)
		})
		f(t)
	})
}

// listen is where a test's hosts listen: on the wire of its bubble, or else on
// loopback.
func listen(t testing.TB) (addrs []multiaddr.Multiaddr, options []libp2p.Option) {
	addrs = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}
	if w, ok := wires.Load(t); ok {
		return addrs, []libp2p.Option{w.(*wire.Wire).Host(wire.Apart(time.Millisecond), nil)}
	}
	return append(addrs, multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")), nil
}

// newTestNode makes a node that listens but does not run yet.
func newTestNode(t testing.TB, change func(*Config)) *testNode {
	t.Helper()
	n := &testNode{key: dhttest.Key(t), region: "test"}
	addrs, options := listen(t)
	cfg := Config{
		Key:     n.key,
		Network: "test",
		Listen:  addrs,
		Libp2p:  options,
		Sample:  n.sample,
		Yield: func(stream string, same bool) bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.yield != nil && n.yield(stream, same)
		},
		Grant: func(req capacity.Request) (capacity.Lease, error) {
			return n.ledger.Reserve(time.Now(), req)
		},
		Release: func(from peer.ID, id string) { n.ledger.Release(from, id) },
	}
	if change != nil {
		change(&cfg)
	}
	n.key = cfg.Key
	if cfg.Log == nil {
		cfg.Log = testLog(dhttest.ID(t, cfg.Key).ShortString())
	}
	n.ledger = ledger.New(dhttest.ID(t, cfg.Key), ledger.Limits{Sessions: 10})
	node, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Node = node
	n.stop = sync.OnceFunc(func() {
		if err := node.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// run runs the node until the test ends or stop is called.
func (n *testNode) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	closeNode := n.stop
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want the context's error", err)
		}
		closeNode()
	})
	t.Cleanup(n.stop)
}

func (n *testNode) awaitReady(t testing.TB) {
	t.Helper()
	select {
	case <-n.Ready():
	case <-time.After(dhttest.Patience):
		t.Fatalf("%s is not ready after %v", n.ID(), dhttest.Patience)
	}
}

// newTestNetwork runs size nodes, the first of which is the bootstrap peer of
// the others, and waits until all see each other's records.
func newTestNetwork(t testing.TB, size int) []*testNode {
	t.Helper()
	return newTestNetworkOf(t, size, func(int, *testNode) {}, nil)
}

// newTestNetworkOf is newTestNetwork of nodes that differ.
func newTestNetworkOf(t testing.TB, size int, each func(i int, n *testNode), change func(*Config)) []*testNode {
	t.Helper()
	nodes := joinTestNetwork(t, size, each, change)
	for _, n := range nodes {
		dhttest.Eventually(t, func() error { return n.sees(CapacityTopic(), nodes) })
	}
	return nodes
}

// joinTestNetwork is newTestNetworkOf that waits only until all have joined.
func joinTestNetwork(t testing.TB, size int, each func(i int, n *testNode), change func(*Config)) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := range size {
		n := newTestNode(t, func(c *Config) {
			if len(nodes) > 0 {
				c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
			}
			if change != nil {
				change(c)
			}
		})
		each(i, n)
		n.run(t)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.awaitReady(t)
	}
	return nodes
}

// inspect returns the number of nodes whose records a snapshot shows.
func (n *testNode) inspect(t testing.TB) int {
	t.Helper()
	changes, err := n.Reader.Snapshot(t.Context(), CapacityTopic())
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[peer.ID]bool)
	for _, c := range changes {
		seen[c.Node] = true
	}
	return len(seen)
}

// sees returns an error that names the nodes whose records a query from n
// misses.
func (n *testNode) sees(topic Topic, nodes []*testNode) error {
	a, err := n.Seeker.Find(context.Background(), topic, capacity.Need{Purpose: capacity.View}, nil)
	if err != nil {
		return err
	}
	seen := make(map[peer.ID]bool)
	for _, c := range a.Candidates {
		seen[c.Record.Node] = true
	}
	for _, m := range nodes {
		if m != n && !seen[m.ID()] {
			return fmt.Errorf("%s misses the record of %s: %d candidates, %d held", n.ID(), m.ID(), len(a.Candidates), a.Held)
		}
	}
	return nil
}

func TestRecordsBecomeVisibleEverywhere(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 5, 10} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				start := time.Now()
				nodes := newTestNetwork(t, size)
				t.Logf("all see all after %v", time.Since(start).Round(time.Millisecond))

				start = time.Now()
				nodes[0].carry("studio/one")
				for _, n := range nodes {
					dhttest.Eventually(t, func() error { return n.sees(StreamTopic("studio/one"), nodes[:1]) })
				}
				t.Logf("a new stream is found from everywhere after %v", time.Since(start).Round(time.Millisecond))
			})
		})
	}
}

// Clocks that are wrong by minutes, one ahead and one behind, do not keep nodes
// apart.
func TestClocksThatDisagree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		offsets := []time.Duration{0, 5 * time.Minute, -5 * time.Minute}
		made := 0
		nodes := newTestNetworkOf(t, 3, func(int, *testNode) {}, func(c *Config) {
			offset := offsets[made]
			made++
			c.ClockOffset = offset
			grant := c.Grant
			c.Grant = func(r capacity.Request) (capacity.Lease, error) {
				l, err := grant(r)
				l.Expires = l.Expires.Add(offset)
				return l, err
			}
		})
		for i, n := range nodes {
			for j, target := range nodes {
				if i == j {
					continue
				}
				exclude := []peer.ID{n.ID(), nodes[3-i-j].ID()}
				placed, d, err := n.Seeker.Place(t.Context(), CapacityTopic(), view(), exclude)
				if err != nil || placed.Lease.Target != target.ID() {
					t.Errorf("a clock %v off places on one %v off: %v (%+v)", offsets[i], offsets[j], err, d)
				}
				for _, v := range d.Verdicts {
					if v.Told && (v.Age < 0 || v.Age > 10_000) {
						t.Errorf("age %v ms: %+v", v.Age, v)
					}
				}
			}
		}
	})
}
