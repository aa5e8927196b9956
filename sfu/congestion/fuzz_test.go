package congestion

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// Whatever the far end says, the estimate stays within headroom of what was
// sent, and reading it takes no more steps than it has bits.
func FuzzFeedback(f *testing.F) {
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 1, 0, 0x20, 3, 4, 4, 4, 0})
	f.Add([]byte{0xaf, 205, 0, 10, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 1, 0, 0x20, 20, 144, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 0, 2})
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff, 0x1f, 0xff})
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 5, 0, 28, 0x80, 0, 0, 0, 0xbf, 0xff, 0xd5, 0x55, 0xe6, 0x66, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		steps, named := 0, 0
		_ = read(b, func(uint32) {}, func(s statuses) { steps, named = steps+1, named+s.n })
		if steps > 8*len(b) || named > 1<<16 {
			t.Fatalf("%d steps for %d packets, in %d bytes", steps, named, len(b))
		}
		var e Estimator
		now := time.Duration(0)
		const rate = 1e6
		for i := range 2000 {
			now += 8 * time.Millisecond
			e.Sent(now, 1000)
			if i%20 == 19 && len(b) >= 20 {
				m := append([]byte(nil), b...)
				m[0], m[1] = 0x8f, 205
				if i%40 == 39 { // about what was sent; otherwise as it came
					binary.BigEndian.PutUint16(m[12:], uint16(i-19))
				}
				_ = e.Feedback(now, m)
				e.Tick(now)
			}
		}
		s := e.Status()
		if bits := float64(s.Bitrate); bits > max(start, 1.2*headroom*rate) || s.Known && bits < least || s.Loss < 0 || s.Loss > 1 {
			t.Fatalf("%+v", s)
		}
		if c := (&Chooser{}).Choose(now, s, []int64{1, 0, -1, math.MaxInt64}, 0, true); c.Limit < 0 || c.Probe < 0 {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzREMB(f *testing.F) {
	f.Add(0.0)
	f.Add(math.Inf(1))
	f.Add(math.NaN())
	f.Add(-1.0)
	f.Fuzz(func(t *testing.T, bitrate float64) {
		var e Estimator
		e.REMB(0, bitrate)
		if s := e.Status(); s.Known && (s.Bitrate < least || s.Bitrate > most) {
			t.Fatalf("%+v", s)
		}
	})
}

// To number a packet allocates nothing, and feedback little.
func TestSendingDoesNotAllocate(t *testing.T) {
	var e Estimator
	now := time.Duration(0)
	e.Sent(0, 1000)
	if n := testing.AllocsPerRun(10_000, func() {
		now += 2 * historyTime / historyStart
		e.Sent(now, 1000)
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkSent(b *testing.B) {
	var e Estimator
	for i := range b.N {
		e.Sent(time.Duration(i)*time.Millisecond, 1100)
	}
}
