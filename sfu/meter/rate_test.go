package meter

import (
	"testing"
	"time"
)

func TestRateFollowsTheTotals(t *testing.T) {
	const interval = 250 * time.Millisecond
	var m Rate
	now := time.Unix(0, 0)
	var bytes, packets int64
	m.Observe(now, bytes, packets)
	if bits, _ := m.Rates(); bits != 0 {
		t.Errorf("%d bit/s from one reading", bits)
	}
	for range 80 { // 20 s of 1 Mbit/s in 100 packets/s
		now = now.Add(interval)
		bytes, packets = bytes+31250, packets+25
		m.Observe(now, bytes, packets)
	}
	if bits, rate := m.Rates(); bits < 990_000 || bits > 1_010_000 || rate < 99 || rate > 101 {
		t.Errorf("%d bit/s, %d packets/s; want 1 Mbit/s, 100", bits, rate)
	}
	m.Observe(now, bytes+1<<40, packets) // no time has passed: no new rate
	for range 40 {                       // silence
		now = now.Add(interval)
		m.Observe(now, bytes, packets)
	}
	if bits, _ := m.Rates(); bits > 20_000 {
		t.Errorf("%d bit/s after 10 s of silence", bits)
	}
}
