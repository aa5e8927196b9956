package congestion

import (
	"math"
	"time"
)

const (
	// keep is the share of a layer's rate that suffices to keep it, and enter
	// that needed to begin it, for enterTime: between the two nothing changes.
	keep      = 0.95
	enter     = 1.1
	enterTime = 400 * time.Millisecond
	// below is the limit that keeps a layer out, as a share of its rate.
	below = 0.9
	// probeFactor is the rate of a probe, as a multiple of the one needed.
	probeFactor = 1.25
	// A layer is tried tryFirst after it was left, and then half as often each
	// time that it fails, down to once in tryLast.
	tryFirst = time.Second
	tryLast  = 16 * time.Second
	// proven is how long a layer has to last to count as a success.
	proven = 8 * time.Second
	// grace is how long a layer that is tried without padding may take to come,
	// from its keyframe on, and show that there is room; unless the delay rises.
	grace = 2 * time.Second
	// blind is how many times rarer a layer is tried by sending it, where padding
	// cannot be sent.
	blind = 4
	// Unlimited is the limit of video that nothing is known against.
	Unlimited = math.MaxInt64
)

// A Chooser bounds the bitrate of one viewer's video by what its connection
// carries, with hysteresis: down at once, up only where there was room for some
// time. It never says that video must end. The zero value is ready.
//
// One goroutine at a time calls its methods.
type Chooser struct {
	begun  bool
	layer  int           // the highest that is allowed
	room   time.Duration // since when the next could be
	roomy  bool
	rose   time.Duration
	tried  time.Duration // when the next was last left, or probed for
	wait   time.Duration // from tried to the next try
	climbs bool          // rose says when
	dared  bool          // without knowing that there is room
}

// A Choice is what a Chooser decides.
type Choice struct {
	Layer int   // the highest that is allowed, by its place in the list
	Limit int64 // of video, bits per second; Unlimited: all layers
	Probe int64 // rate to probe, bits per second; 0: none
}

// Choose decides by an estimate. Video has layers of these bitrates, in
// ascending order, and other media of the connection, which goes first, needs
// other, all in bits per second. Without padding the next layer is tried by
// itself. Of one layer or none there is nothing to choose, and no probe.
func (c *Chooser) Choose(now time.Duration, s Status, layers []int64, other int64, padding bool) Choice {
	top := len(layers) - 1
	if !s.Known || top < 1 {
		c.begun = false
		return Choice{Limit: Unlimited, Layer: max(0, top)}
	}
	if !c.begun {
		*c = Chooser{begun: true, layer: top, tried: now, wait: tryFirst}
	}
	c.layer = min(c.layer, top)
	room := float64(s.Bitrate - other)
	fits := 0
	for i, bitrate := range layers {
		if room >= keep*float64(bitrate) {
			fits = i
		}
	}
	if fits < c.layer && !(c.dared && now-c.rose < grace && !s.Overuse && s.Loss <= lossMuch) {
		c.fall(now, fits)
	}
	var choice Choice
	if c.layer < top {
		choice.Probe = c.climb(now, s, room, layers, other, padding)
	}
	choice.Limit, choice.Layer = Unlimited, c.layer
	if c.layer < top {
		// A little less than the next, whatever that is measured at.
		choice.Limit = max(layers[c.layer], int64(below*float64(layers[c.layer+1])))
	}
	return choice
}

// fall goes down to a layer.
func (c *Chooser) fall(now time.Duration, to int) {
	switch {
	case c.climbs && now-c.rose < proven:
		c.wait = min(2*c.wait, tryLast)
	case now-c.tried >= proven:
		c.wait = tryFirst
	}
	c.layer, c.tried, c.climbs, c.dared, c.roomy = to, now, false, false, false
}

// climb goes up if there has been room for the next layer, or returns the rate
// of a probe that finds out.
func (c *Chooser) climb(now time.Duration, s Status, room float64, layers []int64, other int64, padding bool) (probe int64) {
	next := float64(layers[c.layer+1])
	calm := !s.Overuse && s.Loss <= lossFew
	due := calm && now-c.tried >= c.wait
	switch {
	case room >= enter*next:
		if !c.roomy {
			c.roomy, c.room = true, now
		}
		if now-c.room >= enterTime {
			c.rise(now, false)
		}
	case !due:
		c.roomy = false
	case padding:
		c.roomy, c.tried, c.wait = false, now, min(2*c.wait, tryLast)
		return int64(probeFactor*next) + other
	case now-c.tried >= blind*c.wait:
		c.rise(now, true)
	}
	return 0
}

// rise goes up by a layer; dared: to see whether there is room.
func (c *Chooser) rise(now time.Duration, dared bool) {
	c.layer++
	c.rose, c.climbs, c.dared, c.roomy = now, true, dared, false
	c.tried = now
}
