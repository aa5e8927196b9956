package nack

import (
	"slices"
	"time"
)

const (
	// reorderLeast is how long a packet may be overtaken by others before it is
	// taken for lost, and reorderMost the most that this grows to on a path that
	// reorders more.
	reorderLeast = 5 * time.Millisecond
	reorderMost  = 50 * time.Millisecond
	// againLeast and againMost bound the time after which a packet is requested
	// again: one and a half round trips.
	againLeast = 20 * time.Millisecond
	againMost  = 500 * time.Millisecond
	// A path that has not answered hasty requests may be down for a moment: the
	// others are slow apart.
	hasty = 3
	slow  = 100 * time.Millisecond
	// After useful, or four requests if these take longer, a missing packet comes
	// too late for most players, and a keyframe repairs more. It is still
	// requested for as long again, as a recorder, or a node that waits for its own
	// parent's repair, has use for it; and times bounds the requests.
	useful = time.Second
	times  = 20
	// maxMissing bounds the packets that are missed at once, and what a jump of
	// the sequence numbers can be taken for.
	maxMissing = 512
	// maxBehind is how many packets a packet may come late. One from further
	// behind begins another numbering.
	maxBehind = 1 << 12
	// share bounds the requests by the packets that come: enough for the loss of
	// half of all packets and half of all requests and answers, and no more for
	// a stream of nothing but gaps. maxShare can be saved up.
	share    = 4
	maxShare = 2 * maxMissing
)

// A Log is what is missing of one stream. The zero value is ready.
type Log struct {
	began   bool
	highest uint64    // number of the newest packet; its lower 16 bits are the sequence number
	key     uint64    // of the newest keyframe
	missing []missing // by number
	reorder time.Duration
	budget  int // requests
	lost    bool
}

type missing struct {
	number uint64
	since  time.Time
	first  time.Time // the first request
	asked  time.Time // the last
	due    time.Time // the next
	times  int       // requests so far
	late   bool      // too late for players
}

// Came records that the packet seq has arrived at now, from whichever stream.
// Rtt learns how long the answers to requests take.
func (l *Log) Came(seq uint16, now time.Time, rtt *RTT) {
	ahead := int64(int16(seq - uint16(l.highest)))
	switch {
	case !l.began, ahead < -maxBehind:
		if !l.began {
			l.budget = maxShare
		}
		*l = Log{began: true, highest: 1<<32 | uint64(seq), reorder: reorderLeast, budget: l.budget, lost: l.lost}
	case ahead > maxMissing:
		l.missing = l.missing[:0]
		l.highest += uint64(ahead)
		l.lost = true
	case ahead > 0:
		l.budget = min(maxShare, l.budget+share)
		for number := l.highest + 1; number < l.highest+uint64(ahead); number++ {
			l.miss(number, now)
		}
		l.highest += uint64(ahead)
	case ahead < 0:
		l.late(l.highest-uint64(-ahead), now, rtt)
	}
}

// miss records that a packet is missing.
func (l *Log) miss(number uint64, now time.Time) {
	if len(l.missing) == maxMissing {
		l.giveUp(l.missing[0])
		l.missing = slices.Delete(l.missing, 0, 1)
	}
	l.reorder -= (l.reorder - reorderLeast) / 32
	l.missing = append(l.missing, missing{number: number, since: now, due: now.Add(l.reorder)})
}

// late records that a packet that others have overtaken is here.
func (l *Log) late(number uint64, now time.Time, rtt *RTT) {
	i, found := slices.BinarySearchFunc(l.missing, number, func(m missing, n uint64) int { return int(int64(m.number - n)) })
	if !found {
		return
	}
	m := l.missing[i]
	l.missing = slices.Delete(l.missing, i, i+1)
	if m.times == 0 || !rtt.answered(now.Sub(m.first), now.Sub(m.asked), m.times) {
		l.reorder = min(max(l.reorder, now.Sub(m.since)*5/4), reorderMost)
	}
}

// Keyframe records that the packet seq, which has come, begins a keyframe: what
// was lost before need not be repaired by another one.
func (l *Log) Keyframe(seq uint16) {
	l.key = max(l.key, l.highest+uint64(int64(int16(seq-uint16(l.highest)))))
}

// giveUp asks for a keyframe in place of m, once.
func (l *Log) giveUp(m missing) { l.lost = l.lost || m.number > l.key && !m.late }

// Due returns the packets to be requested at now, in their order. They count as
// requested.
func (l *Log) Due(now time.Time, rtt time.Duration) (seqs []uint16) {
	again := min(max(rtt*3/2, againLeast), againMost)
	most := max(useful, 4*again)
	l.missing = slices.DeleteFunc(l.missing, func(m missing) bool {
		over := !m.due.After(now) && (m.times >= times || now.Sub(m.since) > 2*most)
		if over {
			l.giveUp(m)
		}
		return over
	})
	for i := range l.missing {
		m := &l.missing[i]
		if m.due.After(now) {
			continue
		}
		if now.Sub(m.since) > most {
			l.giveUp(*m)
			m.late = true
		}
		wait := again
		if m.times >= hasty {
			wait = max(wait, slow)
		}
		if m.due = now.Add(wait); l.budget == 0 {
			continue
		}
		if m.times == 0 {
			m.first = now
		}
		l.budget--
		m.times++
		m.asked = now
		seqs = append(seqs, uint16(m.number))
	}
	return seqs
}

// Next returns when Due has something to do; ok is false while nothing is
// missing.
func (l *Log) Next() (at time.Time, ok bool) {
	for _, m := range l.missing {
		if !ok || m.due.Before(at) {
			at, ok = m.due, true
		}
	}
	return at, ok
}

// Lost reports whether, since the last call, a packet has become too late that
// followed the newest keyframe.
func (l *Log) Lost() bool {
	lost := l.lost
	l.lost = false
	return lost
}
