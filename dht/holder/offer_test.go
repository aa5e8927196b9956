package holder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
)

func compile(t testing.TB, p policy.Policy) *policy.Compiled {
	t.Helper()
	judge, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return judge
}

func testRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func trusted(peer.ID) float64 { return 1 }
func prompt(peer.ID) bool     { return false }

// Two hundred seekers read the same records, which nobody renews meanwhile, of
// forty nodes with room for ten each. Each asks two of eight holders. Hardly
// any chooses a node that is full by then.
func TestSeekersOfStaleRecordsDoNotHerd(t *testing.T) {
	const seekers, targets, room, runs = 200, 40, 10, 5
	judge := compile(t, policy.Default())
	now := time.Now()
	rnd := testRand()
	rejected := 0
	for range runs {
		var tables []*Table
		for range Replicas {
			tables = append(tables, NewTable(DefaultLimits()))
		}
		for i := range targets {
			// Some are half used, some free: the plain best would be a few.
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
			found := make(map[peer.ID]Offer)
			for _, h := range rnd.Perm(Replicas)[:AsksFirst] {
				offers, _, _ := tables[h].Offers(now, judge, Query{Topic: "t", Limit: OfferLimit}, rnd)
				for _, o := range offers {
					o.Holder = peer.ID(fmt.Sprint(h))
					Merge(found, o)
				}
			}
			first := Picks(RankOffers(policy.Ranking{}, found, trusted), judge.Policy().Keep, prompt, rnd)[0].Record.Node
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

func TestShadowsDoNotHideTheLastRoom(t *testing.T) {
	judge := compile(t, policy.Default())
	tab, now := NewTable(DefaultLimits()), time.Now()
	r := rec("a", 1, time.Minute)
	r.URL, r.Sessions.Limit, r.Uplink.Limit = "http://127.0.0.1:1", 4, 1_000_000_000
	for _, r := range []capacity.Record{r, rec("seeker", 1, time.Minute)} {
		if err := tab.Put(now, now, "t", r, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(uplink int64) ([]Offer, int) {
		offers, held, _ := tab.Offers(now, judge, Query{Topic: "t", Need: capacity.Need{Uplink: uplink}, Me: rec("seeker", 1, time.Minute), Limit: 4}, testRand())
		return offers, held
	}
	if o, _ := ask(math.MaxInt64); len(o) != 0 { // fits nowhere
		t.Errorf("offered for a need beyond all limits: %+v", o)
	}
	var stress []float64
	for range 4 {
		o, held := ask(1_000_000)
		if len(o) != 1 || held != 2 {
			t.Fatalf("offers %+v", o)
		}
		if o[0].Record.Sessions.Used != 0 {
			t.Error("the shadow got into the record")
		}
		stress = append(stress, o[0].Stress)
	}
	if want := []float64{0, 0.5, 0, 0}; !slices.Equal(stress, want) {
		t.Errorf("stress as offered %v, want %v", stress, want)
	}
	// The next record makes up for it.
	r.Seq, r.Sessions.Used = 2, 2
	if err := tab.Put(now, now, "t", r, []byte("y")); err != nil {
		t.Fatal(err)
	}
	if o, _ := ask(1_000_000); o[0].Stress != 0.5 {
		t.Errorf("stress after a new record %v", o[0].Stress)
	}
}

// What a holder believes of a node is in the score of its offer already; what
// the seeker believes comes on top.
func TestBeliefInAnOffer(t *testing.T) {
	offer := func(seq uint64, score, believed float64) Offer {
		var o Offer
		o.Record.Node, o.Record.Seq, o.Score, o.Trust = "node", seq, score, believed
		return o
	}
	found := make(map[peer.ID]Offer)
	Merge(found, offer(1, 0.9, 1))
	Merge(found, offer(1, 0.6, 0.4))
	Merge(found, offer(1, 0.8, 1))
	for own, want := range map[float64]Offer{1: offer(1, 0.6, 0.4), 0.5: offer(1, 0.3, 0.4), 0.25: offer(1, 0.15, 0.25)} {
		got := RankOffers(policy.Ranking{}, found, func(peer.ID) float64 { return own })[0]
		if math.Abs(got.Score-want.Score) > 1e-9 || got.Trust != want.Trust {
			t.Errorf("own belief %v: score %v and belief %v, want %v and %v", own, got.Score, got.Trust, want.Score, want.Trust)
		}
	}
	Merge(found, offer(2, 0.9, 1)) // a newer record, of which nothing is said
	if got := found["node"]; got.Trust != 1 || got.Score != 0.9 {
		t.Errorf("after a newer record: %+v", got)
	}
}

// A node of which the seeker has judged a record and a holder offers another is
// one candidate, by the newer of the two.
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
		offers := map[peer.ID]Offer{"a": {Evaluation: verdict(tc.offered, 0.9)}}
		ranked := RankOffers(ranking, offers, trusted)
		if len(ranked) != 1 || ranked[0].Score != tc.want {
			t.Errorf("judged %d, offered %d: ranked %+v, want score %v alone", tc.judged, tc.offered, ranked, tc.want)
		}
		for _, o := range Picks(ranked, 3, prompt, testRand()) {
			if o.Record.Node != "a" {
				t.Errorf("judged %d, offered %d: %q is picked", tc.judged, tc.offered, o.Record.Node)
			}
		}
	}
}
