package seek

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

const (
	regionRetry = 5 * time.Second // between attempts to read an index that is empty; then twice as long each time
	maxRegions  = 1_024           // regions whose depth is remembered
)

// A regionIndex is what this node knows of regions other than its own.
type regionIndex struct {
	mu    sync.Mutex
	near  []string       // nearest first, including the own one
	depth map[string]int // how many bits a region was found to be split into
	at    time.Time      // when it was read last
}

func (x *regionIndex) list() ([]string, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.near), x.at
}

func (x *regionIndex) depthOf(region string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.depth[region]
}

func (x *regionIndex) setDepth(region string, depth int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.depth == nil || len(x.depth) >= maxRegions {
		x.depth = make(map[string]int)
	}
	x.depth[region] = min(depth, holder.MaxShardBits)
}

// Run reads the index of regions now and then, outside any placement, until ctx
// is done: often at first, because a young network's index is still filling.
func (s *Seeker) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	wait := regionRetry
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, at := s.regions.list()
		if s.cfg.Directory.Whole(time.Now()) || s.cfg.LookUps.Alone() || time.Since(at) < wait {
			continue
		}
		s.ReadRegions(ctx)
		if near, _ := s.regions.list(); len(near) > 0 {
			wait = min(2*wait, directory.LookUpAge)
		}
	}
}

// ReadRegions asks the holders of the index for the nearest regions.
func (s *Seeker) ReadRegions(ctx context.Context) {
	answer, err := s.find(ctx, &query{topic: holder.RegionsTopic, limit: holding.QueryLimit})
	if err != nil {
		s.cfg.Log.Debug("index of regions not read", "err", err)
	}
	candidates := answer.Candidates
	slices.SortStableFunc(candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.RTT, b.RTT) })
	var near []string
	for _, c := range candidates {
		if !slices.Contains(near, c.Record.Region) {
			near = append(near, c.Record.Region)
		}
	}
	s.regions.mu.Lock()
	defer s.regions.mu.Unlock()
	s.regions.at = time.Now()
	if len(near) > 0 {
		s.regions.near = near
	}
}

// shardMap is this node's knowledge of where capacity is listed, in region or, if
// that is "", near by.
func (s *Seeker) shardMap(region string) place.ShardMap {
	own, _, _ := s.cfg.Sharding.Home().Shard()
	a := place.ShardMap{Region: cmp.Or(region, own), Publishes: s.cfg.Publishes, Depth: s.regions.depthOf}
	if homes := s.cfg.Sharding.Homes(time.Now(), own); len(homes) > 1 {
		a.Former = homes[1]
	}
	a.Own, a.Peer = s.cfg.Sharding.Home(), s.cfg.Sharding.PeerShard()
	a.Near, _ = s.regions.list()
	return a
}

// runWide searches near and then further away until an offer is good enough.
// Nodes that hold all topics are asked once.
func (q *query) runWide(ctx context.Context) error {
	s := q.s
	if s.cfg.Directory.Whole(time.Now()) {
		q.level = place.Levels
		return q.run(ctx)
	}
	if _, at := s.regions.list(); at.IsZero() && !s.cfg.Publishes {
		s.ReadRegions(ctx) // it has no shard of its own to begin in
	}
	search := place.NewSearch(s.shardMap(q.need.Region), q.level, newRand())
	defer func() { q.level = search.Level }()
	var failed error
	for step := search.Start(); len(step.Topics) > 0 && ctx.Err() == nil; {
		var answers []place.TopicAnswer
		failed = nil
		for _, sub := range q.askTopics(ctx, step) {
			q.merge(sub)
			failed = cmp.Or(failed, sub.err)
			if sub.topic == search.Peer {
				s.heardOfPeer(sub)
			}
			answers = append(answers, place.TopicAnswer{Topic: sub.topic, Failed: sub.err != nil, Held: sub.answer.Held, Split: sub.split})
		}
		step = search.Answered(answers, q.enough)
		for region, depth := range search.Learned {
			s.regions.setDepth(region, depth)
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

// heardOfPeer passes the peer shard's record count and split notices, which
// only seekers hear of, to the sharding.
func (s *Seeker) heardOfPeer(sub *query) {
	if _, looked := s.cfg.Directory.Holders(time.Now(), sub.topic); looked && sub.good > 0 && s.cfg.Publishes {
		s.cfg.Sharding.PeerReport(sub.topic, sub.answer.Held, sub.split)
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
	for node, belief := range sub.reports {
		q.report(node, belief)
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

// Shards returns every capacity topic that this node can find without a query:
// those of its own region and of the other regions it knows, from which the
// finer ones are found.
func (s *Seeker) Shards(ctx context.Context) []holder.Topic {
	if s.cfg.Directory.Whole(time.Now()) {
		return []holder.Topic{holder.CapacityTopic()}
	}
	near, at := s.regions.list()
	if at.IsZero() {
		s.ReadRegions(ctx)
		near, _ = s.regions.list()
	}
	own, _, _ := s.cfg.Sharding.Home().Shard()
	topics := []holder.Topic{holder.ShardTopic(own, "")}
	for _, region := range near {
		if region != own {
			topics = append(topics, holder.ShardTopic(region, ""))
		}
	}
	return topics
}
