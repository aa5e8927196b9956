package congestion

import (
	"math"
	"sync"
	"time"
)

// Bounds of an estimate, in bits per second.
const (
	least = 50_000
	most  = 200_000_000
	start = 1_000_000 // before anything is known
)

// Constants of the rate control (draft-ietf-rmcat-gcc-02, section 5.5 and 6).
const (
	beta = 0.85 // of what came, once the delay rises
	// growth is the multiplicative increase in a second, far from what was too
	// much the last time.
	growth = 1.08
	// headroom bounds the estimate by what came: what was not tried is not
	// known.
	headroom = 1.5
	// decreasePause is the least time between two decreases.
	decreasePause = 100 * time.Millisecond
	// settleTime after a decrease what comes may be what has queued up before.
	settleTime = 500 * time.Millisecond
	// appLimited is the share of the estimate that has to be in use for a rising
	// delay to be of our making.
	appLimited = 0.5

	// Losses are counted over lossTime and at least lossPackets.
	lossTime    = 200 * time.Millisecond
	lossPackets = 20
	lossMuch    = 0.10 // less than that is noise of the link, with which rates do not change
	lossFew     = 0.02
	// lossFlood is so much that no noise explains it: the rest is the capacity.
	lossFlood = 0.25

	// silence is how long feedback may be missing while packets are sent.
	silence = time.Second
	// remindful is how long the far end's transport-wide feedback makes its REMB
	// void.
	remindful = 5 * time.Second
	// rttSmooth is the weight of a new round trip (RFC 6298, section 2).
	rttSmooth = 1.0 / 8
)

// An Estimator estimates the capacity of one connection. The zero value is
// ready.
type Estimator struct {
	history history

	mu        sync.Mutex
	acks      []ack // of the message that is being read
	reference int64 // of the last message, in units of reference, not wrapped
	heard     bool  // there was a message
	ready     bool  // what came was enough for an estimate
	first     time.Duration
	at        time.Duration
	trend     trend
	out       meter // what is sent
	total     int64 // of it, bytes
	sent      meter // what came, by when it was sent
	came      meter // and by when it came
	losses    losses
	rate      rate
	rtt       time.Duration
	remb      float64 // 0: none
	probes    prober
}

// A rate is the estimate, and what it changes by.
type rate struct {
	bits      float64
	updated   time.Duration
	decreased time.Duration
	ceiling   float64 // average of what came when it was too much; 0: unknown
	deviation float64 // of it, as a share
}

// losses are those of the last packets.
type losses struct {
	lost, packets int
	since         time.Duration
	share         float64 // over the last time
}

// Status is what an Estimator knows.
type Status struct {
	Known   bool          // the far end has sent feedback or REMB
	Bitrate int64         // estimate, in bits per second of RTP
	Came    int64         // what has come lately, in bits per second; 0: unknown
	Loss    float64       // share lost lately, 0…1
	RTT     time.Duration // with the far end's delay of feedback; 0: unknown
	Overuse bool          // delays rise
}

// Sent takes a packet of size bytes that is sent at now, and returns its
// transport-wide number.
func (e *Estimator) Sent(now time.Duration, size int) uint16 { return e.history.add(now, size) }

// Feedback takes a message of transport-wide feedback, an RTCP packet that has
// come at now. Of one that is malformed the part before the mistake counts.
func (e *Estimator) Feedback(now time.Duration, message []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.acks = e.acks[:0]
	var base time.Duration
	e.history.mu.Lock()
	err := read(message, func(r uint32) { base = e.unwrap(r) }, func(s statuses) {
		e.acks = e.history.take(e.acks, s.first, s.n, s.came, base+s.arrived)
	})
	e.history.mu.Unlock()
	if len(e.acks) == 0 {
		return err // a copy, or about nothing that was sent
	}
	if !e.heard {
		e.heard, e.rate.bits = true, max(e.rate.bits, start)
		e.rate.updated, e.losses.since, e.first = now, now, now
	}
	e.at = now
	for i := range e.acks {
		e.take(now, &e.acks[i])
	}
	e.update(now)
	return err
}

// unwrap returns the reference time of a message. Called with mu held.
func (e *Estimator) unwrap(r uint32) time.Duration {
	if !e.heard {
		e.reference = int64(r)
	}
	ahead := int32(r<<8-uint32(e.reference)<<8) >> 8
	e.reference += int64(ahead)
	return time.Duration(e.reference) * reference
}

// take counts one packet. Called with mu held.
func (e *Estimator) take(now time.Duration, a *ack) {
	switch {
	case a.fate == lost:
		e.losses.packets++
		e.losses.lost++
		e.probes.missing(a)
		return
	case a.revoked:
		e.losses.lost = max(0, e.losses.lost-1)
	default:
		e.losses.packets++
	}
	if e.probes.disturbs(a.sent) {
		e.trend = trend{}
	} else {
		e.trend.add(a.sent, a.arrived)
	}
	e.sent.add(a.sent, int(a.size))
	e.came.add(a.arrived, int(a.size))
	e.probes.came(a)
	if rtt := max(0, now-a.sent); e.rtt == 0 {
		e.rtt = rtt
	} else {
		e.rtt += time.Duration(rttSmooth * float64(rtt-e.rtt))
	}
}

// throughput returns what comes, in bits per second: whatever arrival times the
// far end tells, no more than was sent. Called with mu held.
func (e *Estimator) throughput() (float64, bool) {
	sent, ok := e.sent.rate()
	came, also := e.came.rate()
	return min(sent, came), ok && also
}

// update changes the estimate by what was counted. Called with mu held.
func (e *Estimator) update(now time.Duration) {
	if found, ok := e.probes.result(now); ok {
		e.rate.bits = max(e.rate.bits, found)
		e.rate.ceiling = 0
	}
	total := e.history.total()
	e.out.add(now, int(total-e.total))
	e.total = total
	came, ok := e.throughput()
	if !e.ready && ok && e.trend.signal != overuse {
		e.rate.bits = max(start, headroom*came) // unless the delay says otherwise
	}
	e.ready = e.ready || ok || now-e.first > silence
	sent, _ := e.out.rate()
	e.rate.byDelay(now, e.trend.signal, max(sent, came), came, ok)
	if share, ok := e.losses.over(now); ok {
		e.rate.byLoss(now, share, came)
	}
	e.rate.bits = min(max(least, e.rate.bits), most)
}

// byDelay changes the estimate by what the delay does, where sent is what is
// sent, and came what comes, if that is known.
func (r *rate) byDelay(now time.Duration, s signal, sent, came float64, known bool) {
	elapsed := min(now-r.updated, time.Second)
	r.updated = now
	if !known {
		return
	}
	switch s {
	case overuse:
		if now-r.decreased < decreasePause {
			return
		}
		r.decreased = now
		if to := beta * came; sent < appLimited*r.bits {
			r.bits = max(to, beta*r.bits) // others fill the queue, or it is noise
		} else {
			r.bits = min(r.bits, to)
			r.learn(came)
		}
	case steady:
		if now-r.decreased >= settleTime {
			r.bits = max(r.bits, came) // it is carried
		}
		r.increase(elapsed, came)
	}
}

// increase raises the estimate: slowly near what was too much the last time,
// and never above headroom times what comes.
func (r *rate) increase(elapsed time.Duration, came float64) {
	if r.ceiling > 0 && came > r.ceiling*(1+3*r.deviation) {
		r.ceiling = 0 // the link has changed
	}
	to := r.bits * math.Pow(growth, elapsed.Seconds())
	if r.ceiling > 0 && r.bits > r.ceiling*(1-3*r.deviation) {
		to = r.bits + 8*1200*elapsed.Seconds()/0.2 // a packet in a response time
	}
	r.bits = max(r.bits, min(to, headroom*came))
}

// learn notes what came when it was too much.
func (r *rate) learn(came float64) {
	const weight = 0.05
	if r.ceiling == 0 || math.Abs(came-r.ceiling) > 3*r.deviation*r.ceiling {
		r.ceiling, r.deviation = came, 0.1
		return
	}
	off := math.Abs(came-r.ceiling) / r.ceiling
	r.ceiling += weight * (came - r.ceiling)
	r.deviation = min(max(0.04, r.deviation+weight*(off-r.deviation)), 0.2)
}

// over returns the share that was lost twice in a row, once enough packets were
// counted: of the two the smaller.
func (l *losses) over(now time.Duration) (float64, bool) {
	if now-l.since < lossTime || l.packets < lossPackets {
		return 0, false
	}
	last := l.share
	l.share = float64(l.lost) / float64(l.packets)
	l.lost, l.packets, l.since = 0, 0, now
	return min(last, l.share), true
}

// byLoss lowers the estimate if a share of the packets is lost.
func (r *rate) byLoss(now time.Duration, share, came float64) {
	switch {
	case share <= lossMuch:
	case share >= lossFlood:
		if came == 0 {
			came = r.bits / 2
		}
		r.bits = min(r.bits, came)
		r.decreased = now
	default:
		sent := came / (1 - share)
		r.bits = min(r.bits, max(sent, appLimited*r.bits)) * (1 - share/2)
		r.decreased = now
	}
}

// REMB takes a rate that the far end demands, in bits per second, which counts
// while it sends no transport-wide feedback.
func (e *Estimator) REMB(now time.Duration, bitrate float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if math.IsNaN(bitrate) || bitrate < 0 {
		return
	}
	e.remb = min(max(least, bitrate), most)
	if !e.heard || now-e.at > remindful {
		e.rate.bits = e.remb
	}
}

// Tick is to be called a few times in a second while packets are sent: it lowers
// the estimate if the far end has fallen silent, unless REMB counts.
func (e *Estimator) Tick(now time.Duration) {
	waits := e.history.waiting(now)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.heard || e.remb > 0 && now-e.at > remindful || waits < max(silence, 4*e.rtt) || now-e.rate.decreased < silence/2 {
		return
	}
	e.rate.decreased = now
	e.rate.bits = max(least, e.rate.bits/2)
}

// Status returns what is known now.
func (e *Estimator) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	came, _ := e.throughput()
	return Status{
		Known: e.ready || e.remb > 0, Bitrate: int64(e.rate.bits), Came: int64(came),
		Loss: e.losses.share, RTT: e.rtt, Overuse: e.ready && e.trend.signal == overuse,
	}
}
