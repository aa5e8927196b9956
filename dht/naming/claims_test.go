package naming

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
)

// A claimant is one node of a model of the claims' protocol: a poll without
// time and network.
type claimant struct {
	claims claims
	id     peer.ID
	own    *ownClaim
	ballot ballot
	asked  map[peer.ID]bool
	done   string // "got it", "refused", "not known"
}

// Of several nodes that claim one name at the same time, never two get it, in
// whatever order messages arrive, are lost or repeated, and however far their
// views of the holders differ as long as majorities have one in common; and if
// nothing is lost, one gets it.
func TestOneClaimantGetsTheName(t *testing.T) {
	const topic = holder.Topic("stream/show")
	now := time.Unix(1_000_000, 0)
	got := 0
	for seed := range uint64(3_000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		nodes := make(map[peer.ID]*claimant)
		var ids []peer.ID
		for i := range 3 + rnd.IntN(8) {
			id := peer.ID(fmt.Sprintf("node%02d", i))
			ids = append(ids, id)
			nodes[id] = &claimant{id: id}
		}
		holders := ids[:min(len(ids), holder.Replicas)]
		lossy := seed%2 == 1
		var takers []*claimant
		for _, i := range rnd.Perm(len(ids))[:2+rnd.IntN(2)] {
			c := nodes[ids[i]]
			c.own, _ = c.claims.begin(topic, nil)
			c.asked = make(map[peer.ID]bool)
			c.ballot = ballot{
				self: c.id, taking: true, voters: holders, must: directory.Majority(len(holders)),
				said: make(map[peer.ID]pb.ClaimReply_Own), rivals: make(map[peer.ID]time.Time), errs: make(map[peer.ID]string),
				gone: func(peer.ID, time.Time) bool { return false },
			}
			// One of its holders is not known to the others.
			if view := slices.Clone(holders); len(ids) > len(holders) && rnd.IntN(2) == 0 {
				view[len(view)-1] = ids[len(holders)]
				c.ballot.voters = view
			}
			takers = append(takers, c)
		}
		// answer does the same as here and heard.
		answer := func(from *claimant, at *claimant) {
			word := pb.ClaimReply_FREE
			if at != from {
				word = at.claims.meet(topic, at.id, from.id, true)
			}
			at.claims.note(now, topic, from.id)
			if lossy && rnd.IntN(4) == 0 {
				return // the answer gets lost
			}
			from.ballot.said[at.id] = word
			for p := range at.claims.of(now, topic) {
				if p != from.id {
					from.ballot.rivals[p] = now
				}
			}
		}
		for steps := 0; steps < 400; steps++ {
			c := takers[rnd.IntN(len(takers))]
			if c.done != "" {
				continue
			}
			to := slices.Concat(c.ballot.voters, rivalsOf(&c.ballot))
			to = slices.DeleteFunc(to, func(p peer.ID) bool { _, heard := c.ballot.said[p]; return heard })
			switch {
			case c.own.rival != "", c.ballot.taken() != nil:
				c.claims.end(topic, c.own)
				c.done = "refused"
			case c.ballot.hearing().Enough() && c.ballot.unheard() == "" && rnd.IntN(2) == 0:
				if _, ok := c.claims.settle(now, c.own); ok {
					c.done = "got it"
				} else {
					c.claims.end(topic, c.own)
					c.done = "refused"
				}
			case len(to) > 0:
				answer(c, nodes[to[rnd.IntN(len(to))]])
			}
		}
		winners := 0
		for _, c := range takers {
			switch c.done {
			case "got it":
				winners++
			case "":
				c.done = "not known"
			}
		}
		got += winners
		if winners > 1 || winners == 0 && !lossy {
			var ends []string
			for _, c := range takers {
				ends = append(ends, fmt.Sprintf("%s %s", c.id, c.done))
			}
			t.Fatalf("seed %d, %d nodes: %v", seed, len(ids), ends)
		}
	}
	if got < 2_000 {
		t.Errorf("the name was given %d times in 3000 runs", got)
	}
}

func rivalsOf(b *ballot) (list []peer.ID) {
	for p := range b.rivals {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// A name is free when most voters have answered that it is, and every node they
// named has denied it.
func TestBallot(t *testing.T) {
	const free, published, taking, yielded = pb.ClaimReply_FREE, pb.ClaimReply_PUBLISHED, pb.ClaimReply_TAKING, pb.ClaimReply_YIELDED
	voters := []peer.ID{"a", "b", "c", "d", "e"}
	for name, c := range map[string]struct {
		words   map[peer.ID]pb.ClaimReply_Own
		rivals  []peer.ID
		gone    peer.ID
		free    bool
		taken   peer.ID
		asking  bool
		unheard peer.ID
	}{
		"nobody has answered":                     {},
		"two of five know of nothing":             {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free}},
		"three of five know of nothing":           {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free}, free: true},
		"one that is no holder does not count":    {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "x": free}},
		"a holder publishes it":                   {words: map[peer.ID]pb.ClaimReply_Own{"a": published}, taken: "a"},
		"one is named that has not answered":      {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free}, rivals: []peer.ID{"x"}, unheard: "x"},
		"one is named that is gone":               {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free}, rivals: []peer.ID{"x"}, gone: "x", free: true},
		"one is named that denies it":             {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free, "x": free}, rivals: []peer.ID{"x"}, free: true},
		"one is named that has given way":         {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free, "x": yielded}, rivals: []peer.ID{"x"}, free: true},
		"one is named that goes first":            {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": free, "x": taking}, rivals: []peer.ID{"x"}, taken: "x"},
		"who only asks is not told of who claims": {words: map[peer.ID]pb.ClaimReply_Own{"a": free, "b": free, "c": taking}, asking: true, free: true},
	} {
		b := ballot{self: "me", taking: !c.asking, voters: voters, must: directory.Majority(len(voters)), said: c.words, rivals: map[peer.ID]time.Time{},
			gone: func(p peer.ID, _ time.Time) bool { return p == c.gone }}
		for _, p := range c.rivals {
			b.rivals[p] = time.Time{}
		}
		var at peer.ID
		if taken := b.taken(); taken != nil {
			at = taken.At
		}
		if at != c.taken || b.unheard() != c.unheard {
			t.Errorf("%s: taken at %q, %q is not heard; want %q and %q", name, at, b.unheard(), c.taken, c.unheard)
		}
		if free := at == "" && b.unheard() == "" && b.hearing().Enough(); free != c.free {
			t.Errorf("%s: free is %v, of %v", name, free, b.hearing())
		}
	}
}

// A name is held by the right, and since the time, of the publisher that has it now.
func TestHeldByWhoHasIt(t *testing.T) {
	const topic = holder.Topic("stream/show")
	var c claims
	settled := time.Unix(1_000_000, 0)
	held := func(after, age time.Duration, of string, alice, bob bool) {
		t.Helper()
		for right, want := range map[string]bool{"alice": alice, "bob": bob} {
			got, same := c.held(settled.Add(after), topic, "asker", prove([]byte(right), topic, "asker"))
			if got != age || same != want {
				t.Errorf("%s: held for %v, not %v; by the right of %s %t, not %t", of, got, age, right, same, want)
			}
		}
	}
	own, _ := c.begin(topic, []byte("alice"))
	c.pass(settled, topic, []byte("bob"))
	held(0, 0, "pending", false, false)
	c.settle(settled, own)
	held(time.Minute, time.Minute, "alice's", true, false)
	c.pass(settled.Add(time.Minute), topic, []byte("bob"))
	held(time.Minute+time.Second, time.Second, "passed to bob", false, true)
	c.pass(settled.Add(time.Hour), topic, nil)
	held(2*time.Hour, time.Hour, "passed to one without a right", false, false)
	c.end(topic, own)
	c.pass(settled.Add(time.Hour), topic, []byte("bob"))
	held(2*time.Hour, 0, "given up", false, false)
}

// A peer's new claims replace its own oldest ones, not those of others, and
// claims expire.
func TestClaimsAreBounded(t *testing.T) {
	var c claims
	now := time.Unix(1_000_000, 0)
	c.note(now, "stream/honest", "honest")
	for i := range 2 * maxClaimsPeer {
		c.note(now.Add(time.Duration(i)), holder.Topic(fmt.Sprintf("stream/s%d", i)), "greedy")
	}
	if c.total != maxClaimsPeer+1 || c.peers["greedy"] != maxClaimsPeer {
		t.Errorf("%d claims are kept, %d of one peer", c.total, c.peers["greedy"])
	}
	if got := c.of(now, "stream/s0"); len(got) > 0 {
		t.Errorf("the oldest is kept: %v", got)
	}
	for i := range maxClaims {
		c.note(now.Add(time.Second), holder.Topic(fmt.Sprintf("stream/t%d", i)), peer.ID(fmt.Sprintf("p%d", i%40)))
	}
	if c.total > maxClaims {
		t.Errorf("%d claims are kept", c.total)
	}
	if got := c.of(now.Add(time.Second), "stream/honest"); len(got) != 1 || got["honest"] != time.Second {
		t.Errorf("claimed by %v", got)
	}
	if got := c.of(now.Add(claimTTL), "stream/honest"); len(got) > 0 {
		t.Errorf("claimed for ever by %v", got)
	}
	c.sweep(now.Add(time.Minute))
	if c.total != 0 || len(c.topics) != 0 || len(c.peers) != 0 {
		t.Errorf("%d claims are left", c.total)
	}
}
