package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// reply is one remote holder's answer, verified.
type reply struct {
	index   int // in answer.Asked
	holder  peer.ID
	records []verified
	offers  []offer
	doubts  []holder.Doubt
	query   *pb.QueryReply
	elapsed time.Duration
	spent   overlay.Cost
	err     error
}

type verified struct {
	record capacity.Record
	sealed []byte
}

func (n *Node) queryRequest(q *query) *pb.Request {
	query := &pb.Query{
		Topic:   string(q.topic),
		Need:    signed.NeedToWire(q.need),
		Origin:  vivaldi.ToWire(n.overlay.Coords.Here()),
		Limit:   uint32(q.limit),
		Policy:  n.cfg.Policy().Policy().Version,
		Explain: q.explain,
		Sealed:  !q.compact,
	}
	for _, p := range q.exclude[:min(len(q.exclude), holding.MaxExclude)] {
		query.Exclude = append(query.Exclude, []byte(p))
	}
	// Who is asked for its own record only is not told what others think of it.
	if topic := q.topic; !n.cfg.Discovery.Own() && topic != holder.RegionsTopic && !topic.Provisions() {
		for _, d := range n.beliefs.Doubts(time.Now()) {
			query.Doubts = append(query.Doubts, holding.DoubtToWire(d))
		}
	}
	return &pb.Request{Op: &pb.Request_Query{Query: query}}
}

// askHolder asks one holder, within its own deadline, and verifies what it says. A
// holder that sends anything but good records of the topic, or offers where
// those will do, has none of them used.
func (n *Node) askHolder(ctx context.Context, index int, p peer.ID, q *query) reply {
	start := time.Now()
	r := reply{index: index, holder: p}
	ctx, cancel := context.WithTimeout(ctx, n.peers.Deadline(p))
	defer cancel()
	var resp pb.Response
	var rtt time.Duration
	rtt, r.spent, r.err = n.overlay.Call(ctx, p, n.records, n.queryRequest(q), &resp, maxQueryReply)
	r.elapsed = time.Since(start)
	if r.err != nil {
		n.peers.Failed(p, r.err)
		return r
	}
	r.query = resp.GetQuery()
	switch {
	case resp.Error != "":
		r.err = holderError(&resp)
	case r.query == nil:
		r.err = errors.New("holder answered something else")
	case len(r.query.Sealed)+len(r.query.Digests) > holding.QueryLimit:
		r.err = fmt.Errorf("holder sent %d records, at most %d were asked for", len(r.query.Sealed)+len(r.query.Digests), holding.QueryLimit)
	case len(r.query.Digests) > 0 && !q.compact:
		r.err = errors.New("holder sent digests where records were asked for")
	default:
		now := time.Now()
		var nowhere int
		r.records, nowhere, r.err = verify(n.wall(now), q.topic, r.query.Sealed)
		if nowhere > 0 {
			r.query.Rejected = append([]*pb.Rejected{{Rule: nowhereRule, Count: uint32(nowhere)}}, r.query.Rejected...)
		}
		if r.err == nil {
			r.offers, r.err = holding.DigestsFromWire(now, p, n.cfg.Policy().Policy(), r.query.Digests)
		}
		if r.err == nil {
			r.doubts, r.err = holding.DoubtsFromWire(r.query.Doubts, holding.QueryLimit)
		}
	}
	if r.err != nil {
		n.log.DebugContext(ctx, "holder's answer not used", "peer", p, "topic", q.topic, "err", r.err)
		n.peers.Failed(p, r.err)
		return r
	}
	n.peers.Answered(p, rtt)
	return r
}

// nowhereRule is by which records are rejected that tell no address in
// particular. It is the name that the built-in policy has for records without one.
const nowhereRule = "url"

// verify opens what a holder sent. Records that ran out on the way are left
// out, and so are, counted, those that tell no address in particular, which
// older nodes make and hold; one that is forged or does not belong in topic
// spoils them all, for no honest holder keeps such.
func verify(now time.Time, topic Topic, sealed [][]byte) (records []verified, nowhere int, err error) {
	for _, b := range sealed {
		r, err := signed.OpenRecord(b, now)
		if errors.Is(err, capacity.ErrExpired) || errors.Is(err, capacity.ErrFromFuture) {
			continue // clocks differ
		}
		if errors.Is(err, capacity.ErrNowhere) {
			nowhere++
			continue
		}
		if err == nil {
			err = topic.Fits(&r)
		}
		if err != nil {
			return nil, 0, err
		}
		records = append(records, verified{r, b})
	}
	return records, nowhere, nil
}
