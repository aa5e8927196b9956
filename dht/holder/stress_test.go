package holder

import (
	"math"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/policy"
)

// The mean counts what was offered since, and nobody who takes no placements.
func TestMeanStress(t *testing.T) {
	tab, now := NewTable(DefaultLimits()), time.Now()
	if _, ok := tab.MeanStress(now, "t"); ok {
		t.Error("nobody has a mean")
	}
	for name, r := range map[string]capacity.Record{
		"a": {Sessions: capacity.Usage{Used: 4, Limit: 10}}, "b": {Sessions: capacity.Usage{Used: 6, Limit: 10}},
		"c": {State: capacity.Draining, Sessions: capacity.Usage{Used: 9, Limit: 10}},
	} {
		whole := rec(name, 1, time.Minute)
		whole.Sessions, whole.State, whole.URL = r.Sessions, r.State, "http://127.0.0.1:1"
		if err := tab.Put(now, now, "t", whole, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	mean := func(want float64) {
		t.Helper()
		if got, ok := tab.MeanStress(now, "t"); !ok || math.Abs(got-want) > 1e-5 {
			t.Errorf("%v, want %v", got, want)
		}
	}
	mean(0.5)
	for range 2 {
		tab.Offers(now, compile(t, policy.Default()), Query{Topic: "t", Limit: 1}, testRand())
	}
	if got, _ := tab.MeanStress(now, "t"); got <= 0.5 {
		t.Errorf("%v after two offers, want more than before", got)
	}
	now = now.Add(time.Hour)
	if _, ok := tab.MeanStress(now, "t"); ok {
		t.Error("expired records have a mean")
	}
}
