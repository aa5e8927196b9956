package dht

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	nearRegions = 2 // regions asked at once when the own one does not do
	farRegions  = 4 // and when those do not either
	widest      = 4 // levels of widening

	regionRetry = 5 * time.Second // between attempts to read an index that is empty; then twice as long each time
	maxRegions  = 1_024           // regions whose depth is remembered
)

// A regionIndex is what this node knows of regions other than its own.
type regionIndex struct {
	mu    sync.Mutex
	near  []string       // nearest first, the own one among them
	depth map[string]int // how finely a region was found to be split
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

// refreshRegions reads the index of regions now and then, off the path of any
// selection, until ctx is done: often at first, for a young network's index
// is still filling.
func (n *Node) refreshRegions(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	wait := regionRetry
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, at := n.regions.list()
		if n.cfg.Discovery.listed() || n.small() || n.kad.RoutingTable().Size() == 0 || time.Since(at) < wait {
			continue
		}
		n.readRegions(ctx)
		if near, _ := n.regions.list(); len(near) > 0 {
			wait = min(2*wait, lookupAge)
		}
	}
}

// readRegions asks the holders of the index for the regions nearest by.
func (n *Node) readRegions(ctx context.Context) {
	answer, err := n.find(ctx, &finding{topic: holder.RegionsTopic, limit: queryLimit})
	if err != nil {
		n.log.Debug("index of regions not read", "err", err)
	}
	candidates := answer.Candidates
	slices.SortStableFunc(candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.RTT, b.RTT) })
	var near []string
	for _, c := range candidates {
		if !slices.Contains(near, c.Record.Region) {
			near = append(near, c.Record.Region)
		}
	}
	n.regions.mu.Lock()
	defer n.regions.mu.Unlock()
	n.regions.at = time.Now()
	if len(near) > 0 {
		n.regions.near = near
	}
}

// nearestRegions draws from what is held in the index one node of each region,
// the nearest to me first.
func (n *Node) nearestRegions(me capacity.Record, limit int) (picked []policy.Candidate, held int) {
	records := n.table.List(time.Now(), holder.RegionsTopic)
	all := make([]policy.Candidate, 0, len(records))
	for _, h := range records {
		all = append(all, policy.Candidate{Record: h.Record, Sealed: h.Sealed, RTT: holder.PredictRTT(me.Coordinate, h.Record.Coordinate)})
	}
	slices.SortFunc(all, func(a, b policy.Candidate) int {
		return cmp.Or(cmp.Compare(a.RTT, b.RTT), cmp.Compare(a.Record.Node, b.Record.Node))
	})
	seen := make(map[string]bool)
	for _, c := range all {
		if !seen[c.Record.Region] && len(picked) < limit {
			seen[c.Record.Region] = true
			picked = append(picked, c)
		}
	}
	return picked, len(records)
}

func (n *Node) answerRegions(me capacity.Record, limit int) *pb.QueryReply {
	picked, held := n.nearestRegions(me, limit)
	reply := &pb.QueryReply{Held: uint32(held)}
	for _, c := range picked {
		reply.Sealed = append(reply.Sealed, c.Sealed)
	}
	return reply
}

// widen returns the topics to ask at one level of a search for capacity: first
// the node's own shard and its partner, or the region asked for, then another
// shard there, then the nearest regions, then others.
func (n *Node) widen(level int, need capacity.Need) []Topic {
	own, _, _ := n.sharding.home().Shard()
	region := cmp.Or(need.Region, own)
	published := n.cfg.Sample != nil
	switch level {
	case 0:
		if region == own && published {
			topics := n.sharding.homes(time.Now(), own)
			if partner := n.sharding.partner(); partner != "" && !slices.Contains(topics, partner) {
				topics = append(topics, partner)
			}
			return topics
		}
		if region == "" { // a client that says nothing of where it is
			near, _ := n.regions.list()
			if len(near) == 0 {
				return []Topic{CapacityTopic()} // whatever is held where it happens to ask
			}
			region = near[0]
		}
		return []Topic{n.anyShard(region)}
	case 1:
		_, bits, _ := n.sharding.home().Shard()
		if other := randomBits(len(bits)); region == own && published && other != bits {
			return []Topic{ShardTopic(region, other)}
		}
		return nil
	}
	near, _ := n.regions.list()
	near = slices.DeleteFunc(near, func(r string) bool { return r == region })
	if level == 2 {
		near = near[:min(len(near), nearRegions)]
	} else {
		near = near[min(len(near), nearRegions):]
		near = near[:min(len(near), farRegions)]
	}
	topics := make([]Topic, 0, len(near))
	for _, r := range near {
		topics = append(topics, n.anyShard(r))
	}
	return topics
}

// anyShard is a shard of a region that this node is not in, as fine as was
// found last.
func (n *Node) anyShard(region string) Topic {
	return ShardTopic(region, randomBits(n.regions.depthOf(region)))
}

func randomBits(depth int) string {
	b := make([]byte, depth)
	for i := range b {
		b[i] = '0' + byte(rand.IntN(2))
	}
	return string(b)
}

// runWide searches near and then further away until an offer is good enough.
// Holders of everything are asked but once.
func (q *finding) runWide(ctx context.Context) error {
	if q.n.cfg.Discovery.listed() || q.n.small() {
		q.level = widest
		return q.run(ctx)
	}
	if _, at := q.n.regions.list(); at.IsZero() && q.n.cfg.Sample == nil {
		q.n.readRegions(ctx) // it has no shard of its own to begin with
	}
	asked := make(map[Topic]bool)
	var failed error
	answered := false
	for q.level < widest && ctx.Err() == nil {
		topics := slices.DeleteFunc(q.n.widen(q.level, q.need), func(t Topic) bool { return asked[t] })
		q.level++
		for depth := 0; len(topics) > 0 && depth <= holder.MaxShardBits; depth++ {
			var next []Topic
			for _, sub := range q.askTopics(ctx, topics, q.level == 1) {
				asked[sub.topic] = true
				q.merge(sub)
				if sub.err != nil {
					failed = sub.err
					continue
				}
				answered = true
				if t := q.n.redirected(sub); t != "" && !asked[t] {
					next = append(next, t)
				}
			}
			topics = next
		}
		if q.enough() {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !answered && failed != nil {
		// Nobody is there any more of whom this node knew.
		last := q.part(q.n.sharding.home())
		failed = last.run(ctx)
		q.merge(last)
		return failed
	}
	return nil
}

// redirected returns the shard to ask instead of the one that sub asked: a
// finer one if its nodes have moved on, a coarser one if nobody is there.
func (n *Node) redirected(sub *finding) Topic {
	region, bits, ok := sub.topic.Shard()
	own, home, _ := n.sharding.home().Shard()
	switch {
	case !ok || region == own && bits == home && n.cfg.Sample != nil:
		return "" // publishing there, it learns of it anyway
	case sub.topic == n.sharding.partner() && n.cfg.Sample != nil:
		if _, looked := n.holders(sub.topic); looked && sub.good > 0 {
			n.sharding.heardOfPartner(sub.topic, sub.answer.Held, sub.split)
		}
		return "" // next time will do
	case sub.split && len(bits) < holder.MaxShardBits:
		n.regions.setDepth(region, len(bits)+1)
		return ShardTopic(region, bits+randomBits(1))
	case sub.answer.Held == 0 && len(bits) > 0 && !sub.split:
		n.regions.setDepth(region, len(bits)-1)
		return ShardTopic(region, bits[:len(bits)-1])
	}
	return ""
}

// part is a search of the same kind in one topic.
func (q *finding) part(topic Topic) *finding {
	sub := &finding{topic: topic, need: q.need, exclude: q.exclude, limit: q.limit, explain: q.explain, compact: q.compact, trace: q.trace}
	sub.begin(q.n)
	return sub
}

// askTopics runs one search per topic, all at the same time. Near by, where
// the topics are as good as each other, one holder of each is asked at first, and
// one topic's answer is enough if those of others are overdue.
func (q *finding) askTopics(ctx context.Context, topics []Topic, nearBy bool) []*finding {
	subs := make([]*finding, len(topics))
	elsewhere := make(chan struct{})
	found := sync.OnceFunc(func() { close(elsewhere) })
	var wg sync.WaitGroup
	for i, topic := range topics {
		sub := q.part(topic)
		sub.near = true
		if nearBy && len(topics) > 1 {
			sub.first, sub.elsewhere = 1, elsewhere
		}
		subs[i] = sub
		run := func() {
			if sub.err = sub.run(ctx); len(sub.found)+len(sub.offers) > 0 {
				found()
			}
		}
		if i == len(topics)-1 {
			run() // on this goroutine
			break
		}
		wg.Go(run)
	}
	wg.Wait()
	return subs
}

// merge adds what sub found.
func (q *finding) merge(sub *finding) {
	for _, c := range sub.found {
		q.found[c.Record.Node] = newer(q.found, c)
	}
	for node, belief := range sub.hearsay {
		q.hear(node, belief)
	}
	for _, o := range sub.offers {
		q.offered(time.Now(), o)
	}
	q.good += sub.good
	a, b := &q.answer, &sub.answer
	if sub.topic != q.n.sharding.partner() { // asked on the way: what it holds is welcome
		a.Hearing = a.Hearing.and(b.Hearing)
	}
	a.count(b.Held, b.Rejected)
	a.Asked = append(a.Asked, b.Asked...)
	a.Messages += b.Messages
	a.Bytes += b.Bytes
}

// newer returns c, or what is known already of its node if that is newer.
func newer(found map[peer.ID]policy.Candidate, c policy.Candidate) policy.Candidate {
	if old, ok := found[c.Record.Node]; ok && old.Record.Seq > c.Record.Seq {
		return old
	}
	return c
}

// enough reports whether an offer is so good that there is no need to look
// further.
func (q *finding) enough() bool {
	for _, o := range q.offers {
		if o.Stress <= holder.WideStress {
			return true
		}
	}
	candidates := make([]policy.Candidate, 0, len(q.found))
	for _, c := range q.found {
		candidates = append(candidates, c)
	}
	ranking := q.n.cfg.Judge().Rank(q.need, q.n.me(q.need.Region), candidates)
	return slices.ContainsFunc(ranking.Passed, func(v policy.Evaluation) bool { return v.Record.Stress() <= holder.WideStress })
}

// shards returns every capacity topic there is, as far as this node can find
// out without asking: those of its own region and of the others it knows, from
// where the finer ones are found.
func (n *Node) shards(ctx context.Context) []Topic {
	if n.cfg.Discovery.listed() || n.small() {
		return []Topic{CapacityTopic()}
	}
	near, at := n.regions.list()
	if at.IsZero() {
		n.readRegions(ctx)
		near, _ = n.regions.list()
	}
	own, _, _ := n.sharding.home().Shard()
	topics := []Topic{ShardTopic(own, "")}
	for _, region := range near {
		if region != own {
			topics = append(topics, ShardTopic(region, ""))
		}
	}
	return topics
}
