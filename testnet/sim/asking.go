package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

// An asking is one query to a shard's holders under way.
type asking struct {
	p     *placing
	shard *shard
	query place.Query
	wake  deadline
	held  int  // records of the holder that has most
	found bool // some holder has made an offer
	each  bool // one answer to each of several queries is enough
	done  bool
}

func (p *placing) newAsking(topic holder.Topic, s place.SearchStep) *asking {
	a := &asking{p: p, shard: p.w.shard(topic), each: s.OneEach}
	heard := 0
	if slices.Contains(a.shard.holders, p.seeker) {
		heard = 1
		a.take(a.offers(p.seeker, holding.QueryLimit))
	}
	a.query = place.Query{
		Holders: p.seeker.nearestHolders(a.shard), Patience: a.patience, Near: s.Near,
		Lacking: max(0, place.Quorum(topic, len(a.shard.holders))-heard),
	}
	if s.OneEach {
		a.query.First = 1
	}
	return a
}

func (a *asking) patience(id peer.ID) time.Duration {
	return place.Patience(a.p.seeker.rtt(a.p.w.byID[id]), true)
}

// do carries out a step.
func (a *asking) do(s place.QueryStep) {
	if a.done {
		return
	}
	for _, id := range s.Ask {
		a.ask(a.p.w.byID[id])
	}
	if !s.Done {
		a.wake.set(a.p.w, s.Due, func() { a.do(a.query.Tick(a.p.w.clock())) })
		return
	}
	a.done = true
	a.wake.cancel()
	if a.found && a.each {
		for _, other := range a.p.queries {
			if other != a && !other.done {
				other.do(other.query.FoundElsewhere())
			}
		}
	}
	a.p.answered()
}

// ask has h answer. Its offers count as offered, even if they come too late.
func (a *asking) ask(h *node) {
	p, w, rtt := a.p, a.p.w, a.p.seeker.rtt(h)
	p.messages++
	p.bytes += w.sizes().Query
	w.after(rtt/2, func() {
		offers, held := a.offers(h, place.OfferLimit)
		w.after(rtt-rtt/2, func() {
			if a.done {
				return
			}
			p.messages++
			p.bytes += w.sizes().QueryReply + float64(len(offers))*w.sizes().Offer
			a.take(offers, held)
			a.do(a.query.Answered(w.clock(), h.id, a.found))
		})
	})
}

func (a *asking) take(offers []holder.Offer, held int) {
	a.held = max(a.held, held)
	a.found = a.found || len(offers) > 0
	for _, o := range offers {
		place.Merge(a.p.offers, o)
	}
}

// offers is h's answer.
func (a *asking) offers(h *node, limit int) (offers []holder.Offer, held int) {
	return a.p.offersOf(h, a.shard, limit)
}

func (p *placing) offersOf(h *node, s *shard, limit int) (offers []holder.Offer, held int) {
	now := p.w.clock()
	q := holder.Query{Topic: s.topic, Need: p.need, Me: p.seeker.me(), Exclude: p.exclude, Limit: limit}
	if p.w.hearsay {
		h.reports.Heard(now, p.seeker.id, p.seeker.reputation.Reports(now))
		q.Trust = func(id peer.ID) float64 { return h.reports.Of(now, id) }
	}
	p.w.loadOf(h, s, func(region string, stress float64) { p.seeker.loads.Heard(now, region, stress) })
	offers, held, _ = h.table.Offers(now, p.w.judge, q, p.w.rnd)
	for i := range offers {
		if offers[i].Sealed = nil; h != p.seeker { // only a digest
			offers[i].Holder = h.id
		}
	}
	return offers, held
}

// loadOf is the load of a shard's region by h's table.
func (w *world) loadOf(h *node, s *shard, heard func(region string, stress float64)) {
	region, _, ok := s.topic.Shard()
	if stress, any := h.table.MeanStress(w.clock(), s.topic); ok && any {
		heard(region, stress)
	}
}

// askLoad asks a holder of region for its load, beside the placement. The cost
// is this placement's.
func (p *placing) askLoad(region string) {
	w, seeker := p.w, p.seeker
	for _, r := range w.regions {
		if r.label != region || len(r.shards) == 0 {
			continue
		}
		s := r.shards[w.rnd.IntN(len(r.shards))]
		h := w.byID[seeker.nearestHolders(s)[0]]
		p.messages += 2
		p.bytes += w.sizes().Query + w.sizes().QueryReply
		w.after(seeker.rtt(h)/2, func() {
			w.loadOf(h, s, func(region string, stress float64) {
				w.after(seeker.rtt(h)/2, func() { seeker.loads.Heard(w.clock(), region, stress) })
			})
		})
	}
}

// nearestHolders are the holders of s except the seeker, nearest first.
func (n *node) nearestHolders(s *shard) []peer.ID {
	if n.near[s] == nil {
		others := slices.DeleteFunc(slices.Clone(s.holders), func(h *node) bool { return h == n })
		slices.SortStableFunc(others, func(a, b *node) int { return cmp.Compare(n.rtt(a), n.rtt(b)) })
		n.near[s] = make([]peer.ID, 0, len(others))
		for _, h := range others {
			n.near[s] = append(n.near[s], h.id)
		}
	}
	return n.near[s]
}
