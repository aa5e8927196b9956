package seek

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

// releaseTime bounds the message that a lease is not going to be used.
const releaseTime = 2 * time.Second

const (
	// NoCandidates is the reason of a refusal for which no rule is responsible.
	NoCandidates = place.NoCandidates
	// Unreachable is the reason for a candidate that did not answer: whether it
	// has room is not known.
	Unreachable = place.Unreachable
	// NotKnown is the reason if the holders required for an answer did not
	// reply.
	NotKnown = place.NotKnown
)

// Placed is the target of a placement, and the lease on the room there.
type Placed struct {
	Candidate policy.Candidate
	Lease     capacity.Lease
}

// Explain is Place without the reservation: it returns the candidates that
// would be asked, and why.
func (s *Seeker) Explain(ctx context.Context, topic holder.Topic, need capacity.Need, exclude []peer.ID) (Decision, error) {
	d, passed, err := s.decide(ctx, &query{topic: topic, need: need, exclude: exclude, limit: holding.QueryLimit, explain: true})
	if err == nil && len(passed) > 0 {
		d.Chosen = passed[0].Record.Node
	} else if err == nil {
		d.Refused = d.refusal().Reason
	}
	d.TotalMillis = capacity.Milliseconds(time.Since(d.Time))
	return d, err
}

// Place finds a node for need and has it reserve room. It asks two of the best
// at once and then others, up to six, each within its own deadline; the better
// lease is used and every other released, also one that comes late. The lease
// expires capacity.LeaseTime after the target gave it.
//
// The error is a *capacity.Refusal if no node has room: its reason is the most
// frequent one among the candidates, or NoCandidates. Other errors are those of
// Find.
func (s *Seeker) Place(ctx context.Context, topic holder.Topic, need capacity.Need, exclude []peer.ID) (placed Placed, d Decision, err error) {
	ctx, span := s.placing(ctx, topic, need)
	defer func() { d.placed(span, err) }()
	d.Topic = topic
	r := s.newReservation(ctx, need, &d)
	defer r.end()
	// If the candidates come from a list of servers, all of them were asked.
	r.placement.Exclude, r.placement.Further = exclude, topic == holder.CapacityTopic() && !s.cfg.Discovery.Listed()
	placed, err = r.run(ctx, r.placement.Start())
	d.TotalMillis = capacity.Milliseconds(time.Since(d.Time))
	return placed, d, err
}

// PlaceAmong is Place among nodes whose sealed records are given, whatever
// their source. Records that do not verify are left out.
func (s *Seeker) PlaceAmong(ctx context.Context, topic holder.Topic, need capacity.Need, sealed [][]byte, exclude []peer.ID) (placed Placed, d Decision, err error) {
	ctx, span := s.placing(ctx, topic, need)
	defer func() { d.placed(span, err) }()
	q := &query{topic: topic, need: need, exclude: exclude}
	q.begin(s)
	now := time.Now()
	for _, b := range sealed {
		if records, _, err := Verify(s.cfg.Wall(now), topic, [][]byte{b}); err == nil && len(records) == 1 {
			q.add(records[0].Record, b)
		}
	}
	q.answer.Held, q.answer.Elapsed = len(q.found), time.Since(now)
	d, passed := s.weigh(now, q, q.result())
	r := s.newReservation(ctx, need, &d)
	defer r.end()
	r.placement.Start()
	placed, err = r.run(ctx, r.placement.Found(time.Now(), s.order(passed), place.Levels))
	d.TotalMillis = capacity.Milliseconds(time.Since(now))
	return placed, d, err
}
