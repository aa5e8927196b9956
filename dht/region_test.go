package dht

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
	"weir/dht/place"
)

// newRegions runs perRegion nodes in each of the regions.
func newRegions(t *testing.T, perRegion int, regions ...string) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := range perRegion * len(regions) {
		n := newTestNode(t, func(c *Config) {
			if len(nodes) > 0 {
				c.Bootstrap = []peer.AddrInfo{nodes[0].info()}
			}
		})
		n.region = regions[i%len(regions)]
		n.run(t)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.awaitReady(t)
	}
	return nodes
}

func inRegion(nodes []*testNode, region string) []*testNode {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *testNode) bool { return n.region != region })
}

// A node is placed in its own region while there is room, then in another; and
// an inspecting node sees all regions.
func TestPlacementStaysInTheRegionUntilItIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newRegions(t, 6, "eu", "us")
		eu := inRegion(nodes, "eu")
		seeker := eu[0]
		dhttest.Eventually(t, func() error {
			if near := seeker.Seeker.Regions.Near(); len(near) < 2 {
				return fmt.Errorf("regions known: %q", near)
			}
			return seeker.sees(CapacityTopic(), eu)
		})
		for range 5 {
			placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
			if err != nil {
				t.Fatal(err)
			}
			seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
			if placed.Candidate.Record.Region != "eu" {
				t.Errorf("placed in %s: %+v", placed.Candidate.Record.Region, d)
			}
		}

		// Another region may be asked for.
		need := view()
		need.Region = "us"
		dhttest.Eventually(t, func() error {
			placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), need, nil)
			if err != nil {
				return err
			}
			seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
			if placed.Candidate.Record.Region != "us" {
				return fmt.Errorf("in us: %+v", d)
			}
			return nil
		})

		// The region's ledgers fill up before the records show it: every candidate
		// asked refuses, and the search continues elsewhere. Leases that were
		// granted above but not used are released in the background, and take room
		// until then; admitted sessions stay, however long the rest takes.
		for _, n := range eu {
			dhttest.Eventually(t, func() error {
				for i := range 10 {
					if err := n.ledger.Admit(time.Now(), fmt.Sprint("viewer", i), view()); err != nil {
						return err
					}
				}
				return nil
			})
		}
		placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
		if err != nil || placed.Candidate.Record.Region != "us" {
			t.Errorf("with eu full: %v, %+v", err, d)
		}
		// Once the records show it, no candidate needs to be asked.
		for _, n := range eu {
			n.Publisher.Kick()
		}
		dhttest.Eventually(t, func() error {
			placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
			if err != nil || placed.Candidate.Record.Region != "us" {
				return fmt.Errorf("with eu full: %v, %+v", err, d)
			}
			seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
			if len(d.Reservations) > place.ReserveFirst {
				return fmt.Errorf("%d reservations", len(d.Reservations))
			}
			return nil
		})

		if seen := newClient(t, nodes).inspect(t); seen != len(nodes) {
			t.Errorf("a client sees %d of %d nodes", seen, len(nodes))
		}
	})
}

// A region that is fuller than the one near by sends some of its clients there
// while it still has room, and others stay.
func TestLoadedRegionSharesItsClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newRegions(t, 6, "eu", "us")
		eu := inRegion(nodes, "eu")
		seeker := eu[0]
		for _, n := range eu {
			for i := range 7 {
				if err := n.ledger.Admit(time.Now(), fmt.Sprint("viewer", i), view()); err != nil {
					t.Fatal(err)
				}
			}
			n.Publisher.Kick()
		}
		dhttest.Eventually(t, func() error {
			if near := seeker.Seeker.Regions.Near(); len(near) < 2 {
				return fmt.Errorf("regions known: %q", near)
			}
			return seeker.sees(CapacityTopic(), eu)
		})
		placed := make(map[string]int)
		dhttest.Eventually(t, func() error {
			p, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
			if err != nil {
				return fmt.Errorf("%w: %+v", err, d)
			}
			seeker.Seeker.ReleaseLease(t.Context(), p.Lease)
			if placed[p.Candidate.Record.Region]++; placed["eu"] == 0 || placed["us"] == 0 {
				return fmt.Errorf("placed %v", placed)
			}
			return nil
		})
	})
}

// A region with more publishers than a shard takes is split, and every node is
// still found. A seeker compares its own shard with another one: if that is
// less loaded, the seeker is placed there, although its own has room.
func TestCrowdedRegionIsSplit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// A query asks the seeker's own shards, so that no node waits to see all.
		nodes := joinTestNetwork(t, 14, func(int, *testNode) {}, func(c *Config) { c.ShardSplit, c.ShardMerge = 8, 2 })
		// A node that missed the first split notices receives the renewed ones.
		dhttest.Within(t, directory.NoticeTTL, func() error {
			for _, n := range nodes {
				if n.sharding.Home() == testHome || n.sharding.Home() == ShardTopic("test", "") {
					return fmt.Errorf("%s still publishes in %s", n.ID(), n.sharding.Home())
				}
			}
			return nil
		})
		dhttest.Eventually(t, func() error { // they have left the coarse shard, after its split notices
			for _, n := range nodes {
				if len(n.table.List(time.Now(), ShardTopic("test", ""))) > 0 {
					return fmt.Errorf("%s still holds records of the whole region", n.ID())
				}
			}
			return nil
		})
		for _, n := range nodes {
			dhttest.Eventually(t, func() error {
				placed, d, err := n.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{n.ID()})
				if err != nil {
					return fmt.Errorf("place: %w (%+v)", err, d)
				}
				n.Seeker.ReleaseLease(t.Context(), placed.Lease)
				return nil
			})
		}
		client := newClient(t, nodes)
		for _, seeker := range []*testNode{nodes[3], client} {
			dhttest.Eventually(t, func() error {
				if seen := seeker.inspect(t); seen != len(nodes) {
					return fmt.Errorf("%d of %d nodes are seen", seen, len(nodes))
				}
				return nil
			})
			dhttest.Eventually(t, func() error { return surveysAll(t, seeker, nodes) })
			placed, _, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
			if err != nil {
				t.Errorf("Place by %s: %v", seeker.ID(), err)
			}
			seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
		}

		own := nodes[0].sharding.Home()
		busy := slices.DeleteFunc(slices.Clone(nodes), func(n *testNode) bool { return n.sharding.Home() != own })
		for _, n := range busy {
			for i := range 6 { // of 10: still good enough to stop the search there
				dhttest.Eventually(t, func() error { return n.ledger.Admit(time.Now(), fmt.Sprint("viewer", i), view()) })
			}
			n.Publisher.Kick()
		}
		for _, seeker := range busy {
			dhttest.Eventually(t, func() error {
				placed, d, err := seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
				if err != nil {
					return err
				}
				seeker.Seeker.ReleaseLease(t.Context(), placed.Lease)
				if len(busy) < len(nodes) && slices.ContainsFunc(busy, func(n *testNode) bool { return n.ID() == placed.Lease.Target }) {
					return fmt.Errorf("placed in the busy shard; asked %+v", d.Asked)
				}
				return nil
			})
		}
	})
}

// surveysAll returns an error that names the nodes that a survey of the region
// by seeker misses. It fails the test if such a survey claims to be complete
// although the holders have had the records of those nodes throughout.
func surveysAll(t *testing.T, seeker *testNode, nodes []*testNode) error {
	t.Helper()
	held := func() map[peer.ID]Topic {
		homes := make(map[peer.ID]Topic)
		for _, n := range nodes {
			home, copies := n.sharding.Home(), 0
			for _, h := range nodes {
				if h.table.Get(time.Now(), home, n.ID()) != nil {
					copies++
				}
			}
			if copies > holder.Replicas/2 {
				homes[n.ID()] = home
			}
		}
		return homes
	}
	before := held()
	s, err := seeker.Reader.Survey(t.Context(), ShardTopic("test", ""))
	after := held()
	if err != nil {
		return err
	}
	missed := others(nodes, seeker.ID())
	for _, c := range s.Candidates {
		missed = slices.DeleteFunc(missed, func(id peer.ID) bool { return id == c.Record.Node })
	}
	if len(missed) == 0 {
		return nil
	}
	var where []string
	for _, id := range missed {
		where = append(where, fmt.Sprintf("%s in %q, then %q", id, before[id], after[id]))
		if len(s.Silent) == 0 && before[id] != "" && before[id] == after[id] {
			t.Errorf("a survey that all holders have answered misses %s, which is held in %s", id, after[id])
		}
	}
	return fmt.Errorf("a survey of the region misses %s; without %v", strings.Join(where, "; "), s.Silent)
}

// The index of regions names the nearest, one node each.
func TestIndexNamesEachRegionOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNode(t, nil)
		now := time.Now()
		for i, region := range []string{"eu", "us", "eu", "ap", "us", "eu"} {
			key := dhttest.Key(t)
			r := capacity.Record{Node: dhttest.ID(t, key), Seq: uint64(i + 1), Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.MaxTTL, Region: region}
			if err := n.table.Put(now, now, holder.RegionsTopic, r, seal(t, r, key)); err != nil {
				t.Fatal(err)
			}
		}
		reply, err := n.holding.Query(now, n.ID(), &pb.Query{Topic: string(holder.RegionsTopic), Need: &cpb.Need{}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range reply.GetSealed() {
			r, err := signed.OpenRecord(b, now)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Region)
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"ap", "eu", "us"}) || reply.Held != 6 {
			t.Errorf("regions %q, %d held", got, reply.Held)
		}
		reply, err = n.holding.Query(now, n.ID(), &pb.Query{Topic: string(holder.RegionsTopic), Need: &cpb.Need{}, Limit: 2})
		if err != nil || len(reply.GetSealed()) != 2 {
			t.Errorf("%d regions where 2 were asked for", len(reply.GetSealed()))
		}
	})
}

// A leaving holder passes its table to the node that replaces it.
func TestLeavingHolderHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 12)
		topic := ShardTopic("test", "")
		dhttest.Eventually(t, func() error { // all agree on the holders and are connected
			for _, n := range nodes {
				if h := n.Holders(topic); !slices.Equal(h, nodes[0].Holders(topic)) || len(h) != holder.Replicas {
					return fmt.Errorf("%s and %s disagree on the holders", n.ID(), nodes[0].ID())
				}
			}
			return nil
		})
		var leaver, heir *testNode
		for _, n := range nodes {
			id, ok := n.dir.Heir(time.Now(), topic)
			if !ok {
				continue
			}
			i := slices.IndexFunc(nodes, func(m *testNode) bool { return m.ID() == id })
			leaver, heir = n, nodes[i]
			if n.Host().Network().Connectedness(id) == network.Connected {
				break
			}
		}
		if err := leaver.Host().Connect(t.Context(), heir.info()); err != nil {
			t.Fatal(err)
		}
		// The successor knows nothing, and no node advertises to it in the
		// meantime.
		gone := nodes[0]
		for _, n := range nodes {
			if n != leaver && n != heir {
				gone = n
			}
		}
		held := leaver.table.Get(time.Now(), topic, gone.ID())
		if held == nil {
			t.Fatalf("%s does not hold the record of %s", leaver.ID(), gone.ID())
		}
		heir.table.Forget(topic)
		began := time.Now()
		leaver.handOver()
		way := time.Since(began) // counts as lived by neither
		got := heir.table.Get(time.Now(), topic, gone.ID())
		if got == nil || got.Record.Seq < held.Record.Seq {
			t.Fatalf("the heir holds %v", got)
		}
		if longer := got.Expires.Sub(held.Expires); longer > way+100*time.Millisecond && got.Record.Seq == held.Record.Seq {
			t.Errorf("the copy lives %v longer than the original", longer)
		}

		// Hand-overs from nodes that are no holders, and forged records, are
		// refused.
		copies := func(sealed []byte, ms uint32) *pb.Request {
			return &pb.Request{Op: &pb.Request_HandOver{HandOver: &pb.HandOver{Topic: string(topic), Copies: []*pb.Copy{{Sealed: sealed, HeldMs: ms}}}}}
		}
		key := dhttest.Key(t)
		r := capacity.Record{Node: dhttest.ID(t, key), Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.DefaultTTL, Region: "test"}
		good := seal(t, r, key)
		outside := heir
		for _, n := range nodes {
			if !slices.Contains(heir.Holders(topic), n.ID()) && n != heir {
				outside = n
			}
		}
		if heir.dir.Predecessor(time.Now(), topic, outside.ID()) != nil {
			if resp := heir.answers(outside.ID(), copies(good, 0)); resp.Error == "" {
				t.Error("a node that is no holder handed records over")
			}
		}
		for name, c := range map[string]struct {
			sealed []byte
			ms     uint32
		}{
			"forged":   {append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1), 0},
			"run out":  {good, uint32(capacity.DefaultTTL.Milliseconds())},
			"no bytes": {nil, 0},
		} {
			if resp := heir.answers(leaver.ID(), copies(c.sealed, c.ms)); resp.Error != "" || resp.GetHandOver().GetTaken() != 0 {
				t.Errorf("%s: %v", name, resp)
			}
		}
		if resp := heir.answers(leaver.ID(), copies(good, 10)); resp.GetHandOver().GetTaken() != 1 {
			t.Errorf("a good copy is not taken: %v", resp)
		}
		if resp := heir.answers(leaver.ID(), copies(good, 10)); resp.GetHandOver().GetTaken() != 1 {
			t.Errorf("twice the same: %v", resp)
		}
		many := &pb.HandOver{Topic: string(topic), Copies: make([]*pb.Copy, holding.MaxCopies+1)}
		if _, err := heir.holding.HandOver(time.Now(), leaver.ID(), many); err == nil {
			t.Error("too many copies at once are taken")
		}
	})
}
