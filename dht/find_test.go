package dht

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/seek"
)

// newClient joins the network of nodes as a client and waits until it knows
// the others.
func newClient(t testing.TB, nodes []*testNode) *testNode {
	t.Helper()
	c := newTestNode(t, func(c *Config) {
		c.Client, c.Sample, c.Listen = true, nil, nil
		c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
	})
	c.run(t)
	c.awaitReady(t)
	return c
}

// Whatever the first two holders asked do, the answer of the others is
// complete, verified and in time. notDelayed is how long an answer may take on
// a busy machine if it waits for no hanging node. On an idle machine it takes
// some milliseconds.
const notDelayed = time.Second

// hedged is how long an answer may take that asks others instead of waiting for
// a hanging node, which has 300 ms.
const hedged = 250 * time.Millisecond

// inTime runs f up to three times until it reports that it took no longer than
// most: a busy machine delays a run now and then, a defect delays every run.
func inTime(t *testing.T, most time.Duration, f func() time.Duration) {
	t.Helper()
	var took []time.Duration
	for range 3 {
		d := f()
		if d <= most {
			return
		}
		took = append(took, d)
	}
	t.Errorf("took %v, want at most %v", took, most)
}

func TestBadHoldersNeitherDelayNorPoisonFind(t *testing.T) {
	victim := newKey(t)
	record := func() capacity.Record {
		return capacity.Record{Node: idOf(t, victim), Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.DefaultTTL}
	}
	forged := func() []byte {
		sealed := seal(t, record(), victim)
		sealed[len(sealed)-3] ^= 1 // within the signature
		return sealed
	}
	reply := func(q *pb.QueryReply) network.StreamHandler {
		return answer(func(peer.ID, *pb.Request) *pb.Response {
			return &pb.Response{Op: &pb.Response_Query{Query: q}}
		})
	}
	streamRecord := func() []byte {
		r := record()
		r.Carries = &capacity.Carriage{Stream: "x", Origin: true, Path: []peer.ID{r.Node}}
		return seal(t, r, victim)
	}
	good := func() []byte { return seal(t, record(), victim) }
	cases := []struct {
		name   string
		handle network.StreamHandler
	}{
		{"never answers", hang},
		{"closes at once", func(s network.Stream) { _ = s.Close() }},
		{"resets", func(s network.Stream) { _ = s.Reset() }},
		{"sends garbage", say([]byte("\x08HTTP/1.1 400 Bad Request\r\n"))},
		{"announces too much", say(binary.AppendUvarint(nil, 1<<40))},
		{"announces and stops", say(binary.AppendUvarint(nil, seek.MaxQueryReply))},
		{"answers something else", answer(func(peer.ID, *pb.Request) *pb.Response { return &pb.Response{} })},
		{"refuses", answer(func(peer.ID, *pb.Request) *pb.Response { return &pb.Response{Error: "no"} })},
		{"sends a forged record", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{good(), forged()}})},
		{"sends a record of another topic", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{streamRecord()}})},
		{"sends an oversized record", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{make([]byte, signed.MaxRecordSize+1)}})},
		{"sends more records than asked for", reply(&pb.QueryReply{Held: 17, Sealed: slices.Repeat([][]byte{good()}, 17)})},
		{"says that nobody is there", reply(&pb.QueryReply{})},
	}
	for _, c := range cases {
		find := func(t *testing.T) time.Duration {
			nodes := newTestNetwork(t, 3)
			seeker := newClient(t, nodes)
			var fakes []peer.ID
			for range 2 {
				f := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: c.handle})
				seeker.connect(t, f)
				fakes = append(fakes, f.host.ID())
			}
			eventually(t, func() error {
				h := seeker.Holders(CapacityTopic())
				for _, p := range append(fakes, nodes[0].ID(), nodes[1].ID(), nodes[2].ID()) {
					if !slices.Contains(h, p) {
						return errors.New("not all are known yet")
					}
				}
				return nil
			})
			seeker.nearest(fakes)
			a, err := seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, cand := range a.Candidates {
				if cand.Record.Node == idOf(t, victim) {
					t.Error("poisoned: a record that the fake made up is used")
				}
			}
			if len(a.Candidates) != len(nodes) {
				t.Errorf("%d candidates, want %d; asked %+v", len(a.Candidates), len(nodes), a.Asked)
			}
			if !slices.Contains(fakes, a.Asked[0].Holder) || !slices.Contains(fakes, a.Asked[1].Holder) {
				t.Errorf("the fakes were not asked first: %+v", a.Asked)
			}
			return a.Elapsed
		}
		t.Run(c.name, func(t *testing.T) { inTime(t, hedged, func() time.Duration { return find(t) }) })
	}
}

func TestFindWithoutAnyHolder(t *testing.T) {
	n := newTestNode(t, func(c *Config) { c.Client, c.Sample, c.Listen = true, nil, nil })
	n.run(t)
	n.awaitReady(t)
	start := time.Now()
	if _, err := n.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil); !errors.Is(err, ErrNoHolders) {
		t.Errorf("Find = %v, want ErrNoHolders", err)
	}
	if took := time.Since(start); took > overlay.LocateTime+notDelayed {
		t.Errorf("took %v", took)
	}
}

func TestFindOfUnknownStreamIsEmpty(t *testing.T) {
	nodes := newTestNetwork(t, 3)
	a, err := nodes[1].Find(t.Context(), StreamTopic("nobody/has/this"), capacity.Need{Purpose: capacity.Cascade}, nil)
	if err != nil || len(a.Candidates) != 0 || a.Held != 0 {
		t.Errorf("Find = %+v, %v; want an empty answer", a, err)
	}
	if _, err := nodes[1].Find(t.Context(), StreamTopic("../etc"), capacity.Need{}, nil); err == nil {
		t.Error("a name that is no stream's was searched for")
	}
}

// A stream that ends is withdrawn at once, before its record expires.
func TestGoneStreamIsWithdrawn(t *testing.T) {
	nodes := newTestNetwork(t, 4)
	topic := StreamTopic("show")
	nodes[0].carry("show")
	for _, n := range nodes[1:] {
		eventually(t, func() error { return n.sees(topic, nodes[:1]) })
	}
	nodes[0].carry()
	start := time.Now()
	for _, n := range nodes {
		eventually(t, func() error {
			a, err := n.Find(t.Context(), topic, capacity.Need{}, nil)
			if err == nil && len(a.Candidates) > 0 {
				err = errors.New("still found")
			}
			return err
		})
	}
	if took := time.Since(start); took > capacity.DefaultTTL/3 {
		t.Errorf("gone after %v only", took)
	}
}

// A node that leaves in good order is no candidate any more.
func TestLeavingNodeWithdrawsItsRecord(t *testing.T) {
	nodes := newTestNetwork(t, 3)
	nodes[2].stop()
	for _, n := range nodes[:2] {
		if h := n.table.Get(time.Now(), CapacityTopic(), nodes[2].ID()); h != nil {
			t.Errorf("%s still holds the record of a node that has left", n.ID())
		}
	}
}

// From ten nodes on, not every node is a holder.
func TestTenNodesAskTwoHolders(t *testing.T) {
	t.Parallel()
	nodes := newTestNetwork(t, 10)
	client := newClient(t, nodes)
	a, err := client.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Candidates) != len(nodes) || a.Messages < 2 || a.Messages > 2*holder.Replicas || a.Bytes == 0 {
		t.Errorf("%d candidates for %d messages and %d bytes", len(a.Candidates), a.Messages, a.Bytes)
	}
	eventually(t, func() error {
		if h := client.Holders(CapacityTopic()); len(h) != holder.Replicas {
			return fmt.Errorf("%d holders, want %d", len(h), holder.Replicas)
		}
		return nil
	})
}

// A node that crashes delays no search, and is forgotten when its record
// expires at the latest.
func TestCrashedNodeDelaysNobody(t *testing.T) {
	nodes := newTestNetwork(t, 4)
	crashed := nodes[3].ID()
	if err := nodes[3].Host().Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 20 {
		for _, n := range nodes[:3] {
			a, err := n.Find(t.Context(), CapacityTopic(), capacity.Need{}, []peer.ID{n.ID()})
			if err != nil || len(a.Candidates) < 2 {
				t.Fatalf("%d candidates, %v", len(a.Candidates), err)
			}
			if a.Elapsed > notDelayed {
				t.Errorf("took %v: %+v", a.Elapsed, a.Asked)
			}
		}
	}
	t.Parallel() // the rest waits for the record to expire
	eventually(t, func() error {
		for _, n := range nodes[:3] {
			if err := n.sees(CapacityTopic(), nodes[:3]); err != nil {
				return err
			}
			a, err := n.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(a.Candidates, func(c policy.Candidate) bool { return c.Record.Node == crashed }) {
				return fmt.Errorf("%s still finds the crashed node", n.ID())
			}
			if slices.Contains(n.Holders(CapacityTopic()), crashed) {
				return fmt.Errorf("%s still takes it for a holder", n.ID())
			}
		}
		return nil
	})
	t.Logf("forgotten after %v", time.Since(start).Round(time.Second))
}
