package nack

import "time"

// rttUnknown is used for the round trip while nothing is known of it.
const rttUnknown = 100 * time.Millisecond

// rttLeast is the least estimate.
const rttLeast = time.Millisecond

// An RTT is how long answers to requests take: a round trip, and what the far
// end needs. It begins with a measurement of another kind, if there is one, and
// goes on with the answers. The zero value is ready.
type RTT struct{ smooth time.Duration }

// Begin takes a measurement, unless there are answers already.
func (r *RTT) Begin(d time.Duration) {
	if r.smooth == 0 && d > 0 {
		r.smooth = d
	}
}

// Estimate returns the time that an answer takes.
func (r *RTT) Estimate() time.Duration {
	if r.smooth == 0 {
		return rttUnknown
	}
	return r.smooth
}

// answered records that a packet has come: first after the first request for it,
// last after the last one, of so many. It reports false if that is too soon to be
// an answer: the packet was only late.
//
// As in TCP, an answer counts if there was one request (Karn and Partridge,
// "Improving Round-Trip Time Estimates in Reliable Transport Protocols", SIGCOMM
// 1987). Of several, it counts as one to the first if it cannot be one to the
// last, which tells that the estimate is too low, and else a quarter as much.
func (r *RTT) answered(first, last time.Duration, times int) bool {
	known := r.smooth
	switch {
	case known == 0:
		r.smooth = first
	case times == 1 && last < known/4:
		r.smooth = known * 3 / 4 // or it is too high
	case times == 1 || last < known/2 || last > 2*known:
		r.smooth += (first - known) / 8
	default:
		r.smooth += (first - known) / 32
	}
	r.smooth = min(max(r.smooth, rttLeast), againMost)
	return times > 1 || known == 0 || last >= known/4
}
