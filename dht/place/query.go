package place

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/directory"
	"weir/dht/holder"
)

const (
	asksMost = holder.Replicas // holders asked in all…
	asksNear = 4               // …and when there are other topics to turn to
)

// A Query asks the holders of one topic until enough of them have answered.
//
// The first two are asked at the same time. A holder that fails is replaced by
// the next, and so is an overdue one, which may still answer; after an empty
// answer another holder is asked as well. The first answer with a record ends
// the query, except for a moment in which a second one may come.
type Query struct {
	// Holders are asked in this order.
	Holders []peer.ID
	// Patience is how long a holder's answer usually takes at most.
	Patience func(peer.ID) time.Duration
	// First is how many are asked at once; 0: [holder.QueryFirst].
	First int
	// Lacking is how many have to answer before "there is nothing" is an answer.
	Lacking int
	// Near means that other topics can be asked instead: fewer holders are
	// asked in all, and overdue ones are not waited for once every holder was
	// asked.
	Near bool

	began        time.Time
	asked        int       // of Holders, from the front
	waiting      []peer.ID // holders whose answers are expected
	good         int       // answers
	hedge, grace time.Time // deadlines; zero: none
	overdue      bool      // some holder was
	served       bool      // another query of the same search has found something
	done         bool
}

// A QueryStep is what a query wants done next.
type QueryStep struct {
	Ask     []peer.ID // holders to ask now
	Overdue []peer.ID // holders whose answers are late from now on
	Due     time.Time // when to call Tick if nothing happens before; zero: never
	Done    bool      // answers still to come are not waited for
}

// Start asks the first holders.
func (q *Query) Start(now time.Time) (s QueryStep) {
	q.began = now
	q.First = cmp.Or(q.First, holder.QueryFirst)
	q.hedge = now.Add(q.ask(&s, q.First))
	return q.step(s)
}

// Answered takes in that p has answered. Found means that something the query
// looks for is known by now, from any source.
func (q *Query) Answered(now time.Time, p peer.ID, found bool) (s QueryStep) {
	if !q.settle(p) {
		return q.step(s)
	}
	q.good++
	grace := AnswerGrace(now.Sub(q.began))
	switch {
	case found && (q.good >= q.First || q.good > holder.QueryFirst), !found && q.served:
		q.done = true // enough answers
		return q.step(s)
	case found:
	case q.good > holder.QueryFirst && q.good >= q.Lacking:
		q.done = true
		return q.step(s)
	case q.good == 1: // it hides something, or has just become a holder
		q.ask(&s, max(1, q.Lacking-q.asked))
		return q.step(s)
	case q.good < q.Lacking:
		return q.step(s)
	default:
		grace = graceEmpty
	}
	q.grace = now.Add(grace)
	return q.step(s)
}

// Failed takes in that p gave no valid answer.
func (q *Query) Failed(p peer.ID) (s QueryStep) {
	if q.settle(p) {
		q.ask(&s, 1)
	}
	return q.step(s)
}

// FoundElsewhere takes in that another query of the same search has found
// something: this one must not delay it.
func (q *Query) FoundElsewhere() (s QueryStep) {
	q.served = true
	q.done = q.done || q.overdue
	return q.step(s)
}

// Tick takes in that time has passed.
func (q *Query) Tick(now time.Time) (s QueryStep) {
	switch {
	case q.done:
	case passed(now, q.grace):
		q.done = true
	case passed(now, q.hedge):
		s.Overdue = slices.Clone(q.waiting)
		q.overdue = true
		if q.served {
			q.done = true
			break
		}
		q.hedge = time.Time{}
		if patience := q.ask(&s, holder.QueryFirst); patience > 0 {
			q.hedge = now.Add(patience)
		} else if q.Near {
			q.done = true // other topics answer sooner
		}
	}
	return q.step(s)
}

// Pending is how many holders were asked and have not answered.
func (q *Query) Pending() int { return len(q.waiting) }

// ask asks up to count more holders, and returns after which time they are
// overdue; 0: there are none.
func (q *Query) ask(s *QueryStep, count int) (patience time.Duration) {
	most := min(len(q.Holders), asksMost)
	if q.Near {
		most = min(most, asksNear)
	}
	for ; count > 0 && q.asked < most; count-- {
		p := q.Holders[q.asked]
		q.asked++
		q.waiting = append(q.waiting, p)
		s.Ask = append(s.Ask, p)
		patience = max(patience, hedgeLeast, q.Patience(p))
	}
	return patience
}

// settle notes that p has answered. It reports false if its answer was not
// expected.
func (q *Query) settle(p peer.ID) bool {
	i := slices.Index(q.waiting, p)
	if i < 0 || q.done {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

func (q *Query) step(s QueryStep) QueryStep {
	if s.Done = q.done || len(q.waiting) == 0; s.Done {
		q.done = true
	} else {
		s.Due = earliest(q.hedge, q.grace)
	}
	return s
}

// Quorum is how many of holders of topic have to report nothing before the
// answer is "no node has it". A stream either exists or does not, and so does a
// provisioner, and each is sent to most of its holders, so a majority is
// needed; capacity is sent to all of its holders again and again, and there is
// always more of it.
func Quorum(topic holder.Topic, holders int) int {
	if Exact(topic) {
		return directory.Majority(holders)
	}
	return min(holder.QueryFirst, holders)
}

// Exact reports whether the records in topic stand for something that either
// exists or does not.
func Exact(topic holder.Topic) bool { return topic.Stream() != "" || topic.Provisions() }

// NearestFirst orders holders by measured round trip, unmeasured ones in the
// middle, and puts those that owe an answer last.
func NearestFirst(holders []peer.ID, rtt func(peer.ID) time.Duration, suspect func(peer.ID) bool) []peer.ID {
	const unknown = 100 * time.Millisecond
	type entry struct {
		id      peer.ID
		suspect bool
		rtt     time.Duration
	}
	entries := make([]entry, len(holders))
	for i, p := range holders {
		entries[i] = entry{p, suspect(p), cmp.Or(rtt(p), unknown)}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(falseFirst(a.suspect, b.suspect), cmp.Compare(a.rtt, b.rtt))
	})
	sorted := make([]peer.ID, len(entries))
	for i, e := range entries {
		sorted[i] = e.id
	}
	return sorted
}
