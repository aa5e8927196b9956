package model

import (
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

// A worth asks a policy for the score of a node, and caches it.
type worth struct {
	compiled *policy.Compiled
	known    map[[2]int]float64 // by stress, in hundredths, and round trip, in ms
}

func newWorth(p policy.Policy) *worth {
	compiled, err := policy.Compile(p)
	if err != nil {
		panic(err) // the policy is one of ours
	}
	return &worth{compiled, make(map[[2]int]float64)}
}

// of is the score of a node with that stress and round trip, both rounded; 0 if
// the policy rejects it.
func (w *worth) of(stress float64, rtt time.Duration) float64 {
	key := [2]int{int(math.Round(100 * stress)), int(rtt.Round(time.Millisecond).Milliseconds())}
	if score, ok := w.known[key]; ok {
		return score
	}
	const limit = 10_000 // sessions: so many that one more does not change the score
	c := policy.Candidate{RTT: time.Duration(key[1]) * time.Millisecond, Trust: 1}
	c.Record = capacity.Record{Node: "node", URL: "http://node", Sessions: capacity.Usage{Used: int64(key[0]) * limit / 100, Limit: limit}}
	score := 0.0
	for _, v := range w.compiled.Rank(capacity.Need{Purpose: capacity.View}, capacity.Record{Node: "seeker"}, []policy.Candidate{c}).Passed {
		score = v.Score
	}
	w.known[key] = score
	return score
}

// nameOf is the peer ID of the i-th node of a trial.
func nameOf(i int) peer.ID { return peer.ID(rune(i)) }

// events are the scheduled events on virtual time.
type events struct {
	now  time.Time
	list []event
}

type event struct {
	at time.Time
	do func()
}

func (e *events) after(d time.Duration, do func()) { e.list = append(e.list, event{e.now.Add(d), do}) }

// next runs the first event, or the tick that is due before it.
func (e *events) next(due time.Time, tick func()) {
	next, at := event{due, tick}, -1
	for i := range e.list {
		if next.at.IsZero() || e.list[i].at.Before(next.at) {
			next, at = e.list[i], i
		}
	}
	if at >= 0 {
		e.list = slices.Delete(e.list, at, at+1)
	}
	e.now = next.at
	next.do()
}

var epoch = time.Unix(0, 0)

// ask has holders at those distances answer q, each with a number of offers, up
// to its limit. It returns the time that takes, in ms.
func (t *trial) ask(q place.Query, rtts []time.Duration, offers int) float64 {
	e := &events{now: epoch}
	far := make(map[peer.ID]time.Duration)
	slices.Sort(rtts)
	for i, rtt := range rtts {
		id := nameOf(i)
		q.Holders = append(q.Holders, id)
		far[id] = rtt
	}
	q.Patience = func(p peer.ID) time.Duration { return place.Patience(far[p], true) }
	q.Lacking = place.Quorum(holder.CapacityTopic(), len(rtts))
	reply := t.p.Sizes.reply(min(offers, place.OfferLimit))
	var step place.QueryStep
	var do func(place.QueryStep)
	do = func(s place.QueryStep) {
		step = s
		for _, p := range s.Ask {
			t.messages++
			t.bytes += t.p.Sizes.Query
			e.after(far[p], func() {
				t.messages++
				t.bytes += reply
				do(q.Answered(e.now, p, offers > 0))
			})
		}
	}
	do(q.Start(e.now))
	for !step.Done {
		e.next(step.Due, func() { do(q.Tick(e.now)) })
	}
	return asMillis(e.now.Sub(epoch))
}

// reserve has candidates reserve room, and adds the time that takes. A
// candidate without a connection to the seeker takes two round trips.
func (t *trial) reserve() {
	e := &events{now: epoch}
	reply := t.p.Sizes.ReserveReply
	if t.records {
		reply -= t.p.Sizes.Record
	}
	p := place.Placement{Patience: func(peer.ID) time.Duration { return 0 }}
	var step place.Step
	var do func(place.Step)
	do = func(s place.Step) {
		step = s
		for _, o := range s.Reserve {
			t.messages++
			t.bytes += t.p.Sizes.Reserve
			rtt := o.RTT
			if t.rnd.Float64() < t.trips()-1 {
				rtt *= 2
			}
			e.after(rtt, func() {
				t.messages++
				t.bytes += reply
				do(p.Granted(e.now, o.Record.Node, o.Score))
			})
		}
	}
	p.Start()
	none := func(peer.ID) bool { return false }
	do(p.Found(e.now, place.Order(t.ranked(), t.worth.compiled.Policy().Keep, none, t.rnd), place.Levels))
	for !step.Done {
		e.next(step.Due, func() { do(p.Tick(e.now)) })
	}
	t.ms += asMillis(e.now.Sub(epoch))
}
