package client

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogramQuantiles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Microseconds, from nothing to an hour.
		us := rapid.SliceOfN(rapid.Int64Range(0, 3_600_000_000), 1, 300).Draw(rt, "us")
		var a, b, h histogram
		for i, v := range us {
			half := &a
			if i%2 == 0 {
				half = &b
			}
			half.observe(time.Duration(v) * time.Microsecond)
		}
		h.add(&a)
		h.add(&b)
		slices.Sort(us)
		for _, q := range []float64{0, 0.5, 0.9, 0.99} {
			// The value at that rank, or the one before it.
			rank := int(q * float64(len(us)))
			low, high := float64(us[max(0, rank-1)]), float64(us[rank])
			got := float64(h.quantile(q).Microseconds())
			if got < low-1-low/100 || got > high+1+high/100 {
				rt.Fatalf("quantile %v = %v µs, want %v to %v, to 1 %%", q, got, low, high)
			}
		}
		if h.count != uint64(len(us)) || h.min.Microseconds() != us[0] || h.max.Microseconds() != us[len(us)-1] {
			rt.Fatalf("count %d, min %v, max %v", h.count, h.min, h.max)
		}
	})
}

func TestHistogramEdges(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 || h.latency() != nil {
		t.Error("an empty histogram says something")
	}
	h.observe(-time.Millisecond) // clocks that differ
	h.observe(math.MaxInt64)
	if l := h.latency(); time.Duration(l.Min) != -time.Millisecond || time.Duration(l.Max) != math.MaxInt64 {
		t.Errorf("latency %+v", l)
	}
}
