package congestion

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
)

// A link is what lies between an Estimator and its far end, in virtual time.
type link struct {
	t        testing.TB
	rnd      *rand.Rand
	capacity float64       // bits per second
	queue    time.Duration // of a full queue
	delay    time.Duration // one way
	jitter   time.Duration
	loss     float64
	every    time.Duration // between feedback

	e    Estimator
	now  time.Duration
	free time.Duration // when the queue is empty
	way  []flight
	rec  *twcc.Recorder
	next time.Duration // feedback
	back []message
	last time.Duration // arrival
	lost int

	video   float64 // bits per second that are sent
	sent    float64 // bits that are due, of video
	probe   Probe
	probing bool
	padding int // bytes sent
}

type flight struct {
	seq     uint16
	arrives time.Duration
}

type message struct {
	b  []byte
	at time.Duration
}

func newLink(t testing.TB, capacity float64) *link {
	return &link{
		t: t, rnd: rand.New(rand.NewPCG(1, 2)), capacity: capacity, queue: 500 * time.Millisecond,
		delay: 20 * time.Millisecond, every: 80 * time.Millisecond, rec: twcc.NewRecorder(5),
	}
}

// occupy takes the link for a packet, and returns when it arrives.
func (l *link) occupy(size int) (time.Duration, bool) {
	l.free = max(l.free, l.now)
	if l.free-l.now > l.queue || l.rnd.Float64() < l.loss {
		l.lost++
		return 0, false
	}
	l.free += time.Duration(float64(8*size) / l.capacity * float64(time.Second))
	at := l.free + l.delay
	if l.jitter > 0 {
		at += time.Duration(l.rnd.Int64N(int64(l.jitter)))
	}
	l.last = max(l.last, at) // it does not reorder
	return l.last, true
}

func (l *link) send(size int) {
	seq := l.e.Sent(l.now, size)
	if at, ok := l.occupy(size); ok {
		l.way = append(l.way, flight{seq, at})
	}
}

// run sends video in frames, 30 a second, for a time; each is called every 10
// ms.
func (l *link) run(d time.Duration, each func()) {
	for end := l.now + d; l.now < end; l.now += time.Millisecond {
		if l.now%(33*time.Millisecond) == 0 {
			for l.sent += l.video * 0.033; l.sent > 0; l.sent -= 8 * 1100 {
				l.send(1100)
			}
		}
		if l.probing {
			for due := l.e.Padding(l.now, l.probe); due > 0; due -= 1000 {
				l.send(1000)
				l.padding += 1000
			}
			if l.now >= l.probe.Until {
				l.e.Probed()
				l.probing = false
			}
		}
		l.way = slices.DeleteFunc(l.way, func(f flight) bool {
			if f.arrives <= l.now {
				l.rec.Record(1, f.seq, int64(f.arrives/time.Microsecond))
			}
			return f.arrives <= l.now
		})
		if l.now >= l.next {
			l.next += l.every
			for _, p := range l.rec.BuildFeedbackPacket() {
				b, err := p.Marshal()
				if err != nil {
					l.t.Fatal(err)
				}
				l.back = append(l.back, message{b, l.now + l.delay})
			}
		}
		l.back = slices.DeleteFunc(l.back, func(m message) bool {
			if m.at > l.now {
				return false
			}
			if err := l.e.Feedback(l.now, m.b); err != nil {
				l.t.Fatal(err)
			}
			return true
		})
		if each != nil && l.now%(10*time.Millisecond) == 0 {
			l.e.Tick(l.now)
			each()
		}
	}
}

func (l *link) bits() float64 { return float64(l.e.Status().Bitrate) }

// within returns how long it takes until the estimate is at most, or at least,
// bits; -1: longer than d.
func (l *link) within(d time.Duration, ok func(bits float64) bool) time.Duration {
	begin, at := l.now, time.Duration(-1)
	l.run(d, func() {
		if at < 0 && ok(l.bits()) {
			at = l.now - begin
		}
	})
	return at
}
