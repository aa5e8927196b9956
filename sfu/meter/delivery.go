package meter

import "time"

const (
	// deliveryWindow is the least time over which a link is judged, and the
	// least time between two judgements.
	deliveryWindow = 5 * time.Second
	// deliveryLeast is the least number of packets sent within it.
	deliveryLeast = 100
	// deliverySettle is the time after the start of a source that is not
	// judged: while a pull begins, packets are sent before this end is ready to
	// receive them.
	deliverySettle = time.Second
)

// A Tally counts the packets received from one source so far, and holds the last
// report of their sender.
type Tally struct {
	Came int64 // packets received, repairs included
	Lost int64 // gaps in their sequence numbers that are not repaired

	Report *SourceReport // the last one; nil: none yet
}

// A SourceReport is a sender report (RFC 3550, section 6.4.1) as received.
type SourceReport struct {
	Sent uint32 // the sender's packet count, modulo 2³²
	Came int64  // the Came of the tally at that time
}

// since returns how many packets were sent after from, by the sender's reports,
// and the share of them that has arrived.
//
// Neither count is reliable alone. A gap in the sequence numbers may be a
// packet that the sender itself lacks, which its reports show. Between two
// reports fewer packets may seem to have arrived than have, while some wait to
// be read, which the sequence numbers show. So the share is the larger of both;
// if nothing has arrived at all, there are no sequence numbers, and the reports
// decide.
func (t Tally) since(from Tally) (sent int64, share float64) {
	if t.Report == nil || from.Report == nil {
		return 0, 1
	}
	sent = int64(int32(t.Report.Sent - from.Report.Sent))
	if sent <= 0 {
		return 0, 1
	}
	share = float64(t.Report.Came-from.Report.Came) / float64(sent)
	came, lost := t.Came-from.Came, t.Lost-from.Lost
	if came > 0 {
		share = max(share, float64(came)/float64(came+max(0, lost)))
	}
	return sent, min(1, max(0, share))
}

// A Delivery measures the share of the packets sent by a peer that arrive over
// a link, from sources that are told apart by S. One goroutine owns it. The zero
// value is ready.
type Delivery[S comparable] struct {
	began time.Time // start of the window
	marks map[S]*mark
}

// A mark is the state of a source at the start of the window.
type mark struct {
	seen time.Time // when it was first seen sending
	from *Tally    // nil within deliverySettle
}

// Begin starts a window at now, with the current tallies of the sources.
func (d *Delivery[S]) Begin(now time.Time, tallies map[S]Tally) {
	d.began = now
	for s, m := range d.marks {
		if t, still := tallies[s]; still && m.from != nil {
			m.from = &t
		}
	}
}

// Observe processes the current tallies of the sources. It returns the share
// that arrived within the window if the window is over and has enough packets.
func (d *Delivery[S]) Observe(now time.Time, tallies map[S]Tally) (share float64, ok bool) {
	if d.marks == nil {
		d.marks = map[S]*mark{}
	}
	for s := range d.marks {
		if _, still := tallies[s]; !still {
			delete(d.marks, s)
		}
	}
	var sent, came float64
	settled := false
	for s, t := range tallies {
		m := d.marks[s]
		switch {
		case m == nil && (t.Came > 0 || t.Report != nil):
			d.marks[s] = &mark{seen: now}
		case m == nil:
		case m.from != nil:
			settled = true
			n, share := t.since(*m.from)
			sent += float64(n)
			came += share * float64(n)
		case now.Sub(m.seen) >= deliverySettle && t.Report != nil:
			m.from = &t
		}
	}
	if !settled {
		d.began = now
	}
	if now.Sub(d.began) < deliveryWindow || sent < deliveryLeast {
		return 0, false
	}
	d.Begin(now, tallies)
	return came / sent, true
}
