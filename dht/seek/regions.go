package seek

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/place"
)

const (
	regionRetry = 5 * time.Second // between attempts to read an index that is empty; then twice as long each time
	maxRegions  = 1_024           // regions whose depth is remembered
)

// Regions is what a node knows of where capacity is listed: the regions near by
// and how finely each is split. It is safe for concurrent use.
type Regions struct {
	// index asks the holders of the index for the regions near by, by one
	// candidate each.
	index     func(ctx context.Context) ([]policy.Candidate, error)
	publishes bool // the node has a shard of its own
	sharding  *directory.Sharding
	load      func(ctx context.Context, region string) // has a holder say how loaded it is
	balance   func() float64                           // of the policy in force
	whole     func(now time.Time) bool                 // every node holds everything; see [directory.Directory]
	alone     func() bool                              // there is no other node to ask
	log       *slog.Logger

	mu    sync.Mutex
	near  []string       // nearest first, including the own one
	depth map[string]int // how many bits a region was found to be split into
	at    time.Time      // when it was read last
	loads place.Loads
}

// Near returns the regions in the index, nearest first.
func (x *Regions) Near() []string {
	near, _ := x.list()
	return near
}

func (x *Regions) list() ([]string, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.near), x.at
}

// heard takes in the load of topic's region, if it has one.
func (x *Regions) heard(now time.Time, topic holder.Topic, stress float64) {
	region, _, ok := topic.Shard()
	if !ok || region == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loads.Heard(now, region, stress)
}

// elsewhere draws the region in which to place a client of own; "": own itself.
func (x *Regions) elsewhere(now time.Time, own string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.loads.Elsewhere(now, own, x.near, x.balance(), newRand())
}

// readLoad asks another region for its load, if that is due: the own region is
// loaded, and its seekers may send clients elsewhere.
func (x *Regions) readLoad(ctx context.Context) {
	if x.balance() == 0 {
		return
	}
	own, _, _ := x.sharding.Home().Shard()
	x.mu.Lock()
	region := x.loads.Next(time.Now(), own, x.near)
	x.mu.Unlock()
	if region != "" {
		x.load(ctx, region)
	}
}

func (x *Regions) depthOf(region string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.depth[region]
}

func (x *Regions) setDepth(region string, depth int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.depth == nil || len(x.depth) >= maxRegions {
		x.depth = make(map[string]int)
	}
	x.depth[region] = min(depth, holder.MaxShardBits)
}

// Run reads the index of regions now and then, outside any placement, until ctx
// is done: often at first, because a young network's index is still filling.
func (x *Regions) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	wait := regionRetry
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, at := x.list()
		if x.whole(time.Now()) || x.alone() {
			continue
		}
		x.readLoad(ctx)
		if time.Since(at) < wait {
			continue
		}
		x.Read(ctx)
		if near, _ := x.list(); len(near) > 0 {
			wait = min(2*wait, directory.LookUpAge)
		}
	}
}

// Read asks the holders of the index for the nearest regions.
func (x *Regions) Read(ctx context.Context) {
	candidates, err := x.index(ctx)
	if err != nil {
		x.log.Debug("index of regions not read", "err", err)
	}
	slices.SortStableFunc(candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.RTT, b.RTT) })
	var near []string
	for _, c := range candidates {
		if !slices.Contains(near, c.Record.Region) {
			near = append(near, c.Record.Region)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = time.Now()
	if len(near) > 0 {
		x.near = near
	}
}

// readOnce reads the index unless it was read before.
func (x *Regions) readOnce(ctx context.Context) {
	if _, at := x.list(); at.IsZero() {
		x.Read(ctx)
	}
}

// shardMap is this node's knowledge of where capacity is listed, in region or, if
// that is "", near by.
func (x *Regions) shardMap(now time.Time, region string) place.ShardMap {
	own, _, _ := x.sharding.Home().Shard()
	a := place.ShardMap{Region: cmp.Or(region, own), Publishes: x.publishes, Depth: x.depthOf}
	if homes := x.sharding.Homes(now, own); len(homes) > 1 {
		a.Former = homes[1]
	}
	a.Own, a.Peer = x.sharding.Home(), x.sharding.PeerShard()
	a.Near, _ = x.list()
	return a
}

// Shards returns every capacity topic that this node can find without a query:
// those of its own region and of the other regions it knows, from which the
// finer ones are found.
func (x *Regions) Shards(ctx context.Context) []holder.Topic {
	if x.whole(time.Now()) {
		return []holder.Topic{holder.CapacityTopic()}
	}
	x.readOnce(ctx)
	own, _, _ := x.sharding.Home().Shard()
	topics := []holder.Topic{holder.ShardTopic(own, "")}
	for _, region := range x.Near() {
		if region != own {
			topics = append(topics, holder.ShardTopic(region, ""))
		}
	}
	return topics
}
