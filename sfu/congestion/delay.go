package congestion

import (
	"math"
	"time"
)

// Constants of the delay detector. Where nothing else is said they are those of
// draft-ietf-rmcat-gcc-02, section 5.
const (
	// burstTime is how far apart packets of one group are sent, and spreadTime
	// how far apart they come: a frame that takes longer says so before its end.
	burstTime  = 5 * time.Millisecond
	spreadTime = 50 * time.Millisecond
	// trendGroups is how many groups the trend is fitted to, and trendSmooth the
	// share of the old value in the smoothed delay: a least-squares line in
	// place of the draft's Kalman filter, as browsers have it today, since it
	// needs no model of the noise.
	trendGroups = 20
	trendSmooth = 0.9
	// trendGain scales the slope to the threshold's unit, milliseconds; the
	// number of groups counts up to trendCount.
	trendGain  = 4
	trendCount = 60
	// trendRecent is how many groups back the delay is compared with.
	trendRecent = 4
	// The threshold adapts, so that flows that fill queues do not starve this
	// one: it follows a higher trend by upGain a millisecond, and a lower one by
	// downGain, which are what browsers use with this trend.
	thresholdStart = 12.5 // ms
	thresholdMin   = 6
	thresholdMax   = 600
	thresholdJump  = 15 // ms beyond it: an outlier that it does not follow
	upGain         = 0.0087
	downGain       = 0.039
	thresholdStep  = 100 * time.Millisecond // at most
	overuseTime    = 10 * time.Millisecond
	// arrivalJump between two groups is a jump of the far end's clock, or an
	// outage: the trend begins anew.
	arrivalJump = 3 * time.Second
)

// A signal says what the delay does.
type signal uint8

const (
	steady signal = iota
	overuse
	underuse
)

// A group is the packets of one burst.
type group struct {
	first, sent    time.Duration // when its first packet and its last were
	began, arrived time.Duration // the same, for arrival
	any            bool
}

// A trend detects whether the delay of packets rises. The zero value is ready.
type trend struct {
	group, before group

	groups      int
	accumulated float64 // ms of delay, since the beginning
	smoothed    float64
	origin      time.Duration // arrival of the first group
	points      [trendGroups]struct{ at, delay, raw float64 }

	threshold float64 // ms
	adapted   time.Duration
	over      time.Duration // for how long
	last      float64       // trend before
	signal    signal
}

// add takes a packet that has come. Packets come in the order of their numbers.
func (t *trend) add(sent, arrived time.Duration) {
	switch g := &t.group; {
	case !g.any:
		*g = group{sent, sent, arrived, arrived, true}
	case sent < g.first:
		// reordered
	case sent-g.first <= burstTime && arrived-g.began <= spreadTime, arrived-g.arrived <= burstTime && arrived-g.arrived < sent-g.sent:
		// The latter came with the group before it, out of a queue on the way.
		g.sent, g.arrived = sent, max(g.arrived, arrived)
	default:
		t.finish()
		t.before, t.group = t.group, group{sent, sent, arrived, arrived, true}
	}
}

// finish takes the group, which is complete.
func (t *trend) finish() {
	if !t.before.any {
		return
	}
	sent, arrived := t.group.sent-t.before.sent, t.group.arrived-t.before.arrived
	if arrived > arrivalJump || arrived < -arrivalJump || sent > arrivalJump {
		*t = trend{group: t.group}
		return
	}
	if arrived < 0 {
		return // reordered
	}
	if t.groups == 0 {
		t.origin, t.threshold, t.adapted = t.group.arrived, thresholdStart, t.group.arrived
	}
	t.accumulated += ms(arrived - sent)
	t.smoothed = trendSmooth*t.smoothed + (1-trendSmooth)*t.accumulated
	p := &t.points[t.groups%trendGroups]
	p.at, p.delay, p.raw = ms(t.group.arrived-t.origin), t.smoothed, t.accumulated
	t.groups++
	if t.groups >= 2 {
		t.detect(float64(min(t.groups, trendCount))*t.slope()*trendGain, arrived)
	}
}

// slope fits a line to the points, in ms of delay a ms.
func (t *trend) slope() float64 {
	points := t.points[:min(t.groups, trendGroups)]
	var at, delay float64
	for _, p := range points {
		at += p.at
		delay += p.delay
	}
	at, delay = at/float64(len(points)), delay/float64(len(points))
	var num, den float64
	for _, p := range points {
		num += (p.at - at) * (p.delay - delay)
		den += (p.at - at) * (p.at - at)
	}
	if den == 0 {
		return 0
	}
	return num / den
}

// detect compares a trend with the threshold. apart is the time between the
// last two groups.
func (t *trend) detect(now float64, apart time.Duration) {
	switch {
	case now > t.threshold && t.drains():
		t.signal, t.over = underuse, 0
	case now > t.threshold:
		t.over += apart
		if t.over > overuseTime && now >= t.last {
			t.signal, t.over = overuse, 0
		}
	case now < -t.threshold:
		t.signal, t.over = underuse, 0
	default:
		t.signal, t.over = steady, 0
	}
	t.last = now
	t.adapt(math.Abs(now))
}

// drains reports whether the delay is falling already, which the smoothed one
// shows later.
func (t *trend) drains() bool {
	return t.groups > trendRecent && t.accumulated < t.points[(t.groups-1-trendRecent)%trendGroups].raw
}

// adapt lets the threshold follow the trend.
func (t *trend) adapt(size float64) {
	step := min(max(0, t.group.arrived-t.adapted), thresholdStep)
	t.adapted = t.group.arrived
	if size > t.threshold+thresholdJump {
		return
	}
	gain := upGain
	if size < t.threshold {
		gain = downGain
	}
	t.threshold = min(max(thresholdMin, t.threshold+gain*(size-t.threshold)*ms(step)), thresholdMax)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
