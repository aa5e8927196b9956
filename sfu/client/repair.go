package client

import (
	"slices"
	"time"
)

// repair says which packets to ask for again (NACK, RFC 4585 §6.2.1). pion's own
// generator does not see what arrives by RTX, and asks for each lost packet ten
// times a second for as long as its window lasts.
type repair struct {
	missing []missing // in the order in which they were missed
}

type missing struct {
	seq   uint16
	next  time.Time // when to ask
	tries int
}

const (
	repairDelay = 5 * time.Millisecond  // a packet may have been overtaken
	repairAgain = 50 * time.Millisecond // a request or its answer may be lost
	repairTries = 10                    // then it is too late to be of use
	maxMissing  = 256                   // beyond, a keyframe is cheaper
)

// gap takes note that the n packets from first on have been skipped.
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

// came takes note of a packet that arrived late or was sent again.
func (r *repair) came(seq uint16) {
	r.missing = slices.DeleteFunc(r.missing, func(m missing) bool { return m.seq == seq })
}

// due returns what to ask for now.
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
