package congestion

import "time"

const (
	meterBin  = 50 * time.Millisecond
	meterBins = 10
)

// A meter measures a rate over the last half second. The zero value is ready.
type meter struct {
	bins   [meterBins]int // bytes
	newest int64          // bin of the newest packet
	oldest int64          // bin of the first packet of all
	any    bool
}

// add counts bytes at a time. What is older than the meter remembers is left
// out.
func (m *meter) add(at time.Duration, bytes int) {
	bin := int64(at / meterBin)
	if !m.any || bin-m.newest > 1<<20 || m.newest-bin > 1<<20 { // or a clock has jumped
		*m = meter{newest: bin, oldest: bin, any: true}
	}
	for m.newest < bin {
		if bin-m.newest > meterBins {
			m.newest = bin - meterBins
		}
		m.newest++
		m.bins[m.index(m.newest)] = 0
	}
	if m.newest-bin < meterBins {
		m.bins[m.index(bin)] += bytes
	}
}

func (*meter) index(bin int64) int { return int((bin%meterBins + meterBins) % meterBins) }

// rate returns bits per second, without the newest bin, which is not over. It
// reports false while there are fewer than five others.
func (m *meter) rate() (float64, bool) {
	n := min(m.newest-m.oldest, meterBins-1)
	if n < 5 {
		return 0, false
	}
	bytes := 0
	for bin := m.newest - n; bin < m.newest; bin++ {
		bytes += m.bins[m.index(bin)]
	}
	return float64(8*bytes) / (time.Duration(n) * meterBin).Seconds(), true
}
