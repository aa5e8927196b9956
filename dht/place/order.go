package place

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
	"weir/dht/holder"
)

const (
	// OfferLimit is how many offers each holder is asked for: two holders'
	// samples differ, and even one alone offers more than will be tried.
	OfferLimit = 6
	// ReserveFirst of the candidates are asked at once, and ReserveMost in
	// all: three rounds of two.
	ReserveFirst = 2
	ReserveMost  = 6
)

// Merge adds o to offers. Of several offers of a node the one with the newest
// record counts; for the same record, the less favourable one, because its
// holder has offered the node more often.
func Merge(offers map[peer.ID]holder.Offer, o holder.Offer) {
	node := o.Record.Node
	old, twice := offers[node]
	switch {
	case !twice, o.Record.Seq > old.Record.Seq:
		offers[node] = o
	case o.Record.Seq == old.Record.Seq:
		if old.DigestOnly() && !o.DigestOnly() {
			old.Record, old.Sealed = o.Record, o.Sealed
		}
		if o.Score < old.Score {
			old.Score, old.Terms, old.Stress, old.Headroom, old.Trust = o.Score, o.Terms, o.Stress, o.Headroom, o.Trust
		}
		old.Holder = ""
		offers[node] = old
	}
}

// Rank merges the holders' offers with the ranking of the records that the
// seeker judged itself, best first and each node once: by the newer record, and
// for the same record by the seeker's own evaluation. The seeker's trust in
// each node scales the score of an offer; the holder's trust is included in
// that score already.
func Rank(ranking policy.Ranking, offers map[peer.ID]holder.Offer, believed func(peer.ID) float64) []holder.Offer {
	var all []holder.Offer
	judged := make(map[peer.ID]uint64)
	for _, v := range ranking.Passed {
		if o, ok := offers[v.Record.Node]; ok && o.Record.Seq > v.Record.Seq {
			continue
		}
		all = append(all, holder.OfferOf(v))
		judged[v.Record.Node] = v.Record.Seq
	}
	for _, v := range ranking.Rejected {
		judged[v.Record.Node] = v.Record.Seq
	}
	for node, o := range offers {
		if seq, ok := judged[node]; ok && seq >= o.Record.Seq {
			continue
		}
		own := believed(node)
		o.Score *= own
		o.Trust = min(own, o.Trust)
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b holder.Offer) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Record.Node, b.Record.Node))
	})
	return all
}

// Order returns the candidates to try of those that passed, best first, in
// order: some of the keep best at random, then the rest by rank. The first two
// come from different holders if possible, because one holder alone may be
// lying. Suspects come last.
func Order(passed []holder.Offer, keep int, suspect func(peer.ID) bool, rnd *rand.Rand) []holder.Offer {
	var ranking policy.Ranking
	byNode := make(map[peer.ID]holder.Offer, len(passed))
	for _, o := range passed {
		ranking.Passed = append(ranking.Passed, o.Evaluation)
		byNode[o.Record.Node] = o
	}
	var order []holder.Offer
	for _, v := range ranking.Draw(ReserveMost, keep, rnd) {
		order = append(order, byNode[v.Record.Node])
		delete(byNode, v.Record.Node)
	}
	for _, o := range passed {
		if _, left := byNode[o.Record.Node]; left {
			order = append(order, o)
		}
	}
	if len(order) > 1 && order[0].Holder != "" {
		other := slices.IndexFunc(order, func(o holder.Offer) bool { return o.Holder != order[0].Holder })
		if other > 1 {
			o := order[other]
			order = slices.Insert(slices.Delete(order, other, other+1), 1, o)
		}
	}
	slices.SortStableFunc(order, func(a, b holder.Offer) int {
		return falseFirst(suspect(a.Record.Node), suspect(b.Record.Node))
	})
	return order[:min(len(order), ReserveMost)]
}

// falseFirst compares two conditions as cmp.Compare does numbers.
func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
