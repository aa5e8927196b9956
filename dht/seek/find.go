package seek

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/tracing"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

const maxRules = 64 // in one answer

// Answer is the holders' answer to a query.
type Answer struct {
	// Candidates are verified, the newest record of each node.
	Candidates []policy.Candidate `json:"-"`
	// Held and Rejected, by rule, are reported by the holder that holds most,
	// and not verified.
	Held     int            `json:"held"`
	Rejected map[string]int `json:"rejected,omitempty"`
	// Hearing counts the holders that were required for this answer, heard and
	// silent. An answer without candidates means "there are none" only if
	// Hearing is enough.
	Hearing place.Hearing `json:"hearing"`
	// Asked lists the holders in the order they were asked, this node itself
	// first if it is one.
	Asked    []Asked       `json:"asked"`
	Elapsed  time.Duration `json:"-"`
	Messages int           `json:"messages"` // frames, both ways
	Bytes    int64         `json:"bytes"`    // frames and protocol negotiation, both ways
}

// Asked is one holder's part in an answer.
type Asked struct {
	Holder  peer.ID       `json:"holder"`
	Elapsed time.Duration `json:"-"`
	Millis  float64       `json:"elapsed_ms"`
	Records int           `json:"records"`       // good ones
	Err     string        `json:"err,omitempty"` // why its answer does not count
}

// Find asks the holders of topic for records that meet need, without those of
// the nodes in exclude.
//
// It asks the two nearest holders at the same time; if one is slow, fails or
// knows nothing, another is asked too. The first good answer counts, together
// with another one that arrives some milliseconds later. A node that is a
// holder itself adds its own records; in a network so small that every node is
// a holder, and once the node has been in it for a TTL, it asks no other.
//
// The error is an [*place.Unanswered] if nothing was found and too few holders
// have answered to conclude that there is nothing, or ctx's error. An answer
// may be empty without an error: then enough holders have said so, most of them
// for a stream, and two for capacity.
func (s *Seeker) Find(ctx context.Context, topic holder.Topic, need capacity.Need, exclude []peer.ID) (Answer, error) {
	return s.find(ctx, &query{topic: topic, need: need, exclude: exclude, limit: holding.QueryLimit})
}

// find runs q, in which the caller has set the topic and the need.
func (s *Seeker) find(ctx context.Context, q *query) (Answer, error) {
	start := time.Now()
	if err := q.topic.CheckAsked(); err != nil {
		return Answer{}, err
	}
	ctx, span := tracing.Start(ctx, s.cfg.Tracer, "find", trace.SpanKindInternal)
	defer span.End()
	q.trace = tracing.ToWire(ctx)
	q.begin(s)
	var err error
	each, own := s.cfg.Directory.Each()
	switch {
	case own:
		err = q.askEveryone(ctx, each)
	case q.topic == holder.CapacityTopic():
		err = q.runWide(ctx)
	default:
		err = q.run(ctx)
	}
	q.answer.Elapsed = time.Since(start)
	if err == nil && q.answer.Held == 0 && len(q.found)+len(q.offers) == 0 && !q.answer.Hearing.Enough() {
		err = &place.Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	if span.IsRecording() {
		span.SetAttributes(tracing.Topic.String(string(q.topic)), tracing.Held.Int(q.answer.Held), tracing.Offered.Int(len(q.found)+len(q.offers)), tracing.Messages.Int(q.answer.Messages))
		if err != nil {
			tracing.Fail(span, errorType(err))
		}
	}
	return q.result(), err
}

// result is the answer with the candidates found.
func (q *query) result() Answer {
	a := q.answer
	for _, c := range q.found {
		if heard, ok := q.reports[c.Record.Node]; ok {
			c.Trust = min(c.Trust, heard)
		}
		a.Candidates = append(a.Candidates, c)
	}
	// Sort, so that a random draw from the candidates depends on the seed only.
	slices.SortFunc(a.Candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.Record.Node, b.Record.Node) })
	return a
}

// Me is this node's own record, for the policy's comparisons.
func (s *Seeker) Me(region string) capacity.Record {
	me, ok := s.cfg.Own()
	if !ok {
		me = capacity.Record{Node: s.cfg.ID, Region: region}
	}
	me.Coordinate = s.cfg.Coordinates.Here()
	return me
}

// count adds to the records held and rejected.
func (a *Answer) count(held int, rejected map[string]int) {
	a.Held += held
	a.Rejected = sumCounts(a.Rejected, rejected)
}

// sumCounts adds more to counts, which may be nil, and returns it.
func sumCounts(counts, more map[string]int) map[string]int {
	if counts == nil && len(more) > 0 {
		counts = make(map[string]int)
	}
	for word, n := range more {
		counts[word] += n
	}
	return counts
}
