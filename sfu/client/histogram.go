package client

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets at most 1/32 wide of their value: what
// it takes to give p99 within 3 % in constant memory. The zero histogram is
// ready to use. Negative durations, which clocks that differ cause, count as 0.
type histogram struct {
	buckets [subBuckets * (65 - subBits)]uint64 // by µs
	count   uint64
	max     time.Duration
	min     time.Duration
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func (h *histogram) observe(d time.Duration) {
	if h.count == 0 || d > h.max {
		h.max = d
	}
	if h.count == 0 || d < h.min {
		h.min = d
	}
	h.count++
	h.buckets[bucket(uint64(max(0, d.Microseconds())))]++
}

// bucket maps v to itself below subBuckets, and above to its magnitude and its
// subBits highest bits.
func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)*subBuckets + int(v>>shift) - subBuckets
}

// lowest is the smallest v that bucket maps to i.
func lowest(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return uint64(i%subBuckets+subBuckets) << shift
}

// quantile returns the duration below which a share q of the observations lies,
// 0 without any.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.count))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			middle := (lowest(i) + lowest(i+1)) / 2
			return max(h.min, min(h.max, time.Duration(middle)*time.Microsecond))
		}
	}
	return h.max
}

func (h *histogram) add(o *histogram) {
	if o.count == 0 {
		return
	}
	if h.count == 0 || o.max > h.max {
		h.max = o.max
	}
	if h.count == 0 || o.min < h.min {
		h.min = o.min
	}
	h.count += o.count
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}
