package dht

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/dht/dhttest"
	"weir/dht/inspect"
	"weir/dht/pb"
	"weir/dht/records"
)

// A watchView is the state that a watch has reported so far.
type watchView struct {
	mu      sync.Mutex
	synced  int
	nodes   map[peer.ID]uint64
	holders map[peer.ID]bool
	err     chan error
}

func startWatch(t *testing.T, n *testNode, topic Topic) *watchView {
	t.Helper()
	v := &watchView{nodes: make(map[peer.ID]uint64), holders: make(map[peer.ID]bool), err: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { v.err <- n.Reader.Watch(ctx, topic, v.change) }()
	t.Cleanup(func() {
		cancel()
		if err := <-v.err; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v, want the context's error", err)
		}
	})
	return v
}

func (v *watchView) change(c inspect.Change) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case c.Err != nil: // bad record, shown with its error
	case c.Synced:
		v.synced++
	case c.Gone:
		delete(v.nodes, c.Node)
	case c.Record.Seq < v.nodes[c.Node]:
		return fmt.Errorf("%s goes back from %d to %d", c.Node, v.nodes[c.Node], c.Record.Seq)
	default:
		v.nodes[c.Node] = c.Record.Seq
		v.holders[c.Holder] = true
	}
	return nil
}

func (v *watchView) has(nodes ...*testNode) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.nodes) != len(nodes) || v.synced != 1 {
		return fmt.Errorf("%d nodes and %d markers, want %d and 1", len(v.nodes), v.synced, len(nodes))
	}
	for _, n := range nodes {
		if v.nodes[n.ID()] == 0 {
			return fmt.Errorf("%s is missing", n.ID())
		}
	}
	return nil
}

func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		for _, watcher := range []*testNode{nodes[3], newClient(t, nodes)} {
			topic := StreamTopic("s-" + watcher.ID().String()[40:])
			name := topic.Stream()
			nodes[0].carry(name)
			dhttest.Eventually(t, func() error { return watcher.sees(topic, nodes[:1]) })

			v := startWatch(t, watcher, topic)
			dhttest.Eventually(t, func() error { return v.has(nodes[0]) })
			nodes[1].carry(name)
			dhttest.Eventually(t, func() error { return v.has(nodes[0], nodes[1]) })
			nodes[0].carry()
			dhttest.Eventually(t, func() error { return v.has(nodes[1]) })
			nodes[1].carry()
			dhttest.Eventually(t, func() error { return v.has() })
			v.mu.Lock()
			if len(v.holders) < 2 {
				t.Errorf("told by %d holders, want two or more", len(v.holders))
			}
			v.mu.Unlock()
		}
	})
}

func TestSnapshotNamesEveryHolder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		client := newClient(t, nodes)
		dhttest.Eventually(t, func() error {
			changes, err := client.Reader.Snapshot(t.Context(), CapacityTopic())
			if err != nil {
				return err
			}
			heldBy := make(map[peer.ID]map[peer.ID]bool)
			for _, c := range changes {
				if heldBy[c.Node] == nil {
					heldBy[c.Node] = make(map[peer.ID]bool)
				}
				heldBy[c.Node][c.Holder] = true
			}
			for _, n := range nodes {
				if len(heldBy[n.ID()]) != len(nodes) {
					return fmt.Errorf("%s is held by %d of %d", n.ID(), len(heldBy[n.ID()]), len(nodes))
				}
			}
			return nil
		})
	})
}

// Lying, hanging or stopped holders do not spoil a watch.
func TestWatchSurvivesBadHolders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		key := dhttest.Key(t)
		event := func(e *pb.Event) *pb.Response { return &pb.Response{Op: &pb.Response_Event{Event: e}} }
		lies := func(s network.Stream) {
			var req pb.Request
			if _, err := frame.ReadPrintable(bufio.NewReader(s), records.MaxRequest, &req); err != nil || req.GetWatch() == nil {
				_ = s.Reset()
				return
			}
			r := capacity.Record{Node: dhttest.ID(t, key), Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.DefaultTTL}
			sealed := seal(t, r, key)
			sealed[len(sealed)-2] ^= 1
			_, _ = frame.Write(s, event(&pb.Event{Sealed: sealed}))
			_, _ = frame.Write(s, event(&pb.Event{Synced: true}))
			_, _ = frame.Write(s, event(&pb.Event{Gone: []byte(nodes[0].ID())})) // it never held that record
			hang(s)
		}
		client := newClient(t, nodes)
		for _, handle := range []network.StreamHandler{lies, hang} {
			f := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: handle})
			client.connect(t, f)
		}
		dhttest.Eventually(t, func() error {
			if h := client.Holders(CapacityTopic()); len(h) != 4 {
				return fmt.Errorf("%d holders known", len(h))
			}
			return nil
		})
		v := startWatch(t, client, CapacityTopic())
		dhttest.Eventually(t, func() error { return v.has(nodes...) })

		// The inspecting client sees the records of the lying holder, and why they
		// are bad.
		changes, err := client.Reader.Snapshot(t.Context(), CapacityTopic())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(changes, func(c inspect.Change) bool { return errors.Is(c.Err, capacity.ErrForged) && len(c.Sealed) > 0 }) {
			t.Errorf("the forged record is not among %d", len(changes))
		}
	})
}

// The function's error ends the watch and is returned.
func TestWatchReturnsTheCallersError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		enough := errors.New("enough")
		err := nodes[0].Reader.Watch(t.Context(), CapacityTopic(), func(inspect.Change) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("Watch = %v", err)
		}
		if err := nodes[0].Reader.Watch(t.Context(), "x", func(inspect.Change) error { return nil }); err == nil {
			t.Error("a topic that is none was watched")
		}
	})
}
