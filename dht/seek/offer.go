package seek

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/place"
)

// An offer is a candidate of a placement as a holder judged it, this node
// included. It only decides which candidates to ask; see [Seeker.confirm].
type offer = holder.Offer

// offered adds o to the known offers. Of several offers of a node the one with
// the newest record counts; for the same record, the less favourable one,
// because its holder has offered the node more often. A newer record that this
// node has seen itself replaces any offer.
func (q *query) offered(now time.Time, o offer) {
	node := o.Record.Node
	if slices.Contains(q.exclude, node) {
		return
	}
	q.report(node, o.Trust)
	r, sealed, known := q.s.known(now, q.topic, node)
	switch {
	case known && r.Seq > o.Record.Seq:
		q.add(r, sealed)
		return
	case known && r.Seq == o.Record.Seq:
		o.Record, o.Sealed, o.Holder = r, sealed, ""
	case o.Holder == q.s.cfg.ID:
		o.Holder = ""
	}
	place.Merge(q.offers, o)
}

// known returns the newest record of node in topic that this node has verified
// or made itself.
func (s *Seeker) known(now time.Time, topic holder.Topic, node peer.ID) (capacity.Record, []byte, bool) {
	if node == s.cfg.ID {
		return s.cfg.Published(topic)
	}
	return s.cfg.Newest.Get(now, node, topic.Stream())
}

// rankOffers merges the holders' offers with the ranking of the records that
// were judged here, best first. The node's own experience scales the offers'
// scores.
func (s *Seeker) rankOffers(now time.Time, ranking policy.Ranking, offers map[peer.ID]offer) []offer {
	return place.Rank(ranking, offers, func(p peer.ID) float64 { return s.cfg.Reputation.Of(now, p) })
}

// errUnfit means that a candidate gave a lease, but the policy rejects its
// newest record.
type errUnfit struct{ rule string }

func (e *errUnfit) Error() string {
	return "its own newest record fails the policy's rule " + e.rule
}

// confirm checks the record with which the target of o answered: that it is the
// target's, belongs in topic, is no older than the offer, and, with the
// target's current use, passes the policy. Sealed may be empty if the record is
// known here, and use if the target sent none; rtt is how long the answer took,
// 0 if that is no measurement. An invented offer is detected here, before it is
// used.
func (s *Seeker) confirm(topic holder.Topic, need capacity.Need, o *offer, sealed, use []byte, rtt time.Duration) (policy.Evaluation, error) {
	now := time.Now()
	r := o.Record
	if len(sealed) == 0 {
		if o.DigestOnly() {
			return policy.Evaluation{}, errors.New("lease without a record")
		}
		sealed = o.Sealed
	} else {
		var err error
		if r, err = signed.OpenRecord(sealed, s.cfg.Wall(now)); err != nil {
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
		if r, sealed, ok = s.cfg.Newest.See(now, r, sealed); !ok {
			return policy.Evaluation{}, fmt.Errorf("lease with record %d, which has run out", r.Seq)
		}
	}
	if len(use) > 0 {
		var err error
		if r, err = signed.WithLoad(r, use); err != nil {
			return policy.Evaluation{}, err
		}
	}
	if err := s.cfg.Reachable(need, &r); err != nil {
		return policy.Evaluation{}, err
	}
	c := policy.Candidate{Record: r, Sealed: sealed, RTT: cmp.Or(rtt, s.cfg.Coordinates.Predict(r.Coordinate)), Trust: min(s.cfg.Reputation.Of(now, r.Node), o.Trust)}
	ranking := s.cfg.Policy().Rank(need, s.Me(need.Region), []policy.Candidate{c})
	if len(ranking.Passed) == 0 {
		return ranking.Rejected[0], &errUnfit{ranking.Rejected[0].Rule}
	}
	return ranking.Passed[0], nil
}
