package seek

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

// reply is the verified answer of one remote holder.
type reply struct {
	index   int // in answer.Asked
	holder  peer.ID
	records []Verified
	offers  []offer
	reports []holder.Report
	query   *pb.QueryReply
	elapsed time.Duration
	spent   overlay.Cost
	err     error
}

// Verified is a record as a holder sent it.
type Verified struct {
	Record capacity.Record
	Sealed []byte
}

func (s *Seeker) queryRequest(q *query) *pb.Request {
	query := &pb.Query{
		Topic:   string(q.topic),
		Need:    signed.NeedToWire(q.need),
		Origin:  vivaldi.ToWire(s.cfg.Coordinates.Here()),
		Limit:   uint32(q.limit),
		Policy:  s.cfg.Policy().Policy().Version,
		Explain: q.explain,
		Sealed:  !q.compact,
	}
	for _, p := range q.exclude[:min(len(q.exclude), holding.MaxExclude)] {
		query.Exclude = append(query.Exclude, []byte(p))
	}
	// A holder that is asked only for its own record gets no reports about
	// others.
	if topic := q.topic; !s.cfg.Discovery.Own() && topic != holder.RegionsTopic && !topic.Provisions() {
		for _, d := range s.cfg.Reputation.Reports(time.Now()) {
			query.Reports = append(query.Reports, holding.ReportToWire(d))
		}
	}
	return &pb.Request{Op: &pb.Request_Query{Query: query}}
}

// askHolder asks one holder, within its own deadline, and verifies its answer.
// If a holder sends anything but good records of the topic, or offers where
// those suffice, its whole answer is discarded.
func (s *Seeker) askHolder(ctx context.Context, index int, p peer.ID, q *query) reply {
	start := time.Now()
	r := reply{index: index, holder: p}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Peers.Deadline(p))
	defer cancel()
	var resp pb.Response
	var rtt time.Duration
	rtt, r.spent, r.err = s.cfg.Overlay.Call(ctx, p, s.cfg.Records, s.queryRequest(q), &resp, MaxQueryReply)
	r.elapsed = time.Since(start)
	if r.err != nil {
		s.cfg.Peers.Failed(p, r.err)
		return r
	}
	r.query = resp.GetQuery()
	switch {
	case resp.Error != "":
		r.err = holding.ReplyError(&resp)
	case r.query == nil:
		r.err = errors.New("holder answered something else")
	case len(r.query.Sealed)+len(r.query.Digests) > holding.QueryLimit:
		r.err = fmt.Errorf("holder sent %d records, at most %d were asked for", len(r.query.Sealed)+len(r.query.Digests), holding.QueryLimit)
	case len(r.query.Digests) > 0 && !q.compact:
		r.err = errors.New("holder sent digests where records were asked for")
	default:
		now := time.Now()
		var nowhere int
		r.records, nowhere, r.err = Verify(s.cfg.Wall(now), q.topic, r.query.Sealed)
		if nowhere > 0 {
			r.query.Rejected = append([]*pb.Rejected{{Rule: nowhereRule, Count: uint32(nowhere)}}, r.query.Rejected...)
		}
		if r.err == nil {
			r.offers, r.err = holding.DigestsFromWire(now, p, s.cfg.Policy().Policy(), r.query.Digests)
		}
		if r.err == nil {
			r.reports, r.err = holding.ReportsFromWire(r.query.Reports, holding.QueryLimit)
		}
	}
	if r.err != nil {
		s.cfg.Log.DebugContext(ctx, "holder's answer not used", "peer", p, "topic", q.topic, "err", r.err)
		s.cfg.Peers.Failed(p, r.err)
		return r
	}
	s.cfg.Peers.Answered(p, rtt)
	return r
}

// nowhereRule is the rule that rejects records whose addresses are unspecified.
// The built-in policy uses the same name for records without an address.
const nowhereRule = "url"

// Verify opens the records that a holder sent; now is by the clock compared
// with other nodes. Records that expired on the way are left out, and so are,
// counted in nowhere, records with an unspecified address, which older nodes
// make and hold. A record that is forged or does not belong in topic is an
// error for all, because no honest holder keeps such a record.
func Verify(now time.Time, topic holder.Topic, sealed [][]byte) (records []Verified, nowhere int, err error) {
	for _, b := range sealed {
		r, err := signed.OpenRecord(b, now)
		if errors.Is(err, capacity.ErrExpired) || errors.Is(err, capacity.ErrFromFuture) {
			continue // clocks differ
		}
		if errors.Is(err, capacity.ErrUnspecifiedAddr) {
			nowhere++
			continue
		}
		if err == nil {
			err = topic.Fits(&r)
		}
		if err != nil {
			return nil, 0, err
		}
		records = append(records, Verified{r, b})
	}
	return records, nowhere, nil
}
