package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/pb"
)

// A serverList is the list of servers that nodes are configured with; it may
// change.
type serverList struct {
	mu   sync.Mutex
	list []peer.AddrInfo
}

func (l *serverList) add(nodes ...*testNode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range nodes {
		l.list = append(l.list, n.info())
	}
}

func (l *serverList) get() []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// newListedNetwork runs nodes, of which the first listed are on the list.
func newListedNetwork(t *testing.T, mode directory.Mode, size, listed int) ([]*testNode, *serverList) {
	t.Helper()
	list := &serverList{}
	nodes := newTestNetworkOf(t, size, func(i int, n *testNode) {
		if i < listed {
			list.add(n)
		}
	}, func(c *Config) { c.Discovery, c.Servers = mode, list.get })
	return nodes, list
}

// Placement works the same in every discovery mode.
func TestEveryHoldingPlaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode         directory.Mode
		size, listed int
		holders      int // remote holders, as seen by a node that is none
	}{
		{directory.Broker, 12, 1, 1},
		{directory.Broker, 12, 3, 3},
		{directory.Pull, 12, 12, 0},
		{directory.Push, 12, 12, 11},
	} {
		t.Run(fmt.Sprintf("%s, %d listed", c.mode, c.listed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes, list := newListedNetwork(t, c.mode, c.size, c.listed)
				for _, n := range []*testNode{nodes[0], nodes[c.size-1]} {
					placed, d, err := n.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{n.ID()})
					if err != nil {
						t.Fatalf("place: %v (%+v)", err, d)
					}
					n.Seeker.ReleaseLease(t.Context(), placed.Lease)
					if placed.Lease.Target == n.ID() || placed.Lease.Target != placed.Candidate.Record.Node {
						t.Errorf("placed on %s: %+v", placed.Lease.Target, d)
					}
					if d.Held < c.size-1 {
						t.Errorf("%d of %d held: %+v", d.Held, c.size, d)
					}
				}
				last := nodes[c.size-1]
				if h, _ := last.dir.Holders(time.Now(), CapacityTopic()); len(h.Remote) != c.holders {
					t.Errorf("%d remote holders, want %d", len(h.Remote), c.holders)
				}

				// A stream is found and withdrawn the same way.
				nodes[1].carry("demo")
				dhttest.Eventually(t, func() error { return last.sees(StreamTopic("demo"), nodes[1:2]) })
				nodes[1].carry()
				dhttest.Eventually(t, func() error {
					a, err := last.Seeker.Find(t.Context(), StreamTopic("demo"), capacity.Need{}, nil)
					if err == nil && len(a.Candidates) > 0 {
						err = errors.New("still found")
					}
					return err
				})

				// Inspection sees every record.
				if seen := last.inspect(t); seen != c.size {
					t.Errorf("%d of %d records are seen", seen, c.size)
				}

				// A node added to the list later takes part.
				if c.mode != directory.Broker {
					late := newTestNode(t, func(cfg *Config) {
						cfg.Bootstrap = []peer.AddrInfo{nodes[0].info()}
						cfg.Discovery, cfg.Servers = c.mode, list.get
					})
					late.run(t)
					late.awaitReady(t)
					list.add(late)
					dhttest.Eventually(t, func() error { return last.sees(CapacityTopic(), []*testNode{late}) })
					dhttest.Eventually(t, func() error { return late.sees(CapacityTopic(), nodes) })
				}
			})
		})
	}
}

// Seekers do not notice the death of a broker.
func TestBrokersDeathIsUnnoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes, _ := newListedNetwork(t, directory.Broker, 8, 3)
		seeker := nodes[7]
		dead := nodes[1]
		if err := dead.Host().Close(); err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for range 20 {
			placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID(), dead.ID()})
			if err != nil {
				t.Fatalf("Place: %v (%+v)", err, d)
			}
			took = append(took, d.Elapsed)
			seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
		}
		notDelayed(t, took)
	})
}

// In pull mode, a hanging node delays a search by no more than the answering
// nodes need.
func TestAskingEveryoneWaitsForNoOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes, list := newListedNetwork(t, directory.Pull, 6, 6)
		stuck := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: hang})
		list.mu.Lock()
		list.list = append(list.list, peer.AddrInfo{ID: stuck.host.ID(), Addrs: stuck.host.Addrs()})
		list.mu.Unlock()
		dhttest.Eventually(t, func() error {
			a, err := nodes[0].Seeker.Find(t.Context(), CapacityTopic(), view(), nil)
			if err != nil || len(a.Candidates) != 5 || a.Held != 6 { // the node itself is no candidate
				return fmt.Errorf("%d candidates of %d held, %v", len(a.Candidates), a.Held, err)
			}
			if len(awaited(a.Asked, []peer.ID{stuck.host.ID()})) > 0 {
				return fmt.Errorf("the hanging node was waited for: %+v", a.Asked)
			}
			return nil
		})
	})
}

// A node that holds nothing refuses records that others send it as a holder.
func TestWhoIsNoHolderRefusesRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for mode, listed := range map[directory.Mode]int{directory.Broker: 1, directory.Pull: 3} {
			nodes, _ := newListedNetwork(t, mode, 3, listed)
			f := newFake(t, nodes[2].info(), nil)
			resp := f.call(t, nodes[2].ID(), advertisement(&pb.Entry{Topic: string(testHome), Sealed: seal(t, f.record(), f.key)}))
			if got := resp.GetAdvertise().GetResults()[0].Refused; !strings.Contains(got, "discovery mode") {
				t.Errorf("%s: refused with %q", mode, got)
			}
			resp = f.call(t, nodes[2].ID(), &pb.Request{Op: &pb.Request_HandOver{HandOver: &pb.HandOver{Topic: string(testHome)}}})
			if !strings.Contains(resp.Error, "discovery mode") {
				t.Errorf("%s: hand-over answered with %q", mode, resp.Error)
			}
		}
	})
}

func TestUnknownHolding(t *testing.T) {
	if _, err := Listen(Config{Key: dhttest.Key(t), Discovery: "some"}); err == nil || !strings.Contains(err.Error(), `discovery "some": want kademlia, broker, pull or push`) {
		t.Errorf("got %v", err)
	}
	if _, err := Listen(Config{Key: dhttest.Key(t), Discovery: directory.Broker}); err == nil || !strings.Contains(err.Error(), "no list of servers") {
		t.Errorf("got %v", err)
	}
}

// With records from a database instead of holders, policy and reservation are
// the same.
func TestPlaceAmongRecordsAtHand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		var sealed [][]byte
		for _, n := range nodes {
			own := n.Publisher.Sealed(1)
			sealed = append(sealed, own...)
		}
		sealed = append(sealed, []byte("no record"), nil)
		placed, d, err := nodes[0].Seeker.PlaceAmong(t.Context(), CapacityTopic(), view(), sealed, []peer.ID{nodes[0].ID()})
		if err != nil || placed.Lease.Target == nodes[0].ID() {
			t.Fatalf("PlaceAmong: %v (%+v)", err, d)
		}
		if d.Held != 2 || len(d.Verdicts) != 2 || d.Chosen != placed.Lease.Target {
			t.Errorf("decision %+v", d)
		}
		old := time.Now()
		if _, _, err := nodes[0].Seeker.PlaceAmong(t.Context(), CapacityTopic(), view(), nil, nil); err == nil {
			t.Error("placed among nobody")
		} else if refusal := (*capacity.Refusal)(nil); !errors.As(err, &refusal) || refusal.Reason != NoCandidates {
			t.Errorf("among nobody: %v after %v", err, time.Since(old))
		}
	})
}

// A listed server of another network costs a warning, and no search waits for
// it.
func TestBrokerOfAnotherNetwork(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := newTestNode(t, func(c *Config) { c.Network = "other" })
		other.run(t)
		var warned syncBuffer
		list := &serverList{}
		nodes := newTestNetworkOf(t, 3, func(i int, n *testNode) {
			if i == 0 {
				list.add(n)
			}
		}, func(c *Config) {
			c.Discovery, c.Servers = directory.Broker, list.get
			c.Log = slog.New(slog.NewTextHandler(&warned, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		list.add(other)
		dhttest.Eventually(t, func() error {
			if s := warned.String(); !strings.Contains(s, "give both the same network") || !strings.Contains(s, other.ID().String()) {
				return fmt.Errorf("logged: %q", s)
			}
			return nil
		})
		var took []time.Duration
		for _, n := range nodes {
			placed, d, err := n.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{n.ID()})
			if err != nil {
				t.Errorf("Place: %v (%+v)", err, d)
			}
			took = append(took, d.Elapsed)
			n.Seeker.ReleaseLease(t.Context(), placed.Lease)
		}
		notDelayed(t, took)
	})
}

// A syncBuffer may be written and read concurrently.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A node without bootstrap peers joins through listed servers, also if the list
// was empty at its start.
func TestListedServersAreBootstrapPeers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := newTestNode(t, nil)
		first.run(t)
		path := filepath.Join(t.TempDir(), "servers")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := directory.NewServerList(nil, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		second := newTestNode(t, func(c *Config) { c.Discovery, c.Servers = directory.Pull, list.Servers })
		second.run(t)
		second.awaitReady(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = list.Run(ctx, second.Overlay.Wake) }()
		defer func() { cancel(); <-done }()
		if err := os.WriteFile(path, []byte(first.Overlay.Addrs()[0].String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		dhttest.Eventually(t, func() error {
			if len(second.peers.Members()) == 0 {
				return errors.New("not joined")
			}
			return nil
		})
	})
}
