// Package meter computes rates from totals.
package meter

import "time"

// A Rate computes rates from totals, smoothed over about two seconds. The zero
// value is ready. It has no lock.
type Rate struct {
	at             time.Time
	bytes, packets int64
	bits, rate     float64
	live           bool
}

// smoothing is the time constant of a Rate.
const smoothing = 2 * time.Second

// Observe updates the rates with the totals at now.
func (m *Rate) Observe(now time.Time, bytes, packets int64) {
	if !m.live {
		m.at, m.bytes, m.packets, m.live = now, bytes, packets, true
		return
	}
	dt := now.Sub(m.at).Seconds()
	if dt <= 0 {
		return
	}
	weight := min(1, dt/smoothing.Seconds())
	m.bits += weight * (float64(bytes-m.bytes)*8/dt - m.bits)
	m.rate += weight * (float64(packets-m.packets)/dt - m.rate)
	m.at, m.bytes, m.packets = now, bytes, packets
}

// Rates returns the last rates: bit/s and packets/s.
func (m *Rate) Rates() (bits, packets int64) { return int64(m.bits), int64(m.rate) }
