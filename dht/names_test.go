package dht

import (
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
	"weir/dht/dhttest"
	"weir/dht/inspect"
	"weir/dht/naming"
	"weir/dht/pb"
)

// publishers returns the other nodes at which stream is published.
func (n *testNode) publishers(t *testing.T, stream string) (at []peer.ID, err error) {
	all, err := n.Names.Publishers(t.Context(), stream, nil)
	for _, p := range all {
		at = append(at, p.Node)
	}
	return at, err
}

// publishedAt asks n until it finds stream at want.
func (n *testNode) publishedAt(t *testing.T, stream string, want peer.ID) {
	t.Helper()
	dhttest.Eventually(t, func() error {
		if at, err := n.publishers(t, stream); err != nil || !slices.Equal(at, []peer.ID{want}) {
			return fmt.Errorf("%s: published at %v, %v", stream, at, err)
		}
		return nil
	})
}

// Each of more streams than one answer to FETCH can list is found where it is
// published, although the node has stopped admitting sessions.
func TestPublisherIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		at := nodes[0]
		var names []string
		for i := range inspect.MaxFetch + 6 {
			names = append(names, fmt.Sprintf("s%d", i))
		}
		at.ledger.SetDraining(true)
		at.carry(names...)
		for _, name := range names {
			nodes[1].publishedAt(t, name, at.ID())
		}
		if a, err := nodes[1].Seeker.Find(t.Context(), StreamTopic("s0"), view(), nil); err != nil || len(a.Candidates) > 0 {
			t.Errorf("the node takes viewers: %+v, %v", a, err)
		}
		if at, err := at.publishers(t, "s0"); err != nil || len(at) > 0 {
			t.Errorf("asked at the node itself: %v, %v", at, err)
		}
		if at, err := nodes[1].publishers(t, "free"); err != nil || len(at) > 0 {
			t.Errorf("a free name is published at %v, %v", at, err)
		}
	})
}

// A relay of a stream is not its publisher.
func TestRelayIsNoPublisher(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		origin, relay := nodes[0], nodes[1]
		relay.mu.Lock()
		relay.streams = []capacity.StreamInfo{{Stream: "show", Path: []peer.ID{origin.ID(), relay.ID()}, Parent: origin.ID(), Depth: 1}}
		relay.mu.Unlock()
		relay.Publisher.Kick()
		dhttest.Eventually(t, func() error { return nodes[2].sees(StreamTopic("show"), []*testNode{relay}) })
		if at, err := nodes[2].publishers(t, "show"); err != nil || len(at) > 0 {
			t.Errorf("published at %v, %v", at, err)
		}
		origin.carry("show")
		nodes[2].publishedAt(t, "show", origin.ID())
	})
}

// The records of a crashed node neither block its stream's name nor hide a new
// publisher of it.
func TestCrashedPublisherIsNotBelieved(t *testing.T) {
	t.Parallel()
	nodes := newTestNetwork(t, 4)
	nodes[0].carry("show")
	for _, n := range nodes[1:] {
		n.publishedAt(t, "show", nodes[0].ID())
	}
	if err := nodes[0].Host().Close(); err != nil {
		t.Fatal(err)
	}
	if at, err := nodes[1].publishers(t, "show"); err != nil || len(at) > 0 {
		t.Errorf("published at %v, %v", at, err)
	}
	nodes[1].carry("show")
	for _, n := range nodes[2:] {
		n.publishedAt(t, "show", nodes[1].ID())
	}
}

// Hanging holders neither hide a publisher nor delay one.
func TestHungHoldersDoNotDelayPublishers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		nodes[0].carry("show")
		asker := newClient(t, nodes)
		var fakes []peer.ID
		for range 2 {
			f := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: hang})
			asker.connect(t, f)
			fakes = append(fakes, f.host.ID())
		}
		asker.publishedAt(t, "show", nodes[0].ID())
		for _, name := range []string{"show", "free"} {
			dhttest.Eventually(t, func() error {
				for _, p := range fakes {
					if !slices.Contains(asker.Holders(StreamTopic(name)), p) {
						return errors.New("not known yet")
					}
				}
				return nil
			})
			asker.nearest(fakes)
			start := time.Now()
			at, err := asker.publishers(t, name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took >= naming.PollTime {
				t.Errorf("%s: took %v", name, took)
			}
			if want := map[string][]peer.ID{"show": {nodes[0].ID()}}[name]; !slices.Equal(at, want) {
				t.Errorf("%s: published at %v, want %v", name, at, want)
			}
		}
	})
}

// Only streams have names to claim.
func TestNameOfWhatIsNoStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 1)
		f := newFake(t, nodes[0].info(), nil)
		claim := &pb.Claim{Topic: string(testHome), Intent: pb.Claim_TAKE}
		if resp := f.call(t, nodes[0].ID(), &pb.Request{Op: &pb.Request_Claim{Claim: claim}}); resp.Error == "" {
			t.Errorf("answered %v", resp)
		}
	})
}

// A name is claimed once, visible everywhere while it is taken, and free again
// after its release.
func TestClaim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 3)
		release, err := nodes[0].Names.Claim(t.Context(), "show", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			_, err := n.Names.Claim(t.Context(), "show", nil)
			if taken := new(naming.Taken); !errors.As(err, &taken) || taken.At != nodes[0].ID() {
				t.Errorf("claimed again: %v", err)
			}
		}
		release()
		again, err := nodes[1].Names.Claim(t.Context(), "show", nil)
		if err != nil {
			t.Fatalf("not free again: %v", err)
		}
		again()
	})
}

// A publisher of the same right takes a name over at once, and any other when the
// node says so; who is told of it is told for how long the name has been held.
func TestClaimTakesOver(t *testing.T) {
	for _, c := range []struct {
		name        string
		right       string // of the second
		silent      bool   // the first publisher
		takes, same bool
	}{
		{"the same right", "token of alice", false, true, true},
		{"another right", "token of bob", false, false, false},
		{"no right", "", false, false, false},
		{"no right, from one that is silent", "", true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 3)
				first, second := nodes[0], nodes[1]
				first.yields(func(_ string, same bool) bool { return same || c.silent })
				release, err := first.Names.Claim(t.Context(), "show", []byte("token of alice"))
				if err != nil {
					t.Fatal(err)
				}
				defer release()
				time.Sleep(2 * time.Second)
				all, err := second.Names.Publishers(t.Context(), "show", []byte(c.right))
				if err != nil || len(all) != 1 || all[0].Same != c.same || all[0].Held < 2*time.Second || all[0].Held > 4*time.Second {
					t.Errorf("published at %+v, %v", all, err)
				}
				again, err := second.Names.Claim(t.Context(), "show", []byte(c.right))
				if taken := new(naming.Taken); (err == nil) != c.takes || err != nil && !errors.As(err, &taken) {
					t.Fatalf("taken over: %v", err)
				}
				if err == nil {
					defer again()
					all, err := nodes[2].Names.Publishers(t.Context(), "show", nil)
					if err != nil || len(all) != 1 || all[0].Node != second.ID() {
						t.Errorf("published at %+v, %v", all, err)
					}
				}
			})
		})
	}
}

// A proof is good for one node only: who has seen it cannot claim by it.
func TestProofIsOfItsSender(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNetwork(t, 1)[0]
		node.yields(func(_ string, same bool) bool { return same })
		release, err := node.Names.Claim(t.Context(), "show", []byte("right"))
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		for name, proof := range map[string][]byte{"none": nil, "short": {1}, "the right itself": []byte("right"), "long": make([]byte, 1<<10)} {
			reply, err := node.Names.Answer(time.Now(), "stranger", &pb.Claim{Topic: string(StreamTopic("show")), Intent: pb.Claim_TAKE, Proof: proof})
			if err != nil || reply.Own != pb.ClaimReply_PUBLISHED || reply.SameRight {
				t.Errorf("%s: %v, %v", name, reply, err)
			}
		}
	})
}

// A claimant that gave way to a concurrent claim gets the name all the same if
// the other claim was given up by then.
func TestGivingWayToWhoGaveUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asker := newTestNetwork(t, 1)[0]
		topic := StreamTopic("show")
		var late sync.Once
		gaveWay := make(chan pb.ClaimReply_Own, 1)
		f := newFake(t, asker.info(), map[protocol.ID]network.StreamHandler{testRecords: answer(func(_ peer.ID, req *pb.Request) *pb.Response {
			if req.GetClaim().GetIntent() == pb.Claim_TAKE {
				// During its claim, the question of a smaller ID arrives.
				late.Do(func() {
					reply, err := asker.Names.Answer(time.Now(), peer.ID("\x00"), &pb.Claim{Topic: string(topic), Intent: pb.Claim_TAKE})
					if err != nil {
						t.Error(err)
					}
					gaveWay <- reply.GetOwn()
				})
			}
			return &pb.Response{Op: &pb.Response_Claim{Claim: &pb.ClaimReply{Own: pb.ClaimReply_FREE}}}
		})})
		asker.connect(t, f)
		dhttest.Eventually(t, func() error {
			if !slices.Contains(asker.Holders(topic), f.host.ID()) {
				return errors.New("not known yet")
			}
			return nil
		})
		release, err := asker.Names.Claim(t.Context(), "show", nil)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if got := <-gaveWay; got != pb.ClaimReply_YIELDED {
			t.Errorf("the other was told %v, want that it may go first", got)
		}
	})
}

// An answer of too few holders is neither yes nor no, for names and for
// streams, and the error says so.
func TestSilenceIsNotNo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 1)
		asker := nodes[0]
		var fakes []peer.ID
		for range 2 {
			f := newFake(t, asker.info(), map[protocol.ID]network.StreamHandler{testRecords: hang})
			asker.connect(t, f)
			fakes = append(fakes, f.host.ID())
		}
		dhttest.Eventually(t, func() error {
			for _, p := range fakes {
				if !slices.Contains(asker.Holders(StreamTopic("show")), p) {
					return errors.New("not known yet")
				}
			}
			return nil
		})
		_, err := asker.Seeker.Find(t.Context(), StreamTopic("show"), view(), nil)
		silent := new(Unanswered)
		if !errors.As(err, &silent) || silent.Hearing.Holders != 3 || silent.Hearing.Heard != 1 || len(silent.Hearing.Silent) != 2 {
			t.Errorf("found: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if release, err := asker.Names.Claim(ctx, "show", nil); !errors.Is(err, ErrUnanswered) {
			t.Errorf("claimed: %v, %v", release != nil, err)
		}
		// They hang for good: then they do not count any more.
		release, err := asker.Names.Claim(t.Context(), "show", nil)
		if err != nil {
			t.Fatalf("not claimed in spite of them: %v", err)
		}
		release()
		// They may hold records that no other node has, until those records have
		// expired.
		if _, err := asker.Seeker.Find(t.Context(), StreamTopic("other"), view(), nil); !errors.As(err, &silent) || silent.Hearing.Holders != 3 || silent.Hearing.Heard != 1 {
			t.Errorf("found after they counted as gone: %v", err)
		}
		if _, heard, err := asker.Reader.Read(t.Context(), StreamTopic("other")); !errors.As(err, &silent) || heard.Heard != 1 || len(heard.Silent) != 2 {
			t.Errorf("inspected after they counted as gone: heard %+v, %v", heard, err)
		}
	})
}
