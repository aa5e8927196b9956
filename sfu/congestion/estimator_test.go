package congestion

import (
	"testing"
	"time"
)

// What is sent over a roomy link is carried, and not more than headroom above
// that is claimed, however long it goes on.
func TestEstimateIsBoundedByWhatWasTried(t *testing.T) {
	l := newLink(t, 100e6)
	l.video = 2e6
	lowest := 1e12
	l.run(2*time.Second, nil)
	l.run(5*time.Minute, func() { lowest = min(lowest, l.bits()) })
	if l.bits() > 1.6*l.video || lowest < l.video {
		t.Errorf("estimate from %.0f to %.0f for %.0f sent", lowest, l.bits(), l.video)
	}
}

// A link that suddenly carries less is noticed in time for a layer to be left
// within a second, with a long queue and with a short one.
func TestDropOfCapacity(t *testing.T) {
	for _, queue := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		for _, to := range []float64{0.3e6, 1e6, 2e6} {
			l := newLink(t, 20e6)
			l.queue, l.video = queue, 2.5e6
			l.run(10*time.Second, nil)
			l.capacity = to
			at := l.within(time.Second, func(bits float64) bool { return bits < 0.9*l.video })
			if at < 0 || at > 600*time.Millisecond {
				t.Errorf("queue of %v, to %.1f Mbit/s: noticed after %v; estimate %.0f", queue, to/1e6, at, l.bits())
			}
			l.video = 0.5 * to // a lower layer, now
			l.run(3*time.Second, nil)
			if bits := l.bits(); bits > 1.2*to {
				t.Errorf("queue of %v, to %.1f Mbit/s: estimate %.0f after 4 s", queue, to/1e6, bits)
			}
		}
	}
}

// Noise of the link is no congestion: jitter, and a loss of one packet in
// twenty, take away no more than a layer's rate has as headroom.
func TestNoiseIsNoCongestion(t *testing.T) {
	for name, noisy := range map[string]func(*link){
		"jitter of 5 ms":  func(l *link) { l.jitter = 5 * time.Millisecond },
		"jitter of 30 ms": func(l *link) { l.jitter = 30 * time.Millisecond },
		"loss of 5 %":     func(l *link) { l.loss = 0.05 },
		"feedback once in 250 ms": func(l *link) {
			l.every = 250 * time.Millisecond
		},
	} {
		l := newLink(t, 20e6)
		noisy(l)
		l.video = 2.5e6
		low := 0
		l.run(5*time.Second, nil)
		l.run(60*time.Second, func() {
			if l.bits() < 0.95*l.video {
				low++
			}
		})
		if low > 120 { // of 6,000
			t.Errorf("%s: the estimate was too low %d times", name, low)
		}
	}
}

// Where most packets are lost, what comes is the capacity.
func TestFloodOfLosses(t *testing.T) {
	l := newLink(t, 20e6)
	l.video = 2.5e6
	l.run(5*time.Second, nil)
	l.loss = 0.6
	at := l.within(2*time.Second, func(bits float64) bool { return bits < 0.6*l.video })
	if at < 0 || at > time.Second {
		t.Errorf("noticed after %v, estimate %.0f", at, l.bits())
	}
}

// A flow that fills the queue does not starve video that takes less than half.
func TestCompetingFlow(t *testing.T) {
	l := newLink(t, 4e6)
	l.queue, l.video = 200*time.Millisecond, 1e6
	l.run(5*time.Second, nil)
	lowest := 1e12
	l.run(60*time.Second, func() {
		// Whoever else is there fills the queue up to 150 ms, and lets go.
		if phase := l.now % (4 * time.Second); phase < 2*time.Second {
			l.free = max(l.free, l.now+min(phase/10, 150*time.Millisecond))
		}
		lowest = min(lowest, l.bits())
	})
	if lowest < 0.3e6 {
		t.Errorf("estimate fell to %.0f for %.0f sent", lowest, l.video)
	}
}

// A probe finds the room of a link that was not tried before, and adds little to
// the delay of one that has none.
func TestProbe(t *testing.T) {
	for _, c := range []struct {
		capacity float64
		finds    bool
	}{{20e6, true}, {4e6, true}, {1.2e6, false}} {
		l := newLink(t, c.capacity)
		l.video = 0.5e6
		l.run(5*time.Second, nil)
		before := l.bits()
		var ok bool
		if l.probe, ok = l.e.Probe(l.now, 3e6); !ok {
			t.Fatal("no probe")
		}
		l.probing = true
		if _, twice := l.e.Probe(l.now, 3e6); twice {
			t.Error("two probes at a time")
		}
		l.padding = 0
		worst := time.Duration(0)
		l.run(time.Second, func() { worst = max(worst, l.free-l.now) })
		if bits := l.bits(); c.finds != (bits > 2.5e6) || bits > 3.2e6 || bits < 0.7*before {
			t.Errorf("%.1f Mbit/s: the probe changes %.0f to %.0f", c.capacity/1e6, before, bits)
		}
		if l.padding > int(3e6/8*probeTime.Seconds())+2000 || worst > 200*time.Millisecond {
			t.Errorf("%.1f Mbit/s: padding of %d bytes, a queue of %v", c.capacity/1e6, l.padding, worst)
		}
	}
}

// An outage lowers the estimate, and its end is noticed.
func TestOutage(t *testing.T) {
	l := newLink(t, 20e6)
	l.video = 2.5e6
	l.run(5*time.Second, nil)
	l.loss = 1
	l.run(4*time.Second, func() {})
	if bits := l.bits(); bits > 0.6*l.video {
		t.Errorf("estimate %.0f after 4 s without a packet", bits)
	}
	l.loss, l.video = 0, 0.3e6
	before := l.bits()
	l.run(10*time.Second, func() {})
	if bits := l.bits(); bits < 0.4e6 || bits < before/2 {
		t.Errorf("estimate %.0f 10 s after the outage, %.0f at its end", bits, before)
	}
}

// While nothing is sent the estimate stays, though the last packets before were
// lost, and does not fall for them once something is sent again.
func TestSilenceIsNoOutage(t *testing.T) {
	l := newLink(t, 20e6)
	l.video = 2.5e6
	l.run(5*time.Second, nil)
	l.loss = 1
	l.run(50*time.Millisecond, func() {})
	l.loss, l.video = 0, 0
	before := l.bits()
	l.run(20*time.Second, func() {})
	if bits := l.bits(); bits < before/2 {
		t.Errorf("estimate %.0f after a silence, %.0f before", bits, before)
	}
	l.sent = 0
	l.video = 1e6
	l.run(time.Second, func() {})
	if bits := l.bits(); bits < before/2 {
		t.Errorf("estimate %.0f once something is sent again, %.0f before", bits, before)
	}
}

// An outage is noticed though the far end has sent a REMB, too, as long as it
// has sent feedback lately.
func TestOutageBesideREMB(t *testing.T) {
	l := newLink(t, 20e6)
	l.video = 2.5e6
	l.run(5*time.Second, nil)
	l.e.REMB(l.now, 2e6)
	l.loss = 1
	l.run(4*time.Second, func() {})
	if bits := l.bits(); bits > 0.6*l.video {
		t.Errorf("estimate %.0f after 4 s without a packet", bits)
	}
}

// A far end without transport-wide feedback is believed by REMB; of one that
// has both, REMB is void.
func TestREMB(t *testing.T) {
	var e Estimator
	if e.Status().Known {
		t.Error("known before anything came")
	}
	e.REMB(0, 700e3)
	if s := e.Status(); !s.Known || s.Bitrate != 700e3 {
		t.Errorf("status %+v", s)
	}
	e.REMB(0, 0)
	if s := e.Status(); s.Bitrate != least {
		t.Errorf("REMB of 0: %+v", s)
	}
	e.REMB(0, 1e30)
	if s := e.Status(); s.Bitrate != most {
		t.Errorf("REMB of 1e30: %+v", s)
	}
	l := newLink(t, 20e6)
	l.video = 2e6
	l.run(5*time.Second, nil)
	before := l.bits()
	if l.e.REMB(l.now, 100e3); l.bits() != before {
		t.Errorf("REMB beside feedback: %.0f to %.0f", before, l.bits())
	}
}
