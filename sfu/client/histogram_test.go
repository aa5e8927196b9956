package client

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogramBuckets(t *testing.T) {
	for i := range bucket(math.MaxUint64) {
		lo, next := lowest(i), lowest(i+1)
		if bucket(lo) != i || bucket(next-1) != i {
			t.Fatalf("bucket %d is [%d, %d), but bucket(%d) = %d and bucket(%d) = %d", i, lo, next, lo, bucket(lo), next-1, bucket(next-1))
		}
	}
	if last, size := bucket(math.MaxUint64), len(new(histogram).buckets); last >= size {
		t.Errorf("the last bucket is %d of %d", last, size)
	}
}

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
			want := float64(us[int(q*float64(len(us)))])
			got := float64(h.quantile(q).Microseconds())
			if math.Abs(got-want) > 1+want/subBuckets {
				rt.Fatalf("quantile %v = %v µs, want %v within 1/%d", q, got, want, subBuckets)
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
