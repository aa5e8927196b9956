package congestion

import "time"

// A probe finds out whether the link carries more: for a short time padding is
// sent beside the media, at the rate in question.
const (
	// probeTime is how long one lasts, and probeLongest if it needs that to have
	// enough packets. On a link that carries half of the rate, it delays media by
	// as much.
	probeTime    = 60 * time.Millisecond
	probeLongest = 250 * time.Millisecond
	// probeBytes bounds one.
	probeBytes = 64 << 10
	// probeLeast is the fewest packets that say something, and probePacket the
	// size of one, in bytes.
	probeLeast  = 8
	probePacket = 1000
	// probePatience is how long the last feedback of one may take.
	probePatience = time.Second
	// probeSettle is how long delays may be up after one.
	probeSettle = 400 * time.Millisecond
	// probeWell is the share of the rate that has to come, of which probeTrust
	// becomes the estimate.
	probeWell  = 0.9
	probeTrust = 0.95
)

// A Probe is padding to be sent.
type Probe struct {
	ID      uint8
	Bitrate int64 // bits per second, with the media that is sent meanwhile
	Begun   time.Duration
	Until   time.Duration
	Bytes   int // of padding, at most
	sent    int64
}

// A prober measures one probe after the other. The zero value is ready.
type prober struct {
	last uint8
	now  Probe // the one whose packets are looked at; ID 0: none

	packets, bytes, lost int
	firstSent, lastSent  time.Duration
	firstCame, lastCame  time.Duration
	firstSize            int
}

// Probe begins a probe at a rate, in bits per second, unless one is under way.
// Send padding as [Estimator.Padding] says, until Until.
func (e *Estimator) Probe(now time.Duration, bitrate int64) (Probe, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.probes
	if p.now.ID != 0 && now < p.now.Until+probePatience {
		return Probe{}, false
	}
	if p.last++; p.last == 0 {
		p.last = 1
	}
	second := float64(bitrate) / 8
	enough := time.Duration(1.5 * probeLeast * probePacket / second * float64(time.Second))
	lasts := min(max(probeTime, enough), probeLongest)
	*p = prober{last: p.last, now: Probe{
		ID: p.last, Bitrate: bitrate, Begun: now, Until: now + lasts, Bytes: min(probeBytes, int(second*lasts.Seconds())),
	}}
	e.history.mark(p.last)
	p.now.sent = e.history.total()
	return p.now, true
}

// Padding returns how many bytes of padding are due at now for a probe, so that
// with all that was sent since its begin its rate is reached.
func (e *Estimator) Padding(now time.Duration, p Probe) int {
	due := float64(p.Bitrate) / 8 * min(now-p.Begun, p.Until-p.Begun).Seconds()
	return max(0, min(int(due), p.Bytes)-int(e.history.total()-p.sent))
}

// Probed ends the sending of a probe.
func (e *Estimator) Probed() { e.history.mark(0) }

func (p *prober) came(a *ack) {
	if a.probe == 0 || a.probe != p.now.ID {
		return
	}
	if p.packets == 0 {
		p.firstSent, p.firstCame, p.lastCame, p.firstSize = a.sent, a.arrived, a.arrived, int(a.size)
	}
	p.packets++
	p.bytes += int(a.size)
	p.lastSent = max(p.lastSent, a.sent)
	p.firstCame, p.lastCame = min(p.firstCame, a.arrived), max(p.lastCame, a.arrived)
}

func (p *prober) missing(a *ack) {
	if a.probe != 0 && a.probe == p.now.ID {
		p.lost++
	}
}

// result returns the rate that a probe has found, once: all of its packets, or
// nearly all, have been reported on.
func (p *prober) result(now time.Duration) (float64, bool) {
	if p.now.ID == 0 || p.packets < probeLeast || p.lastSent < p.now.Until-(p.now.Until-p.now.Begun)/4 && now < p.now.Until+probePatience/2 {
		return 0, false
	}
	well := p.lost*10 <= p.packets
	sent, came := p.lastSent-p.firstSent, p.lastCame-p.firstCame
	p.now.ID = 0
	if !well || sent <= 0 {
		return 0, false
	}
	bits := float64(8 * (p.bytes - p.firstSize))
	out := bits / sent.Seconds()
	in := out
	if came > 0 {
		in = min(out, bits/came.Seconds())
	}
	if in < probeWell*out {
		in *= probeTrust
	}
	return min(in, float64(p.now.Bitrate)), true
}

// disturbs reports whether the delay of what is sent at that time may be of a
// probe's making.
func (p *prober) disturbs(sent time.Duration) bool {
	return p.now.Until > 0 && sent >= p.now.Begun && sent < p.now.Until+probeSettle
}
