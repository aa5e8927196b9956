package seek

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

// runWide searches near and then further away until an offer is good enough.
// Nodes that hold all topics are asked once.
func (q *query) runWide(ctx context.Context) error {
	s := q.s
	if s.cfg.Directory.Complete(time.Now()) {
		q.level = place.Levels
		return q.run(ctx)
	}
	if !s.cfg.Publishes {
		s.Regions.readOnce(ctx) // it has no shard of its own to begin in
	}
	shards := s.Regions.shardMap(time.Now(), q.need.Region)
	if q.compact && q.need.Region == "" { // a placement
		shards.Elsewhere = s.Regions.elsewhere(time.Now(), shards.Region)
	}
	search := place.NewSearch(shards, q.level, newRand())
	defer func() { q.level = search.Level }()
	var failed error
	for step := search.Start(); len(step.Topics) > 0 && ctx.Err() == nil; {
		var answers []place.TopicAnswer
		failed = nil
		for _, sub := range q.askTopics(ctx, step) {
			q.merge(sub)
			failed = cmp.Or(failed, sub.err)
			if sub.topic == search.Peer {
				sub.reportPeer()
			}
			answers = append(answers, place.TopicAnswer{Topic: sub.topic, Failed: sub.err != nil, Held: sub.answer.Held, Split: sub.split})
		}
		step = search.Answered(answers, q.enough)
		for region, depth := range search.Learned {
			s.Regions.setDepth(region, depth)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if search.Unanswered() {
		return failed
	}
	return nil
}

// reportPeer passes the peer shard's record count and split notices, which only
// seekers hear of, to the sharding. The query was in that shard.
func (q *query) reportPeer() {
	s := q.s
	if _, looked := s.cfg.Directory.Holders(time.Now(), q.topic); looked && q.good > 0 && s.cfg.Publishes {
		s.cfg.Sharding.PeerReport(q.topic, q.answer.Held, q.split)
	}
}

// part is a query of the same kind in one topic.
func (q *query) part(topic holder.Topic) *query {
	sub := &query{topic: topic, need: q.need, exclude: q.exclude, limit: q.limit, explain: q.explain, compact: q.compact, trace: q.trace}
	sub.begin(q.s)
	return sub
}

// askTopics runs one query per topic, all at the same time.
func (q *query) askTopics(ctx context.Context, step place.SearchStep) []*query {
	subs := make([]*query, len(step.Topics))
	elsewhere := make(chan struct{})
	found := sync.OnceFunc(func() { close(elsewhere) })
	var wg sync.WaitGroup
	for i, topic := range step.Topics {
		sub := q.part(topic)
		sub.near = step.Near
		if step.OneEach {
			sub.first, sub.elsewhere = 1, elsewhere
		}
		subs[i] = sub
		run := func() {
			if sub.err = sub.run(ctx); len(sub.found)+len(sub.offers) > 0 {
				found()
			}
		}
		if i == len(step.Topics)-1 {
			run() // on this goroutine
			break
		}
		wg.Go(run)
	}
	wg.Wait()
	return subs
}

// merge adds sub's findings.
func (q *query) merge(sub *query) {
	for _, c := range sub.found {
		q.found[c.Record.Node] = newer(q.found, c)
	}
	for node, trust := range sub.reports {
		q.report(node, trust)
	}
	for _, o := range sub.offers {
		q.offered(time.Now(), o)
	}
	q.good += sub.good
	a, b := &q.answer, &sub.answer
	if sub.topic != q.s.cfg.Sharding.PeerShard() { // asked on the way: its records are welcome
		a.Hearing = a.Hearing.And(b.Hearing)
	}
	a.count(b.Held, b.Rejected)
	a.Asked = append(a.Asked, b.Asked...)
	a.Messages += b.Messages
	a.Bytes += b.Bytes
}

// newer returns c, or the record already found of its node if that is newer.
func newer(found map[peer.ID]policy.Candidate, c policy.Candidate) policy.Candidate {
	if old, ok := found[c.Record.Node]; ok && old.Record.Seq > c.Record.Seq {
		return old
	}
	return c
}

// enough reports whether an offer is so good that no wider search is needed.
func (q *query) enough() bool {
	for _, o := range q.offers {
		if place.GoodEnough(o.Stress) {
			return true
		}
	}
	candidates := make([]policy.Candidate, 0, len(q.found))
	for _, c := range q.found {
		candidates = append(candidates, c)
	}
	ranking := q.s.cfg.Policy().Rank(q.need, q.s.Me(q.need.Region), candidates)
	return slices.ContainsFunc(ranking.Passed, func(v policy.Evaluation) bool { return place.GoodEnough(v.Record.Stress()) })
}
