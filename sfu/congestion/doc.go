// Package congestion estimates how much can be sent to the far end of one
// connection, from its transport-wide feedback
// (draft-holmer-rmcat-transport-wide-cc-extensions-01) or, where it sends none,
// from the rate that it demands (REMB, draft-alvestrand-rmcat-remb-03), and
// decides which bitrate the layers of its video may have.
//
// In go the packets that are sent ([Estimator.Sent]), and RTCP; out come an
// estimate in bits per second, a limit for the choice of layers, and probes:
// how much padding to send, and when. The estimator follows
// draft-ietf-rmcat-gcc-02: one part looks at the trend of the delay, one at
// losses. It differs where a server differs from an encoder: most of the time
// it sends less than it could, so that what it has not tried it does not claim.
//
// There are no clocks, goroutines or packets in here. Times are durations since
// a moment that the caller chooses, and never decrease. Any goroutine may call
// the methods of an Estimator.
package congestion
