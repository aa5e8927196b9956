package congestion

import (
	"testing"
	"time"
)

// The history remembers what was sent in historyTime, within its bound.
func TestHistoryIsBounded(t *testing.T) {
	for _, c := range []struct {
		apart time.Duration
		most  int
	}{{20 * time.Millisecond, historyStart}, {2 * time.Millisecond, 1024}, {time.Microsecond, historyMost}} {
		var h history
		for i := range 20_000 {
			h.add(time.Duration(i)*c.apart, 1000)
		}
		if len(h.slots) > c.most {
			t.Errorf("packets %v apart: %d are remembered", c.apart, len(h.slots))
		}
		acks := h.take(nil, uint16(h.next-20), 20, true, 0)
		if len(acks) != 20 {
			t.Errorf("packets %v apart: %d of the last 20 are known", c.apart, len(acks))
		}
		if again := h.take(nil, uint16(h.next-20), 20, true, 0); len(again) != 0 {
			t.Errorf("a copy acknowledges %d packets", len(again))
		}
	}
}
