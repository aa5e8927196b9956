package forward

import "time"

const (
	// deliveryWindow is the least time over which a link is judged, and with it
	// between two judgements.
	deliveryWindow = 5 * time.Second
	// deliveryLeast is how many packets have to have been sent within it.
	deliveryLeast = 100
	// deliverySettle of a source is not judged: while a pull begins, packets are
	// sent before all is in place to take them.
	deliverySettle = time.Second
)

// A Tally is what has come by one UpTrack so far, and what its sender says of it.
type Tally struct {
	came int64 // packets, repairs included
	lost int64 // gaps in their numbering that are not repaired

	report *sourceReport // the last one; nil: none yet
}

// A sourceReport is a sender report (RFC 3550, section 6.4.1) as it came.
type sourceReport struct {
	sent uint32 // packets, by the sender's count, modulo 2³²
	came int64  // of the tally, then
}

// since returns how many packets were sent after from, by the sender's reports,
// and which share of them has come.
//
// Neither count can be trusted alone. A gap in the numbering may be a packet
// that the sender lacks itself, which its reports show. Between two reports
// fewer may seem to have come than have, while some wait to be read, which the
// numbering shows. So the share is the larger of both; if nothing has come at
// all, there is no numbering, and the reports have the word.
func (t Tally) since(from Tally) (sent int64, share float64) {
	if t.report == nil || from.report == nil {
		return 0, 1
	}
	sent = int64(int32(t.report.sent - from.report.sent))
	if sent <= 0 {
		return 0, 1
	}
	share = float64(t.report.came-from.report.came) / float64(sent)
	came, lost := t.came-from.came, t.lost-from.lost
	if came > 0 {
		share = max(share, float64(came)/float64(came+max(0, lost)))
	}
	return sent, min(1, max(0, share))
}

// A Delivery judges which share of what its peer sends comes over a link. It is
// owned by one goroutine. The zero value is ready.
type Delivery struct {
	began time.Time // of the window
	marks map[*UpTrack]*mark
}

// A mark is where an UpTrack was when the window began.
type mark struct {
	seen time.Time // that it sends, first
	from *Tally    // nil until it has settled
}

// Begin starts a window at now, with the UpTracks where tallies say.
func (d *Delivery) Begin(now time.Time, tallies map[*UpTrack]Tally) {
	d.began = now
	for s, m := range d.marks {
		if t, still := tallies[s]; still && m.from != nil {
			m.from = &t
		}
	}
}

// Observe takes in how far the UpTracks are, and returns the share that came
// within the window if that is over and tells enough.
func (d *Delivery) Observe(now time.Time, tallies map[*UpTrack]Tally) (share float64, ok bool) {
	if d.marks == nil {
		d.marks = map[*UpTrack]*mark{}
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
		case m == nil && (t.came > 0 || t.report != nil):
			d.marks[s] = &mark{seen: now}
		case m == nil:
		case m.from != nil:
			settled = true
			n, share := t.since(*m.from)
			sent += float64(n)
			came += share * float64(n)
		case now.Sub(m.seen) >= deliverySettle && t.report != nil:
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
