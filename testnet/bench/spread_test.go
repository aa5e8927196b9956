package bench

import (
	"testing"
	"time"

	"weir/capacity"
)

func TestSpread(t *testing.T) {
	upTo := func(n int) []float64 {
		var all []float64
		for i := n; i >= 1; i-- {
			all = append(all, float64(i))
		}
		return all
	}
	for name, c := range map[string]struct {
		values []float64
		want   Spread
	}{
		"nothing measured is all zero":           {nil, Spread{}},
		"one value is every quantile":            {[]float64{7}, Spread{1, 7, 7, 7, 7, 7, 7}},
		"of two values the lower is the median":  {[]float64{9, 1}, Spread{2, 1, 1, 9, 9, 9, 5}},
		"of 30 values p95 is the second largest": {upTo(30), Spread{30, 1, 15, 29, 30, 30, 15.5}},
		"of 100 values p99 is the 99th":          {upTo(100), Spread{100, 1, 50, 95, 99, 100, 50.5}},
		"values below zero keep their order":     {[]float64{0, -2, 2}, Spread{3, -2, 0, 2, 2, 2, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spreadOf(c.values); got != c.want {
				t.Errorf("spreadOf = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSpreadBy(t *testing.T) {
	got := spreadBy([]time.Duration{3 * time.Millisecond, 1500 * time.Microsecond}, capacity.Milliseconds)
	if got.Min != 1.5 || got.Max != 3 || got.N != 2 {
		t.Errorf("spreadBy = %+v, want 1.5 to 3 of 2", got)
	}
}
