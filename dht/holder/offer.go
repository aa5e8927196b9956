package holder

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
)

const (
	// Replicas is how many nodes hold a topic.
	Replicas = 8
	// QueryFirst is how many of them a seeker asks at once.
	QueryFirst = 2
	// mostAskers bounds how many seekers a query may stand for, because each
	// asks only a few of all holders. Most seekers ask the same, nearest ones,
	// so the number is lower where many seekers are heard.
	mostAskers = float64(Replicas) / QueryFirst

	// PoolFactor times as many offers as asked for, the best ones, form the pool
	// to draw from.
	PoolFactor = 2
)

// An Offer is a candidate of a placement as a holder judged it. It only decides
// which nodes to ask: the target's own ledger and record decide the placement.
type Offer struct {
	// For a record that the seeker does not know, Record has only Node, Seq,
	// Issued and Addrs, and Sealed is nil.
	policy.Evaluation
	Stress   float64
	Headroom int64     // bit/s; negative: no limit
	Holder   peer.ID   // the only holder that this rests on; "": more than one
	Received time.Time // by the holder, if the Offer is its own
}

// DigestOnly reports whether the record itself is not known here, only its digest.
func (o *Offer) DigestOnly() bool { return o.Sealed == nil }

// OfferOf makes an Offer of the node's own evaluation v.
func OfferOf(v policy.Evaluation) Offer {
	o := Offer{Evaluation: v, Stress: v.Record.Stress(), Headroom: -1}
	if r := &v.Record; r.Uplink.Limit > 0 {
		o.Headroom = max(0, r.Uplink.Limit-r.Uplink.Used-r.Reserved)
	}
	return o
}

// A Query is a seeker's question to a holder.
type Query struct {
	Topic   Topic
	Need    capacity.Need
	Me      capacity.Record // the seeker's own
	Exclude []peer.ID
	Limit   int // of offers

	// Trust is the holder's trust in a node's claims, 0…1, by the reports of
	// seekers. Nil: full trust.
	Trust func(peer.ID) float64
}

// Offers draws up to q.Limit of the best records held that pass the policy, at
// random with weights by score, and counts the records held and those that each
// rule rejected. Under a policy that packs, it takes the best.
//
// Offers made since a record came in count as used, by the chance that the
// seeker takes them, and so do those of seekers that asked other holders
// meanwhile; see askers. So the seekers between two records of a node do not
// all find it the roomiest: of 200 that placed on 40 nodes with the same
// records, 0.7 % chose a node that was full by then, against 25 % of those that
// drew among the best with nothing counted. The count is too high if seekers go
// elsewhere; so if it alone leaves nothing to offer, it is not applied. Sessions
// that have ended since a record came in are estimated as well; see drift.
func (t *Table) Offers(now time.Time, compiled *policy.Compiled, q Query, rnd *rand.Rand) (offers []Offer, held int, rejected map[string]int) {
	stock, askers, rate := t.stock(now, q.Topic, q.Me.Node)
	for i := range stock {
		stock[i].left = left(rate, now.Sub(stock[i].Received))
	}
	ranking := rankStock(compiled, stock, &q, true)
	if len(ranking.Passed) == 0 && slices.ContainsFunc(stock, func(s stocked) bool { return s.shadow != shadow{} }) {
		ranking = rankStock(compiled, stock, &q, false)
	}
	verdicts := ranking.Passed
	if len(verdicts) > q.Limit {
		pool := PoolFactor * q.Limit
		if compiled.Policy().Strategy == policy.BinPack {
			pool = q.Limit // shadows alone keep seekers apart
		}
		verdicts = ranking.Draw(q.Limit, pool, rnd)
	}
	// The seeker draws among the best of its offers, by score.
	best := slices.Clone(verdicts)
	slices.SortStableFunc(best, func(a, b policy.Evaluation) int { return cmp.Compare(b.Score, a.Score) })
	best = best[:min(len(best), cmp.Or(compiled.Policy().Keep, len(best)))]
	total := 0.0
	for _, v := range best {
		total += max(0, v.Score)
	}
	plain := make(map[peer.ID]*Held, len(stock))
	for _, s := range stock {
		plain[s.Node()] = s.Held
	}
	for _, v := range best {
		chance := 1 / float64(len(best))
		if total > 0 {
			chance = max(0, v.Score) / total
		}
		t.offered(plain[v.Record.Node], shadowOf(q.Need, chance*askers))
	}
	for _, v := range verdicts {
		o := OfferOf(v)
		o.Received = plain[v.Record.Node].Received
		o.Record = plain[v.Record.Node].Record
		offers = append(offers, o)
	}
	return offers, len(stock), ranking.RejectedBy()
}

func rankStock(compiled *policy.Compiled, stock []stocked, q *Query, shadows bool) policy.Ranking {
	candidates := make([]policy.Candidate, 0, len(stock))
	for _, s := range stock {
		if slices.Contains(q.Exclude, s.Node()) {
			continue
		}
		r := s.Record
		if shadows {
			r = s.shadow.on(r, s.left)
		}
		c := policy.Candidate{
			Record: r,
			Sealed: s.Sealed,
			RTT:    PredictRTT(q.Me.Coordinate, r.Coordinate),
			Trust:  1,
		}
		if q.Trust != nil {
			c.Trust = q.Trust(s.Node())
		}
		candidates = append(candidates, c)
	}
	return compiled.Rank(q.Need, q.Me, candidates)
}

// PredictRTT is the round trip predicted between a and b, 0 if either is
// missing or they cannot be compared.
func PredictRTT(a, b *coordinate.Coordinate) time.Duration {
	if a == nil || b == nil || !a.IsValid() || !b.IsValid() || !a.IsCompatibleWith(b) {
		return 0
	}
	return a.DistanceTo(b)
}

// A shadow is the load that a holder expects on a node because of its own
// offers.
type shadow struct{ sessions, pulls, uplink, packets float64 }

// shadowOf is the shadow of that many placements for need.
func shadowOf(need capacity.Need, placements float64) shadow {
	const most = 1 << 40 // bound of one need, which a peer chooses
	s := shadow{
		uplink:  placements * float64(min(need.Uplink, most)),
		packets: placements * float64(min(need.Packets, most)),
	}
	if need.Purpose == capacity.Cascade {
		s.pulls = placements
	} else {
		s.sessions = placements
	}
	return s
}

func (s shadow) plus(t shadow) shadow {
	const most = 1 << 50 // sums stay far from overflowing
	return shadow{
		min(s.sessions+t.sessions, most), min(s.pulls+t.pulls, most),
		min(s.uplink+t.uplink, most), min(s.packets+t.packets, most),
	}
}

// on returns r with s counted as used, and with left of its own reported use.
func (s shadow) on(r capacity.Record, left float64) capacity.Record {
	scale := func(u *int64) { *u = int64(math.Round(float64(*u) * left)) }
	scale(&r.Sessions.Used)
	scale(&r.Uplink.Used)
	scale(&r.Packets.Used)
	r.Sessions.Used += int64(math.Round(s.sessions))
	r.Reserved += int64(s.uplink)
	r.Packets.Used += int64(s.packets)
	if pulls := int(math.Round(s.pulls)); pulls > 0 && r.Carries != nil {
		c := *r.Carries
		c.Children += pulls
		r.Carries = &c
	}
	return r
}
