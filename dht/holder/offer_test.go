package holder

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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
	// The next record corrects it.
	r.Seq, r.Sessions.Used = 2, 2
	if err := tab.Put(now, now, "t", r, []byte("y")); err != nil {
		t.Fatal(err)
	}
	if o, _ := ask(1_000_000); o[0].Stress != 0.5 {
		t.Errorf("stress after a new record %v", o[0].Stress)
	}
}
