package place

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	// lastPatience is the least time of the last candidates before the search
	// goes further away.
	lastPatience = 250 * time.Millisecond
	// MaxCandidates bounds the candidates asked in one placement, over all of its
	// searches.
	MaxCandidates = (2*Levels + 2) * ReserveMost
	// retryAfter is when to come again after every candidate refused.
	retryAfter = 2 * time.Second
)

const (
	// NoCandidates is the reason of a refusal for which no rule is responsible.
	NoCandidates = "no-candidates"
	// NotKnown is the reason if the holders required for an answer did not
	// reply.
	NotKnown = "not-known"
	// Unreachable is the reason of a candidate that did not answer: whether it has
	// room is not known.
	Unreachable = "unreachable"
)

// A Placement searches for candidates and has them reserve room: two at once,
// then others, until some have granted a lease. It uses the best lease and
// releases every other. Offers may be as old as the records, and seekers that
// all took the first lease would fill the nearest node whatever the policy; so
// the better of two leases is used, by the targets' own current state.
//
// If all candidates refuse, each by its own ledger, or do not answer, it
// searches further away. Candidates whose answers are overdue stay in the
// running to the end.
type Placement struct {
	// Exclude are nodes not to be found.
	Exclude []peer.ID
	// Patience is how long a node's answer usually takes at most; see
	// [Patience].
	Patience func(peer.ID) time.Duration
	// Further means that a wider search than the first is possible.
	Further bool

	level    int
	again    bool // the near levels were searched a second time
	searched bool // once
	news     int  // answers since the search under way began

	order     []holder.Offer // to be asked in this round
	asked     []peer.ID
	waiting   []peer.ID // candidates whose answers are expected
	leases    []lease
	reasons   map[string]int // why others gave no lease, by count
	last      error
	began     time.Time     // of this round
	slowest   time.Duration // round trip in this round, predicted
	due       time.Time     // when all candidates of this round are overdue
	overdue   time.Time     // deadlines; zero: none
	grace     time.Time
	searching bool
	patient   bool // there are no others: the candidates asked are waited for
	done      bool
}

type lease struct {
	node  peer.ID
	score float64 // by the policy, for the target as it is now
}

// A Step is what a placement wants done next.
type Step struct {
	// Search, if not nil, is a search to make; its result goes to
	// [Placement.Found]. Answers that come meanwhile are to be passed on before
	// that.
	Search  *SearchRequest
	Reserve []holder.Offer // candidates to ask for room now
	Overdue []peer.ID      // candidates whose answers are late from now on
	Release []peer.ID      // candidates to be told that a lease they may have given is not used
	Due     time.Time      // when to call Tick if nothing happens before; zero: never

	// Done means that the placement has ended: with Chosen, whose lease is to
	// be used, or with Refusal. Neither means that the first search found no
	// candidate.
	Done    bool
	Chosen  peer.ID
	Refusal *capacity.Refusal
}

// SearchRequest is a search to make.
type SearchRequest struct {
	Level   int // at which to begin; see [Search]
	Exclude []peer.ID
}

// Start begins with a search near by.
func (p *Placement) Start() Step {
	p.reasons = make(map[string]int)
	p.searching = true
	return Step{Search: &SearchRequest{Exclude: p.Exclude}}
}

// Found takes in the candidates that a search found, in the order in which to
// ask them, and the level at which to go on if they do not suffice.
func (p *Placement) Found(now time.Time, order []holder.Offer, level int) (s Step) {
	p.level, p.searching = level, false
	first := !p.searched
	p.searched = true
	switch {
	case len(order) > 0:
	case first:
		p.done = true
		return Step{Done: true}
	case p.news == 0:
		return p.further(now, s) // no candidate there; the refusal stands
	}
	return p.round(now, s, order)
}

// Granted takes in that node gave a lease, and its score by the record that came
// with it.
func (p *Placement) Granted(now time.Time, node peer.ID, score float64) (s Step) {
	if !p.settle(node) {
		s.Release = []peer.ID{node}
		return p.step(s)
	}
	p.leases = append(p.leases, lease{node, score})
	switch {
	case p.searching:
	case len(p.waiting) == 0:
		return p.choose(s)
	case len(p.leases) == 1:
		p.grace = now.Add(LeaseGrace(now.Sub(p.began), p.slowest))
	}
	return p.step(s)
}

// Refused takes in that node refused a lease, and why.
func (p *Placement) Refused(now time.Time, node peer.ID, reason string, err error) (s Step) {
	if !p.settle(node) {
		return p.step(s)
	}
	return p.lost(now, s, reason, err)
}

// Failed takes in that node did not answer, or that its answer is invalid. It
// may have given a lease all the same, so it gets a release.
func (p *Placement) Failed(now time.Time, node peer.ID, reason string, err error) (s Step) {
	s.Release = []peer.ID{node}
	if !p.settle(node) {
		return p.step(s)
	}
	return p.lost(now, s, reason, err)
}

// Tick takes in that time has passed.
func (p *Placement) Tick(now time.Time) (s Step) {
	switch {
	case p.done || p.searching:
	case passed(now, p.grace):
		return p.choose(s)
	case !passed(now, p.overdue):
	case now.Before(p.due) && len(p.order) == 0:
		p.overdue = p.due
	default:
		s.Overdue = slices.Clone(p.waiting)
		p.overdue = time.Time{}
		if len(p.leases) > 0 {
			break
		}
		if !p.ask(now, &s, ReserveFirst) {
			return p.further(now, s)
		}
		p.overdue = p.due
	}
	return p.step(s)
}

// Abandon ends the placement without a choice.
func (p *Placement) Abandon() (s Step) {
	if !p.done {
		p.done = true
		for _, l := range p.leases {
			s.Release = append(s.Release, l.node)
		}
	}
	s.Done = true
	return s
}

// Pending is how many candidates were asked that have not answered.
func (p *Placement) Pending() int { return len(p.waiting) }

// round asks the candidates in order.
func (p *Placement) round(now time.Time, s Step, order []holder.Offer) Step {
	p.order, p.began, p.slowest, p.due = order, now, 0, time.Time{}
	if len(p.leases) > 0 {
		return p.choose(s)
	}
	if !p.ask(now, &s, ReserveFirst) && !p.patient {
		s.Overdue = slices.Clone(p.waiting)
		return p.further(now, s)
	}
	p.overdue, p.grace = p.due, time.Time{}
	return p.step(s)
}

// ask asks up to count more candidates.
func (p *Placement) ask(now time.Time, s *Step, count int) (asked bool) {
	for count > 0 && len(p.order) > 0 && len(p.asked) < MaxCandidates {
		o := p.order[0]
		p.order = p.order[1:]
		if slices.Contains(p.asked, o.Record.Node) {
			continue
		}
		count--
		p.asked = append(p.asked, o.Record.Node)
		p.waiting = append(p.waiting, o.Record.Node)
		s.Reserve = append(s.Reserve, o)
		p.slowest = max(p.slowest, o.RTT)
		patience := LeasePatience(p.Patience(o.Record.Node), o.RTT)
		if len(p.order) == 0 {
			patience = max(patience, lastPatience)
		}
		if due := now.Add(patience); due.After(p.due) {
			p.due = due
		}
		asked = true
	}
	return asked
}

func (p *Placement) lost(now time.Time, s Step, reason string, err error) Step {
	p.reasons[reason]++
	p.last = err
	switch {
	case p.searching:
	case len(p.leases) > 0 && len(p.waiting) == 0:
		return p.choose(s)
	case len(p.leases) > 0:
	case !p.ask(now, &s, 1) && len(p.waiting) == 0:
		return p.further(now, s)
	}
	return p.step(s)
}

// further goes on to the next level of the search, unless there is none: the
// candidates come from a list, or all levels were searched. If the last
// candidates did not answer, it searches near by once more for candidates not
// offered before; after that, candidates that have not answered get all the
// time they need.
func (p *Placement) further(now time.Time, s Step) Step {
	if p.patient {
		return p.refuse(s)
	}
	refusal := p.refusal()
	more := p.Further && len(p.asked) > 0
	if more && p.level >= Levels {
		more = !p.again && refusal.Reason == Unreachable
		p.level, p.again = 0, true
	}
	switch {
	case more:
		p.searching, p.news = true, 0
		s.Search = &SearchRequest{Level: p.level, Exclude: slices.Concat(p.Exclude, p.asked)}
		return s
	case len(p.waiting) > 0:
		p.patient = true
		return p.round(now, s, nil)
	}
	return p.refuse(s)
}

func (p *Placement) refuse(s Step) Step {
	p.done = true
	s.Done, s.Refusal = true, p.refusal()
	return s
}

// refusal is the refusal with the most frequent reason of the candidates.
func (p *Placement) refusal() *capacity.Refusal {
	reasons, last := maps.Clone(p.reasons), fmt.Sprint(p.last)
	if silent := len(p.waiting); silent > 0 {
		reasons[Unreachable] += silent
		last = "no answer when it was due"
	}
	reason, count := MostFrequent(reasons)
	return &capacity.Refusal{
		Reason:     reason,
		Detail:     fmt.Sprintf("%d of %d nodes asked gave that reason; the last said: %s", count, len(p.asked), last),
		RetryAfter: retryAfter,
	}
}

// choose takes the best lease; of equal ones, that of the candidate asked
// first.
func (p *Placement) choose(s Step) Step {
	best := slices.MaxFunc(p.leases, func(a, b lease) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(slices.Index(p.asked, b.node), slices.Index(p.asked, a.node)))
	})
	for _, l := range p.leases {
		if l.node != best.node {
			s.Release = append(s.Release, l.node)
		}
	}
	p.done = true
	s.Done, s.Chosen = true, best.node
	return s
}

// settle notes that node has answered. It reports false if its answer was not
// expected any more.
func (p *Placement) settle(node peer.ID) bool {
	i := slices.Index(p.waiting, node)
	if i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.news++
	return !p.done
}

func (p *Placement) step(s Step) Step {
	switch {
	case p.done:
		s.Done = true
	case !p.searching:
		s.Due = earliest(p.overdue, p.grace)
	}
	return s
}

// NoRoom is the refusal if there is no candidate to ask: rejected counts, by
// rule, the rejected ones of the held records of topic.
func NoRoom(topic holder.Topic, held int, rejected map[string]int) *capacity.Refusal {
	rejected = maps.Clone(rejected)
	delete(rejected, "self") // it says nothing about room
	reason, count := MostFrequent(rejected)
	if reason == "" {
		return &capacity.Refusal{Reason: NoCandidates, Detail: fmt.Sprintf("no other node has a record in %s", topic), RetryAfter: retryAfter}
	}
	return &capacity.Refusal{
		Reason:     reason,
		Detail:     fmt.Sprintf("no node fits: %d of %d fail on %s", count, max(held, count), reason),
		RetryAfter: retryAfter,
	}
}

// MostFrequent returns the word counted most, the first in the alphabet of
// several.
func MostFrequent(counts map[string]int) (word string, count int) {
	for w, c := range counts {
		if c > count || c == count && c > 0 && w < word {
			word, count = w, c
		}
	}
	return word, count
}
