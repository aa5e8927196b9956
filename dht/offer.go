package dht

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/pb"
)

const (
	digestAddrs   = 2   // addresses in a digest
	maxDigestAddr = 128 // bytes of each
)

// An offer is a candidate of a placement as a holder judged it, this node
// included. What it says decides only whom to ask; see [Node.confirm].
type offer struct {
	// Of a record that is not known here, Record has Node, Seq, Issued and
	// Addrs only, and Sealed is nil.
	capacity.Verdict
	stress   float64
	headroom int64     // bit/s; negative: no limit
	holder   peer.ID   // on whose word alone this rests; "": on more
	received time.Time // by the holder, if this node is it
}

// told reports whether the record itself is not known here.
func (o *offer) told() bool { return o.Sealed == nil }

// offers draws up to limit of the records held in topic that pass the policy
// for me, by score and chance, and counts those held and those each rule
// rejected. Under a policy that packs it takes the best.
//
// What was offered since a record came in counts as used, by the chance that
// the asker takes it, times askers: how many placements this one stands for.
// So those who come between two records of a node do not all find it the
// roomiest: of 200 who placed on 40 nodes with one and the same records, 0.7 %
// chose one that was full by then, against 25 % of those who drew among the
// best with nothing counted. The count is too high where askers go elsewhere;
// so where it alone leaves nothing to offer, it is not applied.
func (n *Node) offers(topic Topic, need capacity.Need, me capacity.Record, exclude []peer.ID, limit int, askers float64) (offers []offer, count int, rejected map[string]int) {
	stock := n.table.stock(time.Now(), topic)
	judge := n.cfg.Judge()
	ranking := rankStock(judge, stock, need, me, exclude, true)
	if len(ranking.Passed) == 0 && slices.ContainsFunc(stock, func(s stocked) bool { return s.shadow != shadow{} }) {
		ranking = rankStock(judge, stock, need, me, exclude, false)
	}
	verdicts := ranking.Passed
	if len(verdicts) > limit {
		pool := len(verdicts)
		if judge.Policy().Mood == capacity.Pack {
			pool = limit // shadows alone keep askers apart
		}
		verdicts = ranking.Draw(limit, pool, newRand())
	}
	// The asker draws among the best of what it gets, by score.
	best := slices.Clone(verdicts)
	slices.SortStableFunc(best, func(a, b capacity.Verdict) int { return cmp.Compare(b.Score, a.Score) })
	best = best[:min(len(best), cmp.Or(judge.Policy().Keep, len(best)))]
	total := 0.0
	for _, v := range best {
		total += max(0, v.Score)
	}
	plain := make(map[peer.ID]*held, len(stock))
	for _, s := range stock {
		plain[s.node()] = s.held
	}
	for _, v := range best {
		chance := 1 / float64(len(best))
		if total > 0 {
			chance = max(0, v.Score) / total
		}
		n.table.offered(plain[v.Record.Node], shadowOf(need, chance*askers))
	}
	for _, v := range verdicts {
		o := offer{Verdict: v, stress: v.Record.Stress(), headroom: -1, holder: n.ID(), received: plain[v.Record.Node].received}
		if r := &v.Record; r.Uplink.Limit > 0 {
			o.headroom = max(0, r.Uplink.Limit-r.Uplink.Used-r.Reserved)
		}
		o.Record = plain[v.Record.Node].record
		offers = append(offers, o)
	}
	return offers, len(stock), ranking.RejectedBy()
}

func rankStock(judge *capacity.Judge, stock []stocked, need capacity.Need, me capacity.Record, exclude []peer.ID, shadows bool) capacity.Ranking {
	candidates := make([]capacity.Candidate, 0, len(stock))
	for _, s := range stock {
		if slices.Contains(exclude, s.node()) {
			continue
		}
		r := s.record
		if shadows {
			r = s.shadow.on(r)
		}
		candidates = append(candidates, capacity.Candidate{
			Record:   r,
			Sealed:   s.sealed,
			RTT:      predictRTT(me.Coordinate, r.Coordinate),
			Believed: 1,
		})
	}
	return judge.Rank(need, me, candidates)
}

// A shadow is what a holder expects to come upon a node because of what it has
// offered.
type shadow struct{ sessions, pulls, uplink, packets float64 }

// shadowOf is the shadow of so many placements for need.
func shadowOf(need capacity.Need, placements float64) shadow {
	const most = 1 << 40 // of one need, which a peer names
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

// on returns r with s counted as used.
func (s shadow) on(r capacity.Record) capacity.Record {
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

// digestToWire is o without what the asker can do without for now.
func digestToWire(now time.Time, o *offer) *pb.Digest {
	w := &pb.Digest{
		Node:   []byte(o.Record.Node),
		Seq:    o.Record.Seq,
		Age:    uint32(min(max(0, now.Sub(o.received)), 2*capacity.MaxTTL).Milliseconds()),
		Stress: uint32(math.Round(min(o.stress, 1_000) * 1e4)),
		Rtt:    uint32(min(o.RTT, time.Minute).Microseconds()),
	}
	if o.headroom >= 0 {
		headroom := uint64(o.headroom)
		w.Headroom = &headroom
	}
	for _, t := range o.Terms {
		w.Terms = append(w.Terms, float32(t.Value))
	}
	for _, a := range dialable(o.Record.Addrs) {
		w.Addrs = append(w.Addrs, a.Bytes())
	}
	return w
}

// dialable picks the addresses of a digest: one of each transport first.
func dialable(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	if len(addrs) <= digestAddrs {
		return addrs
	}
	quic := func(a multiaddr.Multiaddr) bool {
		_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
		return err == nil
	}
	first := addrs[0]
	for _, a := range addrs[1:] {
		if quic(a) != quic(first) {
			return []multiaddr.Multiaddr{first, a}
		}
	}
	return addrs[:digestAddrs]
}

// digestFromWire checks w, which holder sent. The terms are those of policy,
// whose weights give the score.
func digestFromWire(now time.Time, holder peer.ID, policy capacity.Policy, w *pb.Digest) (offer, error) {
	id, err := peer.IDFromBytes(w.Node)
	if err != nil {
		return offer{}, fmt.Errorf("node: %w", err)
	}
	switch {
	case w.Seq == 0:
		return offer{}, errors.New("no sequence number")
	case len(w.Terms) != len(policy.Score):
		return offer{}, fmt.Errorf("%d terms, the policy has %d", len(w.Terms), len(policy.Score))
	case len(w.Addrs) > digestAddrs:
		return offer{}, fmt.Errorf("%d addresses, at most %d", len(w.Addrs), digestAddrs)
	}
	o := offer{stress: float64(w.Stress) / 1e4, headroom: -1, holder: holder}
	if w.Headroom != nil {
		o.headroom = int64(min(*w.Headroom, math.MaxInt64))
	}
	o.Record = capacity.Record{
		Node:   id,
		Seq:    w.Seq,
		Issued: now.Add(-min(time.Duration(w.Age)*time.Millisecond, 2*capacity.MaxTTL)),
	}
	o.RTT = min(time.Duration(w.Rtt)*time.Microsecond, time.Minute)
	o.Believed = 1
	for i, x := range w.Terms {
		t := policy.Score[i]
		score := float64(x) * t.Weight
		o.Terms = append(o.Terms, capacity.TermScore{Name: t.Name, Value: float64(x), Weight: t.Weight, Score: score})
		o.Score += score
	}
	if math.IsNaN(o.Score) || math.IsInf(o.Score, 0) {
		return offer{}, errors.New("its score is no number")
	}
	for _, b := range w.Addrs {
		if len(b) > maxDigestAddr {
			return offer{}, fmt.Errorf("address of %d bytes", len(b))
		}
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return offer{}, err
		}
		o.Record.Addrs = append(o.Record.Addrs, a)
	}
	return o, nil
}

// digests checks what holder sent. As with records, one that is wrong spoils
// them all.
func digests(now time.Time, holder peer.ID, policy capacity.Policy, sent []*pb.Digest) ([]offer, error) {
	offers := make([]offer, 0, len(sent))
	for _, w := range sent {
		o, err := digestFromWire(now, holder, policy, w)
		if err != nil {
			return nil, fmt.Errorf("digest: %w", err)
		}
		offers = append(offers, o)
	}
	return offers, nil
}

// offered adds o to what is known. Of several offers of a node the newest
// record counts; of one and the same record the less favourable word, whose
// holder has offered it more often. A newer record that we have seen ourselves
// counts more than any.
func (q *finding) offered(now time.Time, o offer) {
	node := o.Record.Node
	if slices.Contains(q.exclude, node) {
		return
	}
	r, sealed, known := q.n.known(now, q.topic, node)
	switch {
	case known && r.Seq > o.Record.Seq:
		q.add(r, sealed)
		return
	case known && r.Seq == o.Record.Seq:
		o.Record, o.Sealed, o.holder = r, sealed, ""
	case o.holder == q.n.ID():
		o.holder = ""
	}
	old, twice := q.offers[node]
	switch {
	case !twice, o.Record.Seq > old.Record.Seq:
		q.offers[node] = o
	case o.Record.Seq == old.Record.Seq:
		if old.told() && !o.told() {
			old.Record, old.Sealed = o.Record, o.Sealed
		}
		if o.Score < old.Score {
			old.Score, old.Terms, old.stress, old.headroom = o.Score, o.Terms, o.stress, o.headroom
		}
		old.holder = ""
		q.offers[node] = old
	}
}

// known returns the newest record of node in topic that this node has verified
// or made itself.
func (n *Node) known(now time.Time, topic Topic, node peer.ID) (capacity.Record, []byte, bool) {
	if node == n.ID() {
		return n.outbox.published(topic)
	}
	return n.newest.get(now, node, topic.Stream())
}

// rankOffers merges what holders offered with the ranking of the records that
// were judged here, best first. Our own experience scales what others said.
func (n *Node) rankOffers(now time.Time, ranking capacity.Ranking, offers map[peer.ID]offer) []offer {
	var all []offer
	judged := make(map[peer.ID]uint64)
	for _, v := range ranking.Passed {
		all = append(all, judgedHere(v))
		judged[v.Record.Node] = v.Record.Seq
	}
	for _, v := range ranking.Rejected {
		judged[v.Record.Node] = v.Record.Seq
	}
	for node, o := range offers {
		if seq, ok := judged[node]; ok && seq >= o.Record.Seq {
			continue
		}
		o.Believed = n.beliefs.of(now, node)
		o.Score *= o.Believed
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b offer) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Record.Node, b.Record.Node))
	})
	return all
}

func judgedHere(v capacity.Verdict) offer {
	o := offer{Verdict: v, stress: v.Record.Stress(), headroom: -1}
	if r := &v.Record; r.Uplink.Limit > 0 {
		o.headroom = max(0, r.Uplink.Limit-r.Uplink.Used-r.Reserved)
	}
	return o
}

// errUnfit means that a candidate gave a lease, but by its own newest record
// the policy forbids it.
type errUnfit struct{ rule string }

func (e *errUnfit) Error() string {
	return "its own newest record fails the policy's rule " + e.rule
}

// confirm checks the record with which the target of o answered: that it is
// the target's, belongs in topic, is no older than what was offered, and passes
// the policy. Sealed may be empty if the record is known here. A holder that
// made something up is found out here, before anything comes of it.
func (n *Node) confirm(topic Topic, need capacity.Need, o *offer, sealed []byte) (capacity.Candidate, error) {
	now := time.Now()
	r := o.Record
	if len(sealed) == 0 {
		if o.told() {
			return capacity.Candidate{}, errors.New("lease without a record")
		}
		sealed = o.Sealed
	} else {
		var err error
		if r, err = capacity.Open(sealed, n.wall(now)); err != nil {
			return capacity.Candidate{}, err
		}
		switch {
		case r.Node != o.Record.Node:
			return capacity.Candidate{}, fmt.Errorf("lease with the record of %s", r.Node)
		case r.Seq < o.Record.Seq:
			return capacity.Candidate{}, fmt.Errorf("lease with record %d, but record %d was offered", r.Seq, o.Record.Seq)
		}
		if err := topic.fits(&r); err != nil {
			return capacity.Candidate{}, err
		}
		var ok bool
		if r, sealed, ok = n.newest.see(now, r, sealed); !ok {
			return capacity.Candidate{}, fmt.Errorf("lease with record %d, which has run out", r.Seq)
		}
	}
	c := capacity.Candidate{Record: r, Sealed: sealed, RTT: n.coords.predict(r.Coordinate), Believed: n.beliefs.of(now, r.Node)}
	ranking := n.cfg.Judge().Rank(need, n.me(need.Region), []capacity.Candidate{c})
	if len(ranking.Passed) == 0 {
		return c, &errUnfit{ranking.Rejected[0].Rule}
	}
	return c, nil
}
