package holding

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// Query answers with a random sample, weighted by score, of the records that
// pass the policy: never just the best ones, which all concurrent seekers would
// choose. A seeker with the same policy gets digests, because it will get the
// record from the node it takes.
func (h *Holder) Query(now time.Time, from peer.ID, q *pb.Query) (*pb.QueryReply, error) {
	topic := holder.Topic(q.Topic)
	if err := topic.CheckAsked(); err != nil {
		return nil, err
	}
	need, err := NeedFromWire(q.Need)
	if err != nil {
		return nil, err
	}
	if len(q.Exclude) > MaxExclude {
		return nil, fmt.Errorf("%d peers excluded, at most %d", len(q.Exclude), MaxExclude)
	}
	reports, err := ReportsFromWire(q.Reports, holder.MaxReports)
	if err != nil {
		return nil, err
	}
	exclude := make([]peer.ID, 0, len(q.Exclude))
	for _, b := range q.Exclude {
		exclude = append(exclude, peer.ID(b))
	}
	limit := QueryLimit
	if q.Limit > 0 {
		limit = min(limit, int(q.Limit))
	}
	me := capacity.Record{Node: from, Region: need.Region}
	if own := h.cfg.Table.Get(now, holder.CapacityTopic(), from); own != nil {
		me = own.Record
	}
	if origin := vivaldi.FromWire(q.Origin); origin != nil {
		me.Coordinate = origin
	}
	if topic == holder.RegionsTopic {
		return h.regions(now, me, limit), nil
	}
	if !topic.Provisions() {
		h.cfg.Reports.Heard(now, from, reports)
	}
	reply := &pb.QueryReply{}
	var held int
	var rejected map[string]int
	if q.Sealed || q.Explain || topic.Provisions() || q.Policy != h.cfg.Policy().Policy().Version {
		var picked []policy.Candidate
		picked, held, rejected = h.Sample(now, topic, need, me, exclude, limit, q.Explain)
		for _, c := range picked {
			reply.Sealed = append(reply.Sealed, c.Sealed)
			reply.Reports = append(reply.Reports, reportsOf(&c)...)
		}
	} else {
		var offers []holder.Offer
		offers, held, rejected = h.Offers(now, topic, need, me, exclude, limit)
		for _, o := range offers {
			reply.Digests = append(reply.Digests, DigestToWire(now, &o))
			reply.Reports = append(reply.Reports, reportsOf(&o.Candidate)...)
		}
	}
	reply.Held = uint32(held)
	_, reply.Split = h.cfg.Table.Count(now, topic, h.cfg.Sharding.Quorum())
	if mean, ok := h.cfg.Table.MeanStress(now, topic); ok && topic.Stream() == "" {
		reply.Stress = proto.Uint32(uint32(min(mean, MaxStress) * 1e4))
	}
	for rule, count := range rejected {
		reply.Rejected = append(reply.Rejected, &pb.Rejected{Rule: rule, Count: uint32(count)})
	}
	return reply, nil
}

// Sample draws up to limit of the records held in topic that pass the policy
// for me, and counts the records held and those that each rule rejected.
// Explain fills up with rejected ones.
func (h *Holder) Sample(now time.Time, topic holder.Topic, need capacity.Need, me capacity.Record, exclude []peer.ID, limit int, explain bool) (picked []policy.Candidate, held int, rejected map[string]int) {
	if topic.Provisions() {
		picked, held = h.provisioners(now, topic, exclude, limit)
		return picked, held, nil
	}
	records := h.cfg.Table.List(now, topic)
	candidates := make([]policy.Candidate, 0, len(records))
	for _, c := range records {
		if slices.Contains(exclude, c.Node()) {
			continue
		}
		candidates = append(candidates, policy.Candidate{
			Record: c.Record,
			Sealed: c.Sealed,
			RTT:    holder.PredictRTT(me.Coordinate, c.Record.Coordinate),
			Trust:  h.cfg.Reports.Of(now, c.Node()),
		})
	}
	ranking := h.cfg.Policy().Rank(need, me, candidates)
	verdicts := ranking.Passed
	if len(verdicts) > limit {
		verdicts = ranking.Draw(limit, len(verdicts), newRand())
	}
	if explain {
		verdicts = slices.Concat(verdicts, ranking.Rejected)
	}
	for _, v := range verdicts[:min(len(verdicts), limit)] {
		picked = append(picked, v.Candidate)
	}
	return picked, len(records), ranking.RejectedBy()
}

// Offers draws from the records held in topic, as [holder.Table.Offers] does by
// the policy in force.
func (h *Holder) Offers(now time.Time, topic holder.Topic, need capacity.Need, me capacity.Record, exclude []peer.ID, limit int) (offers []holder.Offer, count int, rejected map[string]int) {
	offers, count, rejected = h.cfg.Table.Offers(now, h.cfg.Policy(), holder.Query{
		Topic: topic, Need: need, Me: me, Exclude: exclude, Limit: limit,
		Trust: func(p peer.ID) float64 { return h.cfg.Reports.Of(now, p) },
	}, newRand())
	for i := range offers {
		offers[i].Holder = h.cfg.ID
	}
	return offers, count, rejected
}

// nearestRegions draws one node of each region from the index, the regions
// nearest to me first.
func (h *Holder) nearestRegions(now time.Time, me capacity.Record, limit int) (picked []policy.Candidate, held int) {
	records := h.cfg.Table.List(now, holder.RegionsTopic)
	all := make([]policy.Candidate, 0, len(records))
	for _, c := range records {
		all = append(all, policy.Candidate{Record: c.Record, Sealed: c.Sealed, RTT: holder.PredictRTT(me.Coordinate, c.Record.Coordinate)})
	}
	slices.SortFunc(all, func(a, b policy.Candidate) int {
		return cmp.Or(cmp.Compare(a.RTT, b.RTT), cmp.Compare(a.Record.Node, b.Record.Node))
	})
	seen := make(map[string]bool)
	for _, c := range all {
		if !seen[c.Record.Region] && len(picked) < limit {
			seen[c.Record.Region] = true
			picked = append(picked, c)
		}
	}
	return picked, len(records)
}

func (h *Holder) regions(now time.Time, me capacity.Record, limit int) *pb.QueryReply {
	picked, held := h.nearestRegions(now, me, limit)
	reply := &pb.QueryReply{Held: uint32(held)}
	for _, c := range picked {
		reply.Sealed = append(reply.Sealed, c.Sealed)
	}
	return reply
}

// provisioners draws nothing: all records in a provision topic count, and of
// too many the closest to its key.
func (h *Holder) provisioners(now time.Time, topic holder.Topic, exclude []peer.ID, limit int) (picked []policy.Candidate, held int) {
	byNode := make(map[peer.ID]policy.Candidate)
	var list []peer.ID
	records := h.cfg.Table.List(now, topic)
	for _, c := range records {
		if !slices.Contains(exclude, c.Node()) {
			byNode[c.Node()] = policy.Candidate{Record: c.Record, Sealed: c.Sealed, Trust: 1}
			list = append(list, c.Node())
		}
	}
	for _, id := range directory.Closest(kb.ConvertKey(topic.Key(h.cfg.NetworkID)), list) {
		if len(picked) < limit {
			picked = append(picked, byNode[id])
		}
	}
	return picked, len(records)
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
