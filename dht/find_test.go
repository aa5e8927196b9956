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
	"weir/dht/dhttest"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
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

// awaited are the hanging nodes for whose answer a search waited: the requests
// to the others are abandoned when it ends. How long a search takes, in which
// case, is tested in package place, where time is passed in.
func awaited(asked []Asked, hanging []peer.ID) (list []peer.ID) {
	for _, a := range asked {
		if slices.Contains(hanging, a.Holder) && a.Err != place.Abandoned {
			list = append(list, a.Holder)
		}
	}
	return list
}

// Whatever the first two holders asked do, the answer of the others is complete
// and verified, and does not wait for them.
func TestBadHoldersNeitherDelayNorPoisonFind(t *testing.T) {
	t.Parallel()
	victim := dhttest.Key(t)
	record := func() capacity.Record {
		return capacity.Record{Node: dhttest.ID(t, victim), Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.DefaultTTL}
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
		r.Carries = &capacity.StreamInfo{Stream: "x", Origin: true, Path: []peer.ID{r.Node}}
		return seal(t, r, victim)
	}
	good := func() []byte { return seal(t, record(), victim) }
	cases := []struct {
		name   string
		handle network.StreamHandler
		hangs  bool
	}{
		{"never answers", hang, true},
		{"closes at once", func(s network.Stream) { _ = s.Close() }, false},
		{"resets", func(s network.Stream) { _ = s.Reset() }, false},
		{"sends garbage", say([]byte("\x08HTTP/1.1 400 Bad Request\r\n")), false},
		{"announces too much", say(binary.AppendUvarint(nil, 1<<40)), false},
		{"announces and stops", say(binary.AppendUvarint(nil, seek.MaxQueryReply)), false},
		{"answers something else", answer(func(peer.ID, *pb.Request) *pb.Response { return &pb.Response{} }), false},
		{"refuses", answer(func(peer.ID, *pb.Request) *pb.Response { return &pb.Response{Error: "no"} }), false},
		{"sends a forged record", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{good(), forged()}}), false},
		{"sends a record of another topic", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{streamRecord()}}), false},
		{"sends an oversized record", reply(&pb.QueryReply{Held: 1, Sealed: [][]byte{make([]byte, signed.MaxRecordSize+1)}}), false},
		{"sends more records than asked for", reply(&pb.QueryReply{Held: 17, Sealed: slices.Repeat([][]byte{good()}, 17)}), false},
		{"says that nobody is there", reply(&pb.QueryReply{}), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 3)
				seeker := newClient(t, nodes)
				var fakes []peer.ID
				for range 2 {
					f := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: c.handle})
					seeker.connect(t, f)
					fakes = append(fakes, f.host.ID())
				}
				dhttest.Eventually(t, func() error {
					h := seeker.Holders(CapacityTopic())
					for _, p := range append(fakes, nodes[0].ID(), nodes[1].ID(), nodes[2].ID()) {
						if !slices.Contains(h, p) {
							return errors.New("not all are known yet")
						}
					}
					return nil
				})
				seeker.nearest(fakes)
				a, err := seeker.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
				if waited := awaited(a.Asked, fakes); err != nil || c.hangs && len(waited) > 0 {
					t.Errorf("%v; it waited for %v: %+v", err, waited, a.Asked)
				}
				for _, cand := range a.Candidates {
					if cand.Record.Node == dhttest.ID(t, victim) {
						t.Error("poisoned: a record that the fake made up is used")
					}
				}
				if len(a.Candidates) != len(nodes) {
					t.Errorf("%d candidates, want %d; asked %+v", len(a.Candidates), len(nodes), a.Asked)
				}
				if !slices.Contains(fakes, a.Asked[0].Holder) || !slices.Contains(fakes, a.Asked[1].Holder) {
					t.Errorf("the fakes were not asked first: %+v", a.Asked)
				}
			})
		})
	}
}

func TestFindWithoutAnyHolder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNode(t, func(c *Config) { c.Client, c.Sample, c.Listen = true, nil, nil })
		n.run(t)
		n.awaitReady(t)
		if _, err := n.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil); !errors.Is(err, ErrUnanswered) {
			t.Errorf("Find = %v, want ErrUnanswered", err)
		}
	})
}

func TestFindOfUnknownStreamIsEmpty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		a, err := nodes[1].Seeker.Find(t.Context(), StreamTopic("nobody/has/this"), capacity.Need{Purpose: capacity.Cascade}, nil)
		if err != nil || len(a.Candidates) != 0 || a.Held != 0 {
			t.Errorf("Find = %+v, %v; want an empty answer", a, err)
		}
		if _, err := nodes[1].Seeker.Find(t.Context(), StreamTopic("../etc"), capacity.Need{}, nil); err == nil {
			t.Error("a name that is no stream's was searched for")
		}
	})
}

// A stream that ends is withdrawn at once, before its record expires.
func TestGoneStreamIsWithdrawn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		topic := StreamTopic("show")
		nodes[0].carry("show")
		for _, n := range nodes[1:] {
			dhttest.Eventually(t, func() error { return n.sees(topic, nodes[:1]) })
		}
		expires := nodes[0].table.Get(time.Now(), topic, nodes[0].ID()).Expires
		nodes[0].carry()
		for _, n := range nodes {
			dhttest.Eventually(t, func() error {
				a, err := n.Seeker.Find(t.Context(), topic, capacity.Need{}, nil)
				if err == nil && len(a.Candidates) > 0 {
					err = errors.New("still found")
				}
				return err
			})
		}
		if late := time.Since(expires); late > 0 {
			t.Errorf("gone only %v after its record had expired", late)
		}
	})
}

// A node that leaves in good order is no candidate any more.
func TestLeavingNodeWithdrawsItsRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		nodes[2].stop()
		for _, n := range nodes[:2] {
			if h := n.table.Get(time.Now(), CapacityTopic(), nodes[2].ID()); h != nil {
				t.Errorf("%s still holds the record of a node that has left", n.ID())
			}
		}
	})
}

// From ten nodes on, not every node is a holder.
func TestTenNodesAskTwoHolders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 10)
		client := newClient(t, nodes)
		var a seek.Answer
		dhttest.Eventually(t, func() (err error) {
			a, err = client.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
			return err
		})
		if len(a.Candidates) != len(nodes) || a.Messages < 2 || a.Messages > 2*holder.Replicas || a.Bytes == 0 {
			t.Errorf("%d candidates for %d messages and %d bytes", len(a.Candidates), a.Messages, a.Bytes)
		}
		dhttest.Eventually(t, func() error {
			if h := client.Holders(CapacityTopic()); len(h) != holder.Replicas {
				return fmt.Errorf("%d holders, want %d", len(h), holder.Replicas)
			}
			return nil
		})
	})
}

// notDelayed fails the test if a search took longer than one that waits for
// others instead of those that do not answer.
func notDelayed(t *testing.T, took []time.Duration) {
	t.Helper()
	if longest := slices.Max(took); longest > 250*time.Millisecond {
		t.Errorf("a search takes %v; all: %v", longest, took)
	}
}

// A node that crashes delays no search, and is forgotten when its record
// expires at the latest.
func TestCrashedNodeDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		crashed := nodes[3].ID()
		if err := nodes[3].Host().Close(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var took []time.Duration
		for range 20 {
			for _, n := range nodes[:3] {
				a, err := n.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, []peer.ID{n.ID()})
				if err != nil || len(a.Candidates) < 2 {
					t.Fatalf("%d candidates, %v", len(a.Candidates), err)
				}
				took = append(took, a.Elapsed)
			}
		}
		notDelayed(t, took)
		dhttest.Eventually(t, func() error {
			for _, n := range nodes[:3] {
				if err := n.sees(CapacityTopic(), nodes[:3]); err != nil {
					return err
				}
				a, err := n.Seeker.Find(t.Context(), CapacityTopic(), capacity.Need{}, nil)
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
	})
}
