package client

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A histogram counts durations with a precision of about one percent. The zero
// histogram is ready to use. A negative duration, caused by clocks that differ,
// counts as 0, and one beyond an hour as an hour; min and max are exact.
type histogram struct {
	values   *hdrhistogram.Histogram // of µs; nil: none yet
	count    uint64
	min, max time.Duration
}

const (
	longest = time.Hour
	digits  = 2 // significant decimal digits
)

func (h *histogram) observe(d time.Duration) {
	h.widen(d, d)
	h.count++
	_ = h.values.RecordValue(min(max(d, 0), longest).Microseconds()) // within its range
}

// widen makes min and max span low and high too.
func (h *histogram) widen(low, high time.Duration) {
	if h.values == nil {
		h.values = hdrhistogram.New(1, longest.Microseconds(), digits)
		h.min, h.max = low, high
	}
	h.min, h.max = min(h.min, low), max(h.max, high)
}

// quantile returns the duration below which a share q of the observations lies,
// 0 without any.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	d := time.Duration(h.values.ValueAtQuantile(100*q)) * time.Microsecond
	return max(h.min, min(h.max, d))
}

func (h *histogram) add(o *histogram) {
	if o.count == 0 {
		return
	}
	h.widen(o.min, o.max)
	h.count += o.count
	h.values.Merge(o.values)
}
