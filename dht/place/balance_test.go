package place

import (
	"math"
	"testing"
	"time"
)

// The share of clients that a region sends to each of the others follows from
// what was heard of their loads.
func TestElsewhere(t *testing.T) {
	near := []string{"eu", "us", "ap"}
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		name    string
		heard   map[string]float64
		age     time.Duration // since then
		balance float64
		want    map[string]float64
	}{
		{"nothing is known", nil, 0, 10, nil},
		{"all are equally loaded", map[string]float64{"eu": 0.8, "us": 0.8, "ap": 0.8}, 0, 10, nil},
		{"the own region is the emptiest", map[string]float64{"eu": 0.7, "us": 0.8, "ap": 0.9}, 0, 10, nil},
		{"three percent above the mean", map[string]float64{"eu": 0.83, "us": 0.80, "ap": 0.77}, 0, 10, map[string]float64{"us": 0.1, "ap": 0.2}},
		{"half as much at half the balance", map[string]float64{"eu": 0.83, "us": 0.80, "ap": 0.77}, 0, 5, map[string]float64{"us": 0.05, "ap": 0.1}},
		{"a fuller one gets none", map[string]float64{"eu": 0.83, "us": 0.9, "ap": 0.80}, 0, 10, map[string]float64{"ap": 0.1}},
		{"what is not known gets none, and does not count", map[string]float64{"eu": 0.83, "ap": 0.81}, 0, 10, map[string]float64{"ap": 0.1}},
		{"half of the clients at most", map[string]float64{"eu": 0.95, "us": 0.55, "ap": 0.55}, 0, 10, map[string]float64{"us": 0.25, "ap": 0.25}},
		{"a region with room enough keeps its clients", map[string]float64{"eu": 0.49, "us": 0.1, "ap": 0.1}, 0, 10, nil},
		{"a policy without balance", map[string]float64{"eu": 0.83, "us": 0.80, "ap": 0.77}, 0, 0, nil},
		{"old news does not count", map[string]float64{"eu": 0.83, "us": 0.80, "ap": 0.77}, loadAge, 10, nil},
		{"a region that is not near is left out", map[string]float64{"eu": 0.83, "sa": 0.5}, 0, 10, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l Loads
			for region, stress := range c.heard {
				l.Heard(now, region, stress)
			}
			const draws = 20_000
			rnd, got := testRand(), make(map[string]float64)
			for range draws {
				if r := l.Elsewhere(now.Add(c.age), "eu", near, c.balance, rnd); r != "" {
					got[r] += 1.0 / draws
				}
			}
			for _, r := range append(near, "sa") {
				if math.Abs(got[r]-c.want[r]) > 0.01 {
					t.Errorf("%.3f go to %s, want %.3f", got[r], r, c.want[r])
				}
			}
		})
	}
}

func TestLoadsAreSmoothed(t *testing.T) {
	var l Loads
	now := time.Unix(1_000_000, 0)
	l.Heard(now, "eu", 0.8)
	l.Heard(now, "eu", 0.6)
	if got, _ := l.of(now, "eu"); math.Abs(got-0.7) > 1e-9 {
		t.Errorf("%v, want the mean of old and new", got)
	}
	now = now.Add(loadAge)
	l.Heard(now, "eu", 0.6)
	if got, _ := l.of(now, "eu"); got != 0.6 {
		t.Errorf("%v, want the new value alone, as the other is old", got)
	}
	for i := range 3 * maxLoads {
		l.Heard(now, string(rune('a'+i)), 0.5)
	}
	if len(l.regions) > maxLoads {
		t.Errorf("%d regions remembered, at most %d", len(l.regions), maxLoads)
	}
}

// A loaded region's seeker asks one other region at a time, in turn.
func TestNextToAskForItsLoad(t *testing.T) {
	var l Loads
	near := []string{"us", "eu", "ap"}
	now := time.Unix(1_000_000, 0)
	next := func(want string) {
		t.Helper()
		if got := l.Next(now, "eu", near); got != want {
			t.Errorf("%q is next, want %q", got, want)
		}
	}
	next("") // it does not know its own load
	l.Heard(now, "eu", balanceFrom-0.01)
	next("") // and has room enough
	now = now.Add(loadAge)
	l.Heard(now, "eu", 0.8)
	next("us")
	next("") // it has just asked
	l.Heard(now, "us", 0.7)
	now = now.Add(lookEvery)
	next("ap")
	l.Heard(now, "ap", 0.7)
	now = now.Add(lookEvery)
	next("us")
}
