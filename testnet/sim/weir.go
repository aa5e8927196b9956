package sim

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

// A placing is one placement by weir under way: package place decides, and this
// type carries out its steps on virtual time. A target's answer takes half a
// round trip each way, and nothing is lost.
type placing struct {
	w      *world
	seeker *node
	need   capacity.Need
	only   *shard // a stream's; nil: those of capacity
	began  time.Duration
	id     string

	placement place.Placement
	wake      deadline
	search    *place.Search // nil: the stream's shard alone
	offers    map[peer.ID]holder.Offer
	exclude   []peer.ID
	queries   []*asking // under way, for one step of the search
	open      int       // unanswered queries

	tried, answers, refused int // of those asked to reserve
	over                    bool
	cost
	done func(*placing, *node) // called with the target, or nil
}

// place finds a node for need as package dht does, and calls done.
func (w *world) place(seeker *node, need capacity.Need, done func(*placing, *node)) {
	w.newPlacing(seeker, need, done).start()
}

func (w *world) newPlacing(seeker *node, need capacity.Need, done func(*placing, *node)) *placing {
	return &placing{
		w: w, seeker: seeker, need: need, began: w.now, id: w.requestID(), done: done,
		placement: place.Placement{Further: true, Patience: func(peer.ID) time.Duration { return 0 }}, // offers have the distance
		offers:    make(map[peer.ID]holder.Offer),
	}
}

func (p *placing) start() { p.do(p.placement.Start()) }

// do carries out a step.
func (p *placing) do(s place.Step) {
	for _, id := range s.Release {
		p.release(p.w.byID[id])
	}
	for i := range s.Reserve {
		p.reserve(&s.Reserve[i])
	}
	switch {
	case p.over: // a late answer's lease is released
	case s.Done:
		p.over = true
		p.wake.cancel()
		p.done(p, p.w.byID[s.Chosen])
	case s.Search != nil:
		p.wake.cancel()
		p.look(s.Search)
	default:
		p.wake.set(p.w, s.Due, func() { p.do(p.placement.Tick(p.w.clock())) })
	}
}

// look runs the search.
func (p *placing) look(wanted *place.SearchRequest) {
	p.exclude = append([]peer.ID{p.seeker.id}, wanted.Exclude...)
	clear(p.offers)
	if p.only != nil {
		p.search = nil
		p.ask(place.SearchStep{Topics: []holder.Topic{p.only.topic}})
		return
	}
	shards := p.w.shardMap(p.seeker)
	if region := p.seeker.loads.Next(p.w.clock(), shards.Region, shards.Near); region != "" && p.w.judge.Policy().Balance > 0 {
		p.askLoad(region)
	}
	p.search = place.NewSearch(shards, wanted.Level, p.w.rnd)
	p.ask(p.search.Start())
}

// ask queries the holders of each of a step's topics, or ends the search.
func (p *placing) ask(s place.SearchStep) {
	if len(s.Topics) == 0 {
		p.found(p.search.Level)
		return
	}
	p.queries, p.open = nil, len(s.Topics)
	for _, topic := range s.Topics {
		p.queries = append(p.queries, p.newAsking(topic, s))
	}
	for _, a := range p.queries {
		a.do(a.query.Start(p.w.clock()))
	}
}

// answered continues when all of a step's topics have been answered.
func (p *placing) answered() {
	if p.open--; p.open > 0 {
		return
	}
	if p.search == nil {
		p.found(place.Levels)
		return
	}
	var answers []place.TopicAnswer
	for _, a := range p.queries {
		answers = append(answers, place.TopicAnswer{Topic: a.shard.topic, Held: a.held, Split: a.shard.split})
	}
	p.ask(p.search.Answered(answers, func() bool {
		for _, o := range p.offers {
			if place.GoodEnough(o.Stress) {
				return true
			}
		}
		return false
	}))
}

func (p *placing) found(level int) {
	p.do(p.placement.Found(p.w.clock(), p.order(), level))
}

func (p *placing) order() []holder.Offer {
	now := p.w.clock()
	passed := place.Rank(policy.Ranking{}, p.offers, func(id peer.ID) float64 { return p.seeker.reputation.Of(now, id) })
	return place.Order(passed, p.w.judge.Policy().Keep, func(peer.ID) bool { return false }, p.w.rnd)
}

// reserve has a candidate reserve room.
func (p *placing) reserve(o *holder.Offer) {
	w, target := p.w, p.w.byID[o.Record.Node]
	rtt, trust := p.seeker.rtt(target), o.Trust
	first := p.tried == 0
	p.tried++
	p.messages++
	p.bytes += w.sizes().Reserve
	w.after(rtt/2, func() {
		now := w.sample(target) // before the lease
		_, err := target.ledger.Reserve(w.clock(), capacity.Request{ID: p.id, From: p.seeker.id, Need: p.need})
		score := 0.0
		if err == nil {
			candidate := policy.Candidate{Record: now, RTT: rtt, Trust: min(p.seeker.reputation.Of(w.clock(), target.id), trust)}
			for _, v := range w.judge.Rank(p.need, p.seeker.me(), []policy.Candidate{candidate}).Passed {
				score = v.Score
			}
			w.moved(target)
		} else if first && w.counting {
			w.firstRefused++
		}
		w.after(rtt/2, func() { p.heard(target, score, err) })
	})
}

// heard handles a candidate's answer. A late one is not counted in the cost,
// and its lease is released.
func (p *placing) heard(target *node, score float64, err error) {
	w, now := p.w, p.w.clock()
	if !p.over {
		p.answers++
		p.messages++
	}
	switch {
	case err == nil:
		if !p.over {
			p.bytes += w.sizes().ReserveReply
		}
		p.do(p.placement.Granted(now, target.id, score))
	case !p.over:
		p.seeker.reputation.Refused(now, target.id)
		p.refused++
		if p.refused == place.ReserveFirst && p.answers == place.ReserveFirst && w.counting {
			w.bothRefused++
		}
		p.do(p.placement.Refused(now, target.id, err.Error(), err))
	}
}

func (p *placing) release(target *node) {
	p.w.after(p.seeker.rtt(target)/2, func() {
		target.ledger.Release(p.seeker.id, p.id)
		p.w.moved(target)
	})
}

// A deadline is an event that can be rescheduled.
type deadline struct{ count int }

// set schedules do at due, or never if due is zero, in place of the previous
// event.
func (d *deadline) set(w *world, due time.Time, do func()) {
	d.cancel()
	if due.IsZero() {
		return
	}
	count := d.count
	w.at(due.Sub(epoch), func() {
		if d.count == count {
			do()
		}
	})
}

func (d *deadline) cancel() { d.count++ }

// me is the seeker's record for the policy.
func (n *node) me() capacity.Record {
	return capacity.Record{Node: n.id, Region: n.in.label, Coordinate: n.coord}
}

// shardMap is the seeker's knowledge of shards and regions.
func (w *world) shardMap(n *node) place.ShardMap {
	a := place.ShardMap{Region: n.in.label, Own: n.home.topic, Publishes: true, Depth: w.depthOf}
	if n.partner != nil {
		a.Peer = n.partner.topic
	}
	for _, r := range n.in.near {
		a.Near = append(a.Near, r.label)
	}
	a.Elsewhere = n.loads.Elsewhere(w.clock(), n.in.label, a.Near, w.judge.Policy().Balance, w.rnd)
	return a
}
