package holder

import (
	"time"

	"weir/capacity"
)

const (
	mostStress = 100
	stressUnit = 1e6
)

// MeanStress is the mean stress of the nodes with records in topic that take
// placements, with what was offered since; false if there are none.
func (t *Table) MeanStress(now time.Time, topic Topic) (mean float64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	rate := 0.0
	if d := t.drifts[topic]; d != nil {
		rate = d.rate()
	}
	sum, count := int64(0), 0 // integers, so that the order makes no difference
	for _, h := range t.live(topic) {
		if h.Record.State == capacity.Draining {
			continue
		}
		r := h.shadow.on(h.Record, left(rate, now.Sub(h.Received)))
		sum += int64(min(r.Stress(), mostStress) * stressUnit)
		count++
	}
	return float64(sum) / stressUnit / float64(max(1, count)), count > 0
}
