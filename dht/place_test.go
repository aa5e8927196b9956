package dht

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
	"weir/dht/seek"
)

func TestPlaceReservesOnOneAndReleasesTheOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		need := capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1_000_000}
		placed, d, err := nodes[0].Seeker.Place(context.Background(), CapacityTopic(), need, []peer.ID{nodes[0].ID()})
		if err != nil {
			t.Fatalf("Place: %v (%+v)", err, d)
		}
		chosen := placed.Candidate.Record.Node
		if d.Chosen != chosen || placed.Lease.Target != chosen || placed.Lease.From != nodes[0].ID() {
			t.Errorf("decision %s, candidate %s, lease %+v do not agree", d.Chosen, chosen, placed.Lease)
		}
		if len(d.Verdicts) != 3 || len(d.Reservations) < 2 {
			t.Errorf("%d verdicts and %d reservations, want 3 and at least 2", len(d.Verdicts), len(d.Reservations))
		}
		dhttest.Eventually(t, func() error {
			for _, n := range nodes {
				want := 0
				if n.ID() == chosen {
					want = 1
				}
				if got := n.ledger.Totals(time.Now()).Leases; got != want {
					return errors.New("leases are not those of the chosen node only")
				}
			}
			return nil
		})
		nodes[0].Seeker.ReleaseLease(context.Background(), placed.Lease)
		dhttest.Eventually(t, func() error {
			for _, n := range nodes {
				if n.ledger.Totals(time.Now()).Leases != 0 {
					return errors.New("a lease is left")
				}
			}
			return nil
		})
	})
}

func view() capacity.Need {
	return capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1_000_000}
}

// fakeTarget is in the network of nodes, has a record there, and answers
// reservations by reply; with nil it never answers.
func fakeTarget(t *testing.T, nodes []*testNode, reply func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse) (*fake, *clerk) {
	t.Helper()
	var f *fake
	c := &clerk{reply: func(from peer.ID, req *pb.Reserve) *pb.ReserveResponse { return reply(f, from, req) }}
	f = newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testReserves: c.handle, testRecords: hang})
	f.advertise(t, nodes...)
	return f, c
}

// others are the IDs of nodes except those in keep.
func others(nodes []*testNode, keep ...peer.ID) []peer.ID {
	var list []peer.ID
	for _, n := range nodes {
		if !slices.Contains(keep, n.ID()) {
			list = append(list, n.ID())
		}
	}
	return list
}

// If one of two candidates hangs, the other is used at once.
func TestPlaceDoesNotWaitForAHungCandidate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		hung, clerk := fakeTarget(t, nodes, func(*fake, peer.ID, *pb.Reserve) *pb.ReserveResponse { return nil })
		exclude := others(nodes, nodes[1].ID())
		placed, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), exclude)
		if err != nil {
			t.Fatalf("Place: %v", err)
		}
		if placed.Lease.Target != nodes[1].ID() {
			t.Errorf("placed on %s", placed.Lease.Target)
		}
		i := slices.IndexFunc(d.Reservations, func(r Reservation) bool { return r.Node == hung.host.ID() })
		if i < 0 || d.Reservations[i].Reason != place.Abandoned || d.Reservations[i].Lease != "" {
			t.Errorf("the hung one was waited for: %+v", d.Reservations)
		}
		// The hung candidate may have received the request: it gets a release.
		dhttest.Eventually(t, func() error {
			if reserved, released := clerk.seen(); len(reserved) != 1 || !slices.Equal(reserved, released) {
				return fmt.Errorf("reserved %v, released %v", reserved, released)
			}
			return nil
		})
	})
}

// If all candidates hang, the error says so.
func TestPlaceGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 1)
		fakeTarget(t, nodes, func(*fake, peer.ID, *pb.Reserve) *pb.ReserveResponse { return nil })
		_, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		var refusal *capacity.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != "unreachable" || refusal.RetryAfter == 0 || d.Refused != refusal.Reason {
			t.Errorf("error %v, decision %+v", err, d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := nodes[0].Seeker.Place(ctx, CapacityTopic(), view(), nil); !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &refusal) {
			t.Errorf("with a deadline: %v", err)
		}
	})
}

// A slow candidate is waited for if there is no other.
func TestPlaceWaitsForTheSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 1)
		slow, _ := fakeTarget(t, nodes, func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
			dhttest.Eventually(t, func() error {
				if !nodes[0].peers.Live.Suspect(f.host.ID()) {
					return errors.New("not overdue yet")
				}
				return nil
			})
			return &pb.ReserveResponse{Lease: f.lease(t, from, req)}
		})
		placed, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if err != nil || placed.Lease.Target != slow.host.ID() || d.Refused != "" {
			t.Fatalf("placed on %s, %v; reservations %+v", placed.Lease.Target, err, d.Reservations)
		}
	})
}

// A lease that arrives after another was chosen is released.
func TestLateLeaseIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		decided := make(chan struct{})
		_, clerk := fakeTarget(t, nodes, func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
			<-decided
			return &pb.ReserveResponse{Lease: f.lease(t, from, req)}
		})
		placed, _, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		close(decided)
		if err != nil || placed.Lease.Target != nodes[1].ID() {
			t.Fatalf("placed %+v, %v", placed.Lease, err)
		}
		dhttest.Eventually(t, func() error {
			if reserved, released := clerk.seen(); len(released) != 1 || !slices.Equal(reserved, released) {
				return fmt.Errorf("reserved %v, released %v", reserved, released)
			}
			return nil
		})
		if n := nodes[1].ledger.Totals(time.Now()).Leases; n != 1 {
			t.Errorf("%d leases at the chosen node, want 1", n)
		}
	})
}

// Of two leases, the placement uses the one of the target that is better off
// now, whichever answers first and whatever its record said; the other is
// released. A target whose current use fails the policy, or is invalid, is not
// used at all.
func TestPlaceTakesTheBetterLease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		use      func(*capacity.Record)
		reason   string // of the worse
		nonsense []byte
	}{
		{name: "fuller", use: func(r *capacity.Record) { r.Sessions.Used = 8 }},
		{name: "full", use: func(r *capacity.Record) { r.Sessions.Used = 10 }, reason: "sessions"},
		{name: "nonsense", nonsense: []byte{0xff}, reason: "unproven"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 1)
				answer := func(use func(*capacity.Record), nonsense []byte) func(*fake, peer.ID, *pb.Reserve) *pb.ReserveResponse {
					return func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
						r := capacity.Record{Seq: 1, Issued: time.UnixMilli(1)}
						if use != nil {
							use(&r)
						}
						b := signed.EncodeLoad(&r)
						if nonsense != nil {
							b = nonsense
						}
						return &pb.ReserveResponse{Lease: f.lease(t, from, req), Use: b}
					}
				}
				worse, w := fakeTarget(t, nodes, answer(c.use, c.nonsense))
				better, b := fakeTarget(t, nodes, answer(func(r *capacity.Record) { r.Sessions.Used = 3 }, nil))
				compared, alone := 0, 0              // alone: the worse one was taken, as the other came too late
				dhttest.Eventually(t, func() error { // on a busy machine the second may come too late
					placed, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
					if err != nil || len(d.Reservations) != 2 {
						return fmt.Errorf("placed %+v, %v; %+v", placed.Lease, err, d.Reservations)
					}
					i := slices.IndexFunc(d.Reservations, func(r Reservation) bool { return r.Node == worse.host.ID() })
					lost, won := d.Reservations[i], d.Reservations[1-i]
					if placed.Lease.Target == worse.host.ID() && won.Lease == "" {
						alone++
					}
					if won.Lease == "" || (lost.Lease == "") == (c.reason == "") || lost.Reason != c.reason && lost.Reason != "" {
						return fmt.Errorf("not both have answered: %+v", d.Reservations)
					}
					if placed.Lease.Target != better.host.ID() || d.Chosen != better.host.ID() {
						t.Fatalf("placed on %s; reservations %+v", placed.Lease.Target, d.Reservations)
					}
					if used := placed.Candidate.Record.Sessions.Used; used != 3 {
						t.Errorf("the chosen one uses %d sessions, want what it said with its lease", used)
					}
					if compared++; compared < 3 {
						return errors.New("once more")
					}
					return nil
				})
				dhttest.Eventually(t, func() error {
					if reserved, released := w.seen(); len(reserved) != len(released)+alone {
						return fmt.Errorf("the worse one was asked %d times, released %d times and taken %d times", len(reserved), len(released), alone)
					}
					return nil
				})
				if reserved, released := b.seen(); len(reserved)-len(released) < compared {
					t.Errorf("the better one was asked %d times and released %d times, though it was taken %d times", len(reserved), len(released), compared)
				}
			})
		})
	}
}

// After one refusal the next candidate is tried; after all, the reason is that
// of the candidates. A lease that differs from the request does not count.
func TestPlaceAfterRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 1)
		refuse := func(*fake, peer.ID, *pb.Reserve) *pb.ReserveResponse {
			return &pb.ReserveResponse{Refusal: &pb.Refusal{Reason: "sessions", Detail: "10 of 10 in use"}}
		}
		for range 3 {
			fakeTarget(t, nodes, refuse)
		}
		_, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		var refusal *capacity.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != "sessions" || len(d.Reservations) != 3 {
			t.Fatalf("error %v after %+v", err, d.Reservations)
		}
		for _, r := range d.Reservations {
			if r.Reason != "sessions" || r.Detail != "10 of 10 in use" {
				t.Errorf("reservation %+v", r)
			}
			if got := nodes[0].reputation.Of(time.Now(), r.Node); got > 0.6 {
				t.Errorf("after its refusal, %s is believed %v", r.Node, got)
			}
		}

		swapped := func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
			other := &pb.Reserve{Id: req.Id, Need: &cpb.Need{Purpose: cpb.Purpose(capacity.Publish)}}
			return &pb.ReserveResponse{Lease: f.lease(t, from, other)}
		}
		fakeTarget(t, nodes, swapped)
		good := func(f *fake, from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
			return &pb.ReserveResponse{Lease: f.lease(t, from, req)}
		}
		g, _ := fakeTarget(t, nodes, good)
		placed, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if err != nil || placed.Lease.Target != g.host.ID() || d.Chosen != g.host.ID() {
			t.Fatalf("placed on %s, %v; reservations %+v", placed.Lease.Target, err, d.Reservations)
		}
	})
}

func TestPlaceWithoutCandidates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		var refusal *capacity.Refusal
		_, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{nodes[1].ID()})
		if !errors.As(err, &refusal) || refusal.Reason != NoCandidates || d.Refused != NoCandidates {
			t.Errorf("nobody left: %v", err)
		}
		// No candidate fits: the rule is the reason.
		for i := range 10 {
			if _, err := nodes[1].ledger.Reserve(time.Now(), capacity.Request{ID: fmt.Sprint(i), From: nodes[0].ID(), Need: view()}); err != nil {
				t.Fatal(err)
			}
		}
		nodes[1].Publisher.Kick()
		var explained Decision
		dhttest.Eventually(t, func() (err error) {
			explained, err = nodes[0].Seeker.Explain(t.Context(), CapacityTopic(), view(), nil)
			if err == nil && explained.Refused == "" {
				err = errors.New("the record does not show that the node is full")
			}
			return err
		})
		_, d, err = nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if !errors.As(err, &refusal) || refusal.Reason != explained.Refused || len(d.Reservations) != 0 {
			t.Errorf("a full node: %v, reservations %v", err, d.Reservations)
		}
		if len(explained.Verdicts) != 2 {
			t.Fatalf("explained %+v", explained)
		}
		for _, v := range explained.Verdicts {
			if v.Rule == "" {
				t.Errorf("%s passed", v.Node)
			}
		}
	})
}

// A node may be its own target, if its policy allows it.
func TestPlaceOnOneself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pol := policy.Default()
		pol.Filter = slices.DeleteFunc(pol.Filter, func(r policy.Rule) bool { return r.Name == "self" })
		judge, err := policy.Compile(pol)
		if err != nil {
			t.Fatal(err)
		}
		n := newTestNode(t, func(c *Config) { c.Policy = func() *policy.Compiled { return judge } })
		n.run(t)
		n.awaitReady(t)
		var placed Placed
		dhttest.Eventually(t, func() error {
			var err error
			placed, _, err = n.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
			return err
		})
		if placed.Lease.Target != n.ID() || n.ledger.Totals(time.Now()).Leases != 1 {
			t.Errorf("lease %+v", placed.Lease)
		}
		n.Seeker.ReleaseLease(t.Context(), placed.Lease)
		if left := n.ledger.Totals(time.Now()).Leases; left != 0 {
			t.Errorf("%d leases left", left)
		}
	})
}

// A decision is shown to people: its keys are fixed.
func TestDecisionJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		_, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{
			`"topic":"capacity"`, `"purpose":"view"`, `"verdicts":[{"node":"12D3`, `"terms":[{"name":`, `"rtt_ms":`, `"age_ms":`,
			`"reservations":[{"node":"12D3`, `"chosen":"` + d.Chosen.String() + `"`, `"asked":[{"holder":"12D3`, `"messages":`, `"bytes":`,
			`"find_ms":`, `"reserve_ms":`, `"total_ms":`, `"held":3`, `"rejected":{"self":1}`,
		} {
			if !strings.Contains(string(b), key) {
				t.Errorf("no %s in %s", key, b)
			}
		}
	})
}

// Many concurrent placements neither oversubscribe a node nor make a node
// suspect the others.
func TestManyPlacementsAtOnceTimed(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures time")
	}
	nodes := newTestNetwork(t, 5)
	const seekers, room = 200, 4 * 10
	type result struct {
		target peer.ID
		err    error
	}
	results := make(chan result, seekers)
	for range seekers {
		go func() {
			placed, _, err := nodes[0].Seeker.Place(context.Background(), CapacityTopic(), view(), nil)
			results <- result{placed.Lease.Target, err}
		}()
	}
	given := make(map[peer.ID]int)
	var refusal *capacity.Refusal
	refused := make(map[string]int)
	for range seekers {
		switch r := <-results; {
		case r.err == nil:
			given[r.target]++
		case errors.As(r.err, &refusal):
			refused[refusal.Reason]++
		default:
			t.Errorf("Place: %v", r.err)
		}
	}
	sum := 0
	for target, n := range given {
		sum += n
		if n > 10 {
			t.Errorf("%d leases from %s, which has room for 10", n, target)
		}
	}
	// Each seeker may hold two leases for a moment, so not every place is
	// found.
	if sum > room || sum < room/2 {
		t.Errorf("%d of %d places given; refused %v", sum, room, refused)
	}
	now := time.Now()
	for _, n := range nodes[1:] {
		if nodes[0].peers.Live.Down(now, n.ID()) {
			t.Errorf("%s is taken for dead", n.ID())
		}
	}
	for _, n := range nodes[1:] {
		if left := nodes[0].Overlay.Calls(n.ID()); left > overlay.CallsPerPeer {
			t.Errorf("%d calls to %s left", left, n.ID())
		}
	}
}

// If every node was asked and refused, a placement is refused: there is no node
// further away to ask.
func TestPlaceEndsWhenAllRefuse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, mode := range []directory.Mode{directory.Pull, directory.Push} {
			list := &serverList{}
			nodes := newTestNetworkOf(t, 3, func(_ int, n *testNode) { list.add(n) }, func(c *Config) {
				c.Discovery, c.Servers = mode, list.get
				c.Grant = func(capacity.Request) (capacity.Lease, error) {
					return capacity.Lease{}, &capacity.Refusal{Reason: "sessions"}
				}
			})
			done := make(chan error, 1)
			go func() {
				_, _, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
				done <- err
			}()
			select {
			case err := <-done:
				if !seek.IsRefusal(err) {
					t.Errorf("%s: Place = %v, want a refusal", mode, err)
				}
			case <-time.After(dhttest.Patience):
				t.Fatalf("%s: Place goes on for ever", mode)
			}
		}
	})
}
