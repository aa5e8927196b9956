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

const maxRules = 64 // that an answer may name

// Answer is what holders said to a query.
type Answer struct {
	// Candidates are verified, the newest record of each node.
	Candidates []policy.Candidate `json:"-"`
	// Held and Rejected, by rule, are from the holder that holds most: its
	// word only.
	Held     int            `json:"held"`
	Rejected map[string]int `json:"rejected,omitempty"`
	// Hearing says on whose word it rests that there is no more. An answer without
	// candidates is one only if it is enough.
	Hearing place.Hearing `json:"hearing"`
	// Asked lists the holders in the order they were asked, this node itself
	// first where it is one.
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
	Err     string        `json:"err,omitempty"` // why it does not count
}

// Find asks the holders of topic for records that meet need, those of the
// nodes in exclude left out.
//
// Of the holders, the two nearest are asked at the same time; one that is slow,
// fails or knows nothing gets a rival, and the first good answer counts, with
// what another adds within some milliseconds. A node that is a holder itself
// adds what it holds; in a network so small that everyone is, and once it has
// been in it for a TTL, it asks nobody.
//
// The error is an [*place.Unanswered] if nothing was found and too few holders have
// answered to say that there is nothing, or is ctx's. An answer may be empty
// without an error: then they have said so, most of them of a stream, and two of
// capacity.
func (s *Seeker) Find(ctx context.Context, topic holder.Topic, need capacity.Need, exclude []peer.ID) (Answer, error) {
	return s.find(ctx, &query{topic: topic, need: need, exclude: exclude, limit: holding.QueryLimit})
}

// find runs q, of which what to find is filled in.
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
			tracing.Fail(span, ErrorWord(err))
		}
	}
	return q.result(), err
}

// result is the answer with what was found.
func (q *query) result() Answer {
	a := q.answer
	for _, c := range q.found {
		if heard, ok := q.reports[c.Record.Node]; ok {
			c.Trust = min(c.Trust, heard)
		}
		a.Candidates = append(a.Candidates, c)
	}
	// In a fixed order, so that what is drawn from it depends on the draw only.
	slices.SortFunc(a.Candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.Record.Node, b.Record.Node) })
	return a
}

// Me is this node as the policy sees it.
func (s *Seeker) Me(region string) capacity.Record {
	me, ok := s.cfg.Own()
	if !ok {
		me = capacity.Record{Node: s.cfg.ID, Region: region}
	}
	me.Coordinate = s.cfg.Coordinates.Here()
	return me
}

// count adds to what was held and rejected.
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

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
