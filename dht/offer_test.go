package dht

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/pb"
	"weir/dht/place"
)

// bytesPerPlacement is the aim for one placement, its reservation included.
const bytesPerPlacement = 4_000

// A client, which holds nothing, is offered digests and gets the record from
// the node it takes.
func TestPlaceByDigests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 10)
		seeker := newClient(t, nodes)
		seeker.Seeker.Regions.Read(t.Context())
		seeker.newest.Forget() // it has the records of the index by now
		placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if err != nil {
			t.Fatalf("Place: %v (%+v)", err, d)
		}
		r, err := signed.OpenRecord(placed.Candidate.Sealed, time.Now())
		if err != nil || r.Node != placed.Lease.Target || r.Seq != placed.Candidate.Record.Seq || r.URL == "" {
			t.Errorf("record of the chosen %+v, %v; lease %+v", r, err, placed.Lease)
		}
		if len(d.Verdicts) < place.OfferLimit {
			t.Errorf("%d verdicts", len(d.Verdicts))
		}
		for _, v := range d.Verdicts {
			if !v.Told || v.Score <= 0 || v.Age <= 0 || v.Age > 10_000 || len(v.Terms) != len(policy.Default().Score) || v.Seq == 0 {
				t.Errorf("verdict %+v", v)
			}
			if chosen := v.Node == d.Chosen; chosen != (v.URL != "") {
				t.Errorf("chosen %v, URL %q", chosen, v.URL)
			}
		}
		if d.Bytes > bytesPerPlacement {
			t.Errorf("%d bytes for one placement", d.Bytes)
		}
		// A seeker with another version of the policy applies it itself.
		other := policy.Default()
		other.Version = 7
		judge, err := policy.Compile(other)
		if err != nil {
			t.Fatal(err)
		}
		seeker.cfg.Policy = func() *policy.Compiled { return judge }
		_, d, err = seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if err != nil || slices.ContainsFunc(d.Verdicts, func(v Evaluation) bool { return v.Told }) {
			t.Errorf("with another policy: %v, %+v", err, d.Verdicts)
		}
	})
}

// offering is a holder that offers the result of f.
func offering(f func() []*pb.Digest) network.StreamHandler {
	return answer(func(peer.ID, *pb.Request) *pb.Response {
		d := f()
		return &pb.Response{Op: &pb.Response_Query{Query: &pb.QueryReply{Held: uint32(len(d)), Digests: d}}}
	})
}

// A holder may offer anything: no invented offer is used, and the offers of
// another holder are found in spite of it.
func TestPlaceInSpiteOfALyingHolder(t *testing.T) {
	t.Parallel()
	best := []float32{1, 1, 1, 1}
	cases := []struct {
		name   string
		digest func(t *testing.T, real *testNode) []*pb.Digest
	}{
		{"nodes that do not exist", func(t *testing.T, _ *testNode) (list []*pb.Digest) {
			for range holding.QueryLimit {
				list = append(list, &pb.Digest{Node: []byte(dhttest.ID(t, dhttest.Key(t))), Seq: 9, Terms: best, Addrs: [][]byte{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()}})
			}
			return list
		}},
		{"records newer than there are", func(t *testing.T, real *testNode) []*pb.Digest {
			return []*pb.Digest{{Node: []byte(real.ID()), Seq: math.MaxUint64, Terms: best}}
		}},
		{"a score beyond numbers", func(t *testing.T, real *testNode) []*pb.Digest {
			return []*pb.Digest{{Node: []byte(real.ID()), Seq: 1, Terms: []float32{float32(math.Inf(1)), 1, 1, 1}}}
		}},
		{"too few terms", func(t *testing.T, real *testNode) []*pb.Digest {
			return []*pb.Digest{{Node: []byte(real.ID()), Seq: 1, Terms: best[:2]}}
		}},
		{"too many addresses", func(t *testing.T, real *testNode) []*pb.Digest {
			a := multiaddr.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()
			return []*pb.Digest{{Node: []byte(real.ID()), Seq: 1, Terms: best, Addrs: [][]byte{a, a, a}}}
		}},
		{"more than was asked for", func(t *testing.T, real *testNode) []*pb.Digest {
			return slices.Repeat([]*pb.Digest{{Node: []byte(real.ID()), Seq: 1, Terms: best}}, holding.QueryLimit+1)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 3)
				seeker := newClient(t, nodes)
				liar := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{
					testRecords: offering(func() []*pb.Digest { return c.digest(t, nodes[1]) }),
				})
				if err := seeker.Host().Connect(t.Context(), peer.AddrInfo{ID: liar.host.ID(), Addrs: liar.host.Addrs()}); err != nil {
					t.Fatal(err)
				}
				dhttest.Eventually(t, func() error {
					if !slices.Contains(seeker.Holders(CapacityTopic()), liar.host.ID()) {
						return errors.New("the liar is not known yet")
					}
					return nil
				})
				seeker.peers.Live.Answered(time.Now(), liar.host.ID(), time.Microsecond) // the nearest
				placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
				if err != nil {
					t.Fatalf("place: %v; asked %+v, reservations %+v", err, d.Asked, d.Reservations)
				}
				if d.Asked[0].Holder != liar.host.ID() {
					t.Errorf("asked %+v", d.Asked)
				}
				r, err := signed.OpenRecord(placed.Candidate.Sealed, time.Now())
				if err != nil || r.Node != placed.Lease.Target {
					t.Errorf("placed on %+v, %v", r, err)
				}
				if len(d.Reservations) > place.ReserveMost {
					t.Errorf("%d nodes were asked for room", len(d.Reservations))
				}
			})
		})
	}
}

// The record that comes with a lease is used only if it is the target's own,
// newest and fit; otherwise the lease is released and the next candidate is
// tried.
func TestLeaseWithABadRecord(t *testing.T) {
	t.Parallel()
	stranger := dhttest.Key(t)
	cases := []struct {
		name   string
		record func(f *fake) []byte
		reason string
	}{
		{"none", func(*fake) []byte { return nil }, "unproven"},
		{"no record", func(*fake) []byte { return []byte("x") }, "unproven"},
		{"another node's", func(f *fake) []byte {
			r := f.record()
			r.Node = dhttest.ID(t, stranger)
			return seal(t, r, stranger)
		}, "unproven"},
		{"an older one", func(f *fake) []byte {
			r := f.record()
			r.Seq = 1
			return seal(t, r, f.key)
		}, "unproven"},
		{"one that has run out", func(f *fake) []byte {
			r := f.record()
			r.Issued = r.Issued.Add(-time.Hour)
			return seal(t, r, f.key)
		}, "unproven"},
		{"a stream's", func(f *fake) []byte {
			r := f.record()
			r.Carries = &capacity.StreamInfo{Stream: "a", Origin: true, Path: []peer.ID{r.Node}}
			return seal(t, r, f.key)
		}, "unproven"},
		{"one that the policy forbids", func(f *fake) []byte {
			r := f.record()
			r.State = capacity.Draining
			return seal(t, r, f.key)
		}, "state"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 1)
				seeker := newClient(t, nodes)
				f, clerk := fakeTarget(t, nodes, func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
					return &pb.ReserveResponse{Lease: f.lease(t, from, req), Record: c.record(f)}
				})
				seeker.peers.Live.Failed(time.Now(), f.host.ID(), liveness.NoConnection) // no holder
				_, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{nodes[0].ID()})
				var refusal *capacity.Refusal
				if !errors.As(err, &refusal) || refusal.Reason != c.reason || len(d.Reservations) != 1 || d.Reservations[0].Reason != c.reason {
					t.Fatalf("error %v; reservations %+v", err, d.Reservations)
				}
				dhttest.Eventually(t, func() error {
					if reserved, released := clerk.seen(); len(reserved) != 1 || !slices.Equal(reserved, released) {
						return fmt.Errorf("reserved %v, released %v", reserved, released)
					}
					return nil
				})
			})
		})
	}
}
