package place

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
)

func compile(t testing.TB, p policy.Policy) *policy.Compiled {
	t.Helper()
	judge, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return judge
}

func trusted(peer.ID) float64 { return 1 }
func prompt(peer.ID) bool     { return false }

// Two hundred seekers read the same records, not renewed meanwhile, of forty
// nodes with room for ten each. Each asks two of eight holders. Hardly any
// chooses a node that is full by then.
func TestSeekersOfStaleRecordsDoNotHerd(t *testing.T) {
	const seekers, targets, room, runs = 200, 40, 10, 5
	judge := compile(t, policy.Default())
	now := time.Now()
	rnd := testRand()
	rejected := 0
	for range runs {
		var tables []*holder.Table
		for range holder.Replicas {
			tables = append(tables, holder.NewTable(holder.DefaultLimits()))
		}
		for i := range targets {
			// Some are half used, some free: only a few would be best.
			r := capacity.Record{
				Node: peer.ID(fmt.Sprintf("target %d", i)), Seq: 1, TTL: time.Minute, URL: "http://127.0.0.1:1",
				Sessions: capacity.Usage{Used: int64(i % 4), Limit: room + int64(i%4)},
			}
			for _, tab := range tables {
				if err := tab.Put(now, now, "t", r, []byte("sealed")); err != nil {
					t.Fatal(err)
				}
			}
		}
		taken := make(map[peer.ID]int)
		for range seekers {
			found := make(map[peer.ID]holder.Offer)
			for _, h := range rnd.Perm(holder.Replicas)[:holder.QueryFirst] {
				offers, _, _ := tables[h].Offers(now, judge, holder.Query{Topic: "t", Limit: OfferLimit}, rnd)
				for _, o := range offers {
					o.Holder = peer.ID(fmt.Sprint(h))
					Merge(found, o)
				}
			}
			first := Order(Rank(policy.Ranking{}, found, trusted), judge.Policy().Keep, prompt, rnd)[0].Record.Node
			if taken[first] == room {
				rejected++
			} else {
				taken[first]++
			}
		}
	}
	share := float64(rejected) / (runs * seekers)
	t.Logf("%.1f %% of first choices were full by then", share*100)
	if share > 0.02 {
		t.Errorf("%.1f %% of first choices were full by then, want hardly any", share*100)
	}
}

// The score of an offer includes the holder's trust in the node; the seeker's
// own trust scales it further.
func TestBeliefInAnOffer(t *testing.T) {
	offer := func(seq uint64, score, believed float64) holder.Offer {
		var o holder.Offer
		o.Record.Node, o.Record.Seq, o.Score, o.Trust = "node", seq, score, believed
		return o
	}
	found := make(map[peer.ID]holder.Offer)
	Merge(found, offer(1, 0.9, 1))
	Merge(found, offer(1, 0.6, 0.4))
	Merge(found, offer(1, 0.8, 1))
	for own, want := range map[float64]holder.Offer{1: offer(1, 0.6, 0.4), 0.5: offer(1, 0.3, 0.4), 0.25: offer(1, 0.15, 0.25)} {
		got := Rank(policy.Ranking{}, found, func(peer.ID) float64 { return own })[0]
		if math.Abs(got.Score-want.Score) > 1e-9 || got.Trust != want.Trust {
			t.Errorf("own belief %v: score %v and belief %v, want %v and %v", own, got.Score, got.Trust, want.Score, want.Trust)
		}
	}
	Merge(found, offer(2, 0.9, 1)) // a newer record, without reports
	if got := found["node"]; got.Trust != 1 || got.Score != 0.9 {
		t.Errorf("after a newer record: %+v", got)
	}
}

// A node whose record the seeker has judged, and of which a holder offers
// another, is one candidate, by the newer of the two.
func TestOffersOfOneNodeAreOneCandidate(t *testing.T) {
	for _, tc := range []struct {
		judged, offered uint64
		want            float64
	}{
		{1, 2, 0.9},
		{2, 2, 0.5},
		{3, 2, 0.5},
	} {
		verdict := func(seq uint64, score float64) policy.Evaluation {
			return policy.Evaluation{Candidate: policy.Candidate{Record: capacity.Record{Node: "a", Seq: seq}}, Score: score}
		}
		ranking := policy.Ranking{Passed: []policy.Evaluation{verdict(tc.judged, 0.5)}}
		offers := map[peer.ID]holder.Offer{"a": {Evaluation: verdict(tc.offered, 0.9)}}
		ranked := Rank(ranking, offers, trusted)
		if len(ranked) != 1 || ranked[0].Score != tc.want {
			t.Errorf("judged %d, offered %d: ranked %+v, want score %v alone", tc.judged, tc.offered, ranked, tc.want)
		}
		for _, o := range Order(ranked, 3, prompt, testRand()) {
			if o.Record.Node != "a" {
				t.Errorf("judged %d, offered %d: %q is tried", tc.judged, tc.offered, o.Record.Node)
			}
		}
	}
}
