package congestion

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a [Pace].
const (
	// paceBurst is what goes at once, in bytes: one message of 24 packets, and
	// more than most frames that are no keyframes.
	paceBurst = 28 << 10
	// PacePause is the time between two parts of a large frame, each of which is
	// a message again.
	PacePause = 10 * time.Millisecond
	// paceTime is how long a packet may wait: then the rest goes at once.
	paceTime = 200 * time.Millisecond
)

// A Pace spreads large frames: a burst at line rate overflows queues on the way.
// It is a token bucket; the zero value spreads nothing. Any goroutine may call
// its methods.
type Pace struct {
	rate atomic.Int64 // bit/s; 0: not paced

	mu     sync.Mutex
	tokens float64 // bytes
	at     time.Time
}

// Set sets the rate in bit/s; 0: spread nothing.
func (p *Pace) Set(bits int64) { p.rate.Store(bits) }

// Holds reports whether size bytes are too much at once. Where they are not, they
// are taken.
func (p *Pace) Holds(size int, now time.Time) bool {
	rate := p.rate.Load()
	if rate == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = min(paceBurst, p.tokens+float64(rate)/8*now.Sub(p.at).Seconds())
	p.at = now
	if float64(size) > p.tokens {
		return true
	}
	p.tokens -= float64(size)
	return false
}

// Part returns how many bytes go next, of what has waited for so long.
func (p *Pace) Part(waited time.Duration, now time.Time) int {
	rate := p.rate.Load()
	if rate == 0 || waited >= paceTime {
		return math.MaxInt
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := max(p.tokens, float64(rate)/8*PacePause.Seconds(), 1)
	p.tokens, p.at = 0, now
	return int(n)
}
