package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

const (
	localLimit = 16 // offers that a seeker takes which holds the topic itself
	widest     = 4  // levels of widening
	nearest    = 2  // regions asked at level 2
	further    = 4  // and at level 3
)

// A placing is one placement by weir under way.
type placing struct {
	w      *world
	seeker *node
	need   capacity.Need
	only   *shard // a stream's; nil: those of capacity
	began  time.Duration

	offers map[peer.ID]holder.Offer
	asked  map[*shard]bool
	tried  []peer.ID
	level  int

	id      string
	picks   []holder.Offer
	next    int
	pending int
	leases  []lease
	won     bool

	reserving time.Duration // since when those were asked
	slowest   time.Duration // round trip to one of them

	refused, answers int // of those asked to reserve
	cost
	done func(*placing, *node) // the target, or nil
}

// place finds a node for need as package dht does, and calls done.
func (w *world) place(seeker *node, need capacity.Need, done func(*placing, *node)) {
	p := &placing{w: w, seeker: seeker, need: need, began: w.now, asked: make(map[*shard]bool), id: w.requestID(), done: done}
	p.offers = make(map[peer.ID]holder.Offer)
	p.widen()
}

// shards are those to ask at a level.
func (p *placing) shards(level int) []*shard {
	home, in := p.seeker.home, p.seeker.in
	if p.only != nil {
		return []*shard{p.only}
	}
	switch level {
	case 0:
		if partner := p.seeker.partner; partner != nil {
			return []*shard{home, partner}
		}
		return []*shard{home}
	case 1:
		return []*shard{in.shards[p.w.rnd.IntN(len(in.shards))]}
	}
	near := in.near
	if level == 2 {
		near = near[:min(len(near), nearest)]
	} else {
		near = near[min(len(near), nearest):]
		near = near[:min(len(near), further)]
	}
	var list []*shard
	for _, r := range near {
		list = append(list, r.shards[p.w.rnd.IntN(len(r.shards))])
	}
	return list
}

// widen asks one level further, unless what is known is good enough.
func (p *placing) widen() {
	for p.level < widest {
		list := slices.DeleteFunc(p.shards(p.level), func(s *shard) bool { return p.asked[s] })
		p.level++
		if len(list) == 0 {
			continue
		}
		each := holder.AsksFirst
		if p.level == 1 && len(list) > 1 {
			each = 1 // of both
		}
		wait := time.Duration(0)
		for _, s := range list {
			p.asked[s] = true
			wait = max(wait, p.ask(s, each))
		}
		p.w.after(wait, func() {
			for _, o := range p.offers {
				if place.GoodEnough(o.Stress) {
					p.take()
					return
				}
			}
			p.widen()
		})
		return
	}
	p.take()
}

// nearestHolders are the two that a seeker asks.
func (n *node) nearestHolders(s *shard) []*node {
	if n.near[s] == nil {
		others := slices.DeleteFunc(slices.Clone(s.holders), func(h *node) bool { return h == n })
		slices.SortStableFunc(others, func(a, b *node) int { return cmp.Compare(n.rtt(a), n.rtt(b)) })
		n.near[s] = others[:min(len(others), holder.AsksFirst)]
	}
	return n.near[s]
}

// ask has the nearest holders of s answer, and returns when that is over.
func (p *placing) ask(s *shard, count int) time.Duration {
	w := p.w
	if slices.Contains(s.holders, p.seeker) {
		p.offer(p.seeker, s, localLimit)
	}
	remote := p.seeker.nearestHolders(s)
	remote = remote[:min(len(remote), count)]
	if len(remote) == 0 {
		return 0
	}
	first := p.seeker.rtt(remote[0])
	wait := first
	for i, h := range remote {
		rtt := p.seeker.rtt(h)
		late := i > 0 && rtt > first+place.AnswerGrace(first)
		if i > 0 {
			wait = min(rtt, first+place.AnswerGrace(first))
		}
		p.messages++
		p.bytes += w.sizes().Query
		w.after(rtt/2, func() {
			offers := p.offerBy(h, s, place.OfferLimit)
			if late {
				return // it counts as offered, but comes too late
			}
			p.messages++
			p.bytes += w.sizes().QueryReply + float64(len(offers))*w.sizes().Offer
			for _, o := range offers {
				place.Merge(p.offers, o)
			}
		})
	}
	return wait
}

func (p *placing) offer(h *node, s *shard, limit int) {
	for _, o := range p.offerBy(h, s, limit) {
		place.Merge(p.offers, o)
	}
}

func (p *placing) offerBy(h *node, s *shard, limit int) []holder.Offer {
	now := p.w.clock()
	me := capacity.Record{Node: p.seeker.id, Region: p.seeker.in.label, Coordinate: p.seeker.coord}
	q := holder.Query{
		Topic: s.topic, Need: p.need, Me: me, Exclude: append([]peer.ID{p.seeker.id}, p.tried...), Limit: limit,
	}
	if p.w.hearsay {
		h.doubts.Heard(now, p.seeker.id, p.seeker.beliefs.Doubts(now))
		q.Trust = func(id peer.ID) float64 { return h.doubts.Of(now, id) }
	}
	offers, _, _ := h.table.Offers(now, p.w.judge, q, p.w.rnd)
	for i := range offers {
		offers[i].Holder, offers[i].Sealed = h.id, nil // a digest
	}
	return offers
}

// take asks some of what was offered to reserve.
func (p *placing) take() {
	p.pick()
	if len(p.picks) == 0 {
		p.lost()
		return
	}
	p.reserving = p.w.now
	for range place.ReserveFirst {
		p.reserve()
	}
}

func (p *placing) pick() {
	now := p.w.clock()
	passed := place.Rank(policy.Ranking{}, p.offers, func(id peer.ID) float64 { return p.seeker.beliefs.Of(now, id) })
	p.picks = place.Order(passed, p.w.judge.Policy().Keep, func(peer.ID) bool { return false }, p.w.rnd)
	p.next = 0
	clear(p.offers)
}

// lost goes on further afield, or gives up.
func (p *placing) lost() {
	if p.level < widest {
		p.widen()
		return
	}
	p.done(p, nil)
}

func (p *placing) reserve() {
	if p.next == len(p.picks) {
		return
	}
	pick := &p.picks[p.next]
	w, target := p.w, p.w.byID[pick.Record.Node]
	p.next++
	p.pending++
	first := len(p.tried) == 0
	p.tried = append(p.tried, target.id)
	l := lease{target, p.seeker.rtt(target), 0}
	p.slowest = max(p.slowest, l.rtt)
	p.messages++
	p.bytes += w.sizes().Reserve
	w.after(l.rtt/2, func() {
		now := w.sample(target) // before the lease
		_, err := target.ledger.Reserve(w.clock(), capacity.Request{ID: p.id, From: p.seeker.id, Need: p.need})
		if err == nil {
			me := capacity.Record{Node: p.seeker.id, Region: p.seeker.in.label, Coordinate: p.seeker.coord}
			for _, v := range w.judge.Rank(p.need, me, []policy.Candidate{{Record: now, RTT: l.rtt, Trust: min(p.seeker.beliefs.Of(w.clock(), target.id), pick.Trust)}}).Passed {
				l.score = v.Score
			}
			w.moved(target)
		} else if first && w.counting {
			w.firstRefused++
		}
		w.after(l.rtt/2, func() { p.answered(l, err) })
	})
}

// A lease is what a node gave, and what its policy's score is now.
type lease struct {
	target *node
	rtt    time.Duration
	score  float64
}

func (p *placing) answered(l lease, err error) {
	p.pending--
	p.answers++
	switch {
	case err == nil && p.won:
		p.release(l)
	case err == nil:
		p.messages++
		p.bytes += p.w.sizes().ReserveReply
		if p.leases = append(p.leases, l); len(p.leases) == 1 {
			p.w.after(place.LeaseGrace(p.w.now-p.reserving, p.slowest), p.decide)
		}
	default:
		p.seeker.beliefs.Refused(p.w.clock(), l.target.id)
		p.refused++
		if p.refused == place.ReserveFirst && p.answers == place.ReserveFirst && p.w.counting {
			p.w.bothRefused++
		}
		if p.won {
			return
		}
		p.messages++
		if len(p.leases) == 0 {
			p.reserve()
		}
	}
	switch {
	case p.pending > 0 || p.won:
	case len(p.leases) > 0:
		p.decide()
	default:
		p.lost()
	}
}

// decide takes the better of the leases and gives the others back.
func (p *placing) decide() {
	if p.won {
		return
	}
	p.won = true
	best := slices.MaxFunc(p.leases, func(a, b lease) int { return cmp.Compare(a.score, b.score) })
	for _, l := range p.leases {
		if l.target != best.target {
			p.release(l)
		}
	}
	p.done(p, best.target)
}

func (p *placing) release(l lease) {
	p.w.after(l.rtt/2, func() {
		l.target.ledger.Release(p.seeker.id, p.id)
		p.w.moved(l.target)
	})
}
