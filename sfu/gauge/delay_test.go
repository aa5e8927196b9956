package gauge

import (
	"testing"
	"time"
)

func TestDelayIsTheMedianOfTheLastSeconds(t *testing.T) {
	many := func(n int, late time.Duration) []time.Duration {
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = late
		}
		return all
	}
	for _, c := range []struct {
		name string
		late []time.Duration
		want time.Duration
	}{
		{"nothing seen yet", nil, 0},
		{"one pause does not count", append(many(delayWindow-1, time.Millisecond), time.Second), time.Millisecond},
		{"half of the time does", append(many(delayWindow/2, time.Second), many(delayWindow/2+1, 60*time.Millisecond)...), 60 * time.Millisecond},
		{"what is older does not", append(many(delayWindow, time.Second), many(delayWindow, 0)...), 0},
		{"a clock that jumps back is not early", many(3, -time.Second), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m delayMeter
			for _, late := range c.late {
				m.observe(late)
			}
			if got := m.median(); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
