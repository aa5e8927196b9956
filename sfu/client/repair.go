package client

import (
	"slices"
	"time"
)

// repair selects the packets to request again (NACK, RFC 4585 §6.2.1). pion's
// own generator does not see packets that arrive by RTX, and requests each lost
// packet ten times a second for as long as its window lasts.
type repair struct {
	missing []missing // in the order of their detection
}

type missing struct {
	seq   uint16
	next  time.Time // when to send requests
	tries int
}

const (
	repairDelay = 5 * time.Millisecond  // a packet may have been overtaken
	repairAgain = 50 * time.Millisecond // a request or its answer may be lost
	repairTries = 10                    // then it is too late
	maxMissing  = 256                   // beyond that, a keyframe is cheaper
)

// gap records that the n packets from first on have been skipped.
func (r *repair) gap(first uint16, n int, now time.Time) {
	if n > maxMissing {
		r.missing = r.missing[:0]
		return
	}
	for i := range n {
		r.missing = append(r.missing, missing{seq: first + uint16(i), next: now.Add(repairDelay)})
	}
	if over := len(r.missing) - maxMissing; over > 0 {
		r.missing = slices.Delete(r.missing, 0, over)
	}
}

// came records a packet that arrived late or was sent again.
func (r *repair) came(seq uint16) {
	r.missing = slices.DeleteFunc(r.missing, func(m missing) bool { return m.seq == seq })
}

// due returns the packets to request now.
func (r *repair) due(now time.Time) (seqs []uint16) {
	for i := range r.missing {
		m := &r.missing[i]
		if m.next.After(now) {
			continue
		}
		if m.tries++; m.tries <= repairTries {
			seqs = append(seqs, m.seq)
		}
		m.next = now.Add(repairAgain)
	}
	r.missing = slices.DeleteFunc(r.missing, func(m missing) bool { return m.tries > repairTries })
	return seqs
}
