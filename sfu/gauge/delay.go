package gauge

import (
	"slices"
	"time"
)

const (
	// delayEvery is the time between two looks at how late a timer is.
	delayEvery = 50 * time.Millisecond
	// delayWindow is over how many of them the median is taken, two seconds: a
	// pause for garbage or a burst of another program refuses no client.
	delayWindow = 40
)

// A delayMeter computes by how much this process is late in doing what is due.
// A packet that has arrived waits as a timer that has expired does: for a
// thread to get a core, and for its goroutine's turn on that thread. Unlike the
// CPU share, it also shows what other programs and other virtual machines take.
// It belongs to one goroutine.
type delayMeter struct {
	last [delayWindow]time.Duration
	seen int
}

// observe takes by how much a timer was late.
func (m *delayMeter) observe(late time.Duration) {
	m.last[m.seen%delayWindow] = max(0, late)
	m.seen++
}

// median is the median of the last delays, 0 if there are none yet.
func (m *delayMeter) median() time.Duration {
	n := min(m.seen, delayWindow)
	if n == 0 {
		return 0
	}
	sorted := slices.Clone(m.last[:n])
	slices.Sort(sorted)
	return sorted[(n-1)/2]
}
