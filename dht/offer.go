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
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	digestAddrs   = 2   // addresses in a digest
	maxDigestAddr = 128 // bytes of each
)

// An offer is a candidate of a placement as a holder judged it, this node
// included. What it says decides only whom to ask; see [Node.confirm].
type offer = holder.Offer

// offers draws from the records held in topic, as [holder.Table.Offers] does by
// the policy of now.
func (n *Node) offers(topic Topic, need capacity.Need, me capacity.Record, exclude []peer.ID, limit int) (offers []offer, count int, rejected map[string]int) {
	now := time.Now()
	offers, count, rejected = n.table.Offers(now, n.cfg.Policy(), holder.Query{
		Topic: topic, Need: need, Me: me, Exclude: exclude, Limit: limit,
		Trust: func(p peer.ID) float64 { return n.doubts.Of(now, p) },
	}, newRand())
	for i := range offers {
		offers[i].Holder = n.ID()
	}
	return offers, count, rejected
}

// digestToWire is o without what the asker can do without for now.
func digestToWire(now time.Time, o *offer) *pb.Digest {
	w := &pb.Digest{
		Node:   []byte(o.Record.Node),
		Seq:    o.Record.Seq,
		Age:    uint32(min(max(0, now.Sub(o.Received)), 2*capacity.MaxTTL).Milliseconds()),
		Stress: uint32(math.Round(min(o.Stress, 1_000) * 1e4)),
		Rtt:    uint32(min(o.RTT, time.Minute).Microseconds()),
	}
	if o.Headroom >= 0 {
		headroom := uint64(o.Headroom)
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

// digestFromWire checks w, which from sent. The terms are those of p,
// whose weights give the score.
func digestFromWire(now time.Time, from peer.ID, p policy.Policy, w *pb.Digest) (offer, error) {
	id, err := peer.IDFromBytes(w.Node)
	if err != nil {
		return offer{}, fmt.Errorf("node: %w", err)
	}
	switch {
	case w.Seq == 0:
		return offer{}, errors.New("no sequence number")
	case len(w.Terms) != len(p.Score):
		return offer{}, fmt.Errorf("%d terms, the policy has %d", len(w.Terms), len(p.Score))
	case len(w.Addrs) > digestAddrs:
		return offer{}, fmt.Errorf("%d addresses, at most %d", len(w.Addrs), digestAddrs)
	}
	o := offer{Stress: float64(w.Stress) / 1e4, Headroom: -1, Holder: from}
	if w.Headroom != nil {
		o.Headroom = int64(min(*w.Headroom, math.MaxInt64))
	}
	o.Record = capacity.Record{
		Node:   id,
		Seq:    w.Seq,
		Issued: now.Add(-min(time.Duration(w.Age)*time.Millisecond, 2*capacity.MaxTTL)),
	}
	o.RTT = min(time.Duration(w.Rtt)*time.Microsecond, time.Minute)
	o.Trust = 1
	for i, x := range w.Terms {
		t := p.Score[i]
		score := float64(x) * t.Weight
		o.Terms = append(o.Terms, policy.TermScore{Name: t.Name, Value: float64(x), Weight: t.Weight, Score: score})
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

// digests checks what from sent. As with records, one that is wrong spoils
// them all.
func digests(now time.Time, from peer.ID, policy policy.Policy, sent []*pb.Digest) ([]offer, error) {
	offers := make([]offer, 0, len(sent))
	for _, w := range sent {
		o, err := digestFromWire(now, from, policy, w)
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
func (q *query) offered(now time.Time, o offer) {
	node := o.Record.Node
	if slices.Contains(q.exclude, node) {
		return
	}
	q.report(node, o.Trust)
	r, sealed, known := q.n.known(now, q.topic, node)
	switch {
	case known && r.Seq > o.Record.Seq:
		q.add(r, sealed)
		return
	case known && r.Seq == o.Record.Seq:
		o.Record, o.Sealed, o.Holder = r, sealed, ""
	case o.Holder == q.n.ID():
		o.Holder = ""
	}
	place.Merge(q.offers, o)
}

// known returns the newest record of node in topic that this node has verified
// or made itself.
func (n *Node) known(now time.Time, topic Topic, node peer.ID) (capacity.Record, []byte, bool) {
	if node == n.ID() {
		return n.publisher.Published(topic)
	}
	return n.newest.get(now, node, topic.Stream())
}

// rankOffers merges what holders offered with the ranking of the records that
// were judged here, best first. Our own experience scales what others said.
func (n *Node) rankOffers(now time.Time, ranking policy.Ranking, offers map[peer.ID]offer) []offer {
	return place.Rank(ranking, offers, func(p peer.ID) float64 { return n.beliefs.Of(now, p) })
}

// errUnfit means that a candidate gave a lease, but by its own newest record
// the policy forbids it.
type errUnfit struct{ rule string }

func (e *errUnfit) Error() string {
	return "its own newest record fails the policy's rule " + e.rule
}

// confirm checks the record with which the target of o answered: that it is
// the target's, belongs in topic, is no older than what was offered, and, with
// what the target uses by now, passes the policy. Sealed may be empty if the
// record is known here, and use if nothing is told of it; rtt is how long the
// answer took, 0 if that says nothing. A holder that made something up is found
// out here, before anything comes of it.
func (n *Node) confirm(topic Topic, need capacity.Need, o *offer, sealed, use []byte, rtt time.Duration) (policy.Evaluation, error) {
	now := time.Now()
	r := o.Record
	if len(sealed) == 0 {
		if o.Told() {
			return policy.Evaluation{}, errors.New("lease without a record")
		}
		sealed = o.Sealed
	} else {
		var err error
		if r, err = signed.OpenRecord(sealed, n.wall(now)); err != nil {
			return policy.Evaluation{}, err
		}
		switch {
		case r.Node != o.Record.Node:
			return policy.Evaluation{}, fmt.Errorf("lease with the record of %s", r.Node)
		case r.Seq < o.Record.Seq:
			return policy.Evaluation{}, fmt.Errorf("lease with record %d, but record %d was offered", r.Seq, o.Record.Seq)
		}
		if err := topic.Fits(&r); err != nil {
			return policy.Evaluation{}, err
		}
		var ok bool
		if r, sealed, ok = n.newest.see(now, r, sealed); !ok {
			return policy.Evaluation{}, fmt.Errorf("lease with record %d, which has run out", r.Seq)
		}
	}
	if len(use) > 0 {
		var err error
		if r, err = signed.WithLoad(r, use); err != nil {
			return policy.Evaluation{}, err
		}
	}
	if err := n.reachable(need, &r); err != nil {
		return policy.Evaluation{}, err
	}
	c := policy.Candidate{Record: r, Sealed: sealed, RTT: cmp.Or(rtt, n.overlay.Coords.Predict(r.Coordinate)), Trust: min(n.beliefs.Of(now, r.Node), o.Trust)}
	ranking := n.cfg.Policy().Rank(need, n.me(need.Region), []policy.Candidate{c})
	if len(ranking.Passed) == 0 {
		return ranking.Rejected[0], &errUnfit{ranking.Rejected[0].Rule}
	}
	return ranking.Passed[0], nil
}
