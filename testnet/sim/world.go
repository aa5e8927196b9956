package sim

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/policy"
	"weir/dht"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/testnet/lab"
)

const (
	// One viewer: H264 at 2.5 Mbit/s and 30 frames a second, with Opus.
	viewerUplink  = 2_500_000
	viewerPackets = 333

	// usable is the part of its uplink that a node fills with viewers. The rest
	// is for cascades; see [ledger.Ledger].
	usable = 0.9

	meterLag   = time.Second           // until the meter sees a session that began or ended
	connecting = 60 * time.Millisecond // from a lease until its viewer is there

	meanRTT = 100 * time.Millisecond
)

// fresh is how a node publishes its record.
type fresh struct {
	keepalive time.Duration
	events    bool // also when its load has moved, as [holder.LoadMoved] says
}

// product is how weir does it.
var product = fresh{holder.Keepalive, true}

// stale is the hard case: records are up to 15 s old.
var stale = fresh{keepalive: capacity.DefaultTTL}

// A plan is a network to simulate.
type plan struct {
	seed    uint64
	regions int
	kinds   []int // sessions that nodes carry at their limit, one after another
	nodes   int
	liars   int // so many nodes, spread over all, claim tenfold
	fresh   fresh
	policy  policy.Policy
	hearsay bool // seekers tell holders whom they doubt
}

// A world is a network in which time passes. All of it is on one goroutine.
type world struct {
	engine
	plan
	rnd     *rand.Rand
	demand  *rand.Rand // who comes, when, where and for how long: the same whoever places them
	judge   *policy.Compiled
	nodes   []*node
	byID    map[peer.ID]*node
	regions []*region
	shards  map[dht.Topic]*shard
	ids     uint64
	figures
}

type region struct {
	label  string
	nodes  []*node
	shards []*shard
	near   []*region // the other ones, nearest first

	prober *prober
	idle   []*node // those that said so, the first to come first
}

// A shard is a topic and who holds it.
type shard struct {
	topic   dht.Topic
	holders []*node
	split   bool // nobody is there any more, but in its parts
}

type node struct {
	id    peer.ID
	index int
	place lab.Place
	coord *coordinate.Coordinate
	in    *region
	home  *shard
	near  map[*shard][]peer.ID // holders of shards it has asked, nearest first

	partner *shard // that it asks as well; nil: there is but one

	sessions int     // that it carries at its limit
	claims   float64 // the limit it names, as a multiple of its own
	slowed   bool    // it carries half of what it should, and does not know
	ledger   *ledger.Ledger
	active   int // sessions
	measured int // of them, by the meter
	idle     time.Duration
	gone     bool // released

	table   *holder.Table // if it holds something
	doubts  *holder.Doubts
	beliefs *holder.Beliefs

	record    capacity.Record // as last published
	published time.Duration
	news      time.Duration // when it was last published because of its load
	looking   bool          // a look at the load is due
	added     int           // placed by a centre since the last record
	recent    []time.Duration
	queued    bool    // in a region's queue of idle nodes
	distances []*node // all others, nearest first
}

func newWorld(p plan) *world {
	judge, err := policy.Compile(p.policy)
	if err != nil {
		panic(err) // it is one of ours
	}
	w := &world{plan: p, judge: judge, rnd: rand.New(rand.NewPCG(p.seed, 0x73696d)), demand: rand.New(rand.NewPCG(p.seed, 0x64656d)), byID: make(map[peer.ID]*node, p.nodes), shards: make(map[dht.Topic]*shard)}
	geography := lab.NewGeography(p.seed, p.regions, meanRTT)
	for i := range p.regions {
		w.regions = append(w.regions, &region{label: geography.Place(i).Region, prober: new(prober)})
	}
	for i := range p.nodes {
		w.add(i, geography.Place(i))
	}
	for _, r := range w.regions {
		r.shards = w.split(r, "", r.nodes)
		for _, n := range r.nodes {
			for len(r.shards) > 1 && (n.partner == nil || n.partner == n.home) {
				n.partner = r.nodes[w.rnd.IntN(len(r.nodes))].home // by its share of all IDs
			}
		}
		r.near = slices.DeleteFunc(slices.Clone(w.regions), func(o *region) bool { return o == r || len(o.nodes) == 0 })
		if len(r.nodes) > 0 {
			slices.SortStableFunc(r.near, func(a, b *region) int {
				return cmp.Compare(r.nodes[0].rtt(a.nodes[0]), r.nodes[0].rtt(b.nodes[0]))
			})
		}
	}
	for _, n := range w.nodes {
		first := time.Duration(w.rnd.Int64N(int64(w.fresh.keepalive)))
		w.publish(n)
		w.after(first, func() { w.keepalive(n) })
		w.idles(n)
	}
	return w
}

func (w *world) add(i int, place lab.Place) {
	key := make([]byte, 0, 38)
	key = append(key, 0x00, 0x24, 0x08, 0x01, 0x12, 0x20) // an Ed25519 key, inlined
	for range 4 {
		key = binary.BigEndian.AppendUint64(key, w.rnd.Uint64())
	}
	c := coordinate.NewCoordinate(coordinate.DefaultConfig())
	c.Vec[0], c.Vec[1], c.Height, c.Adjustment = 2*place.X/1000, 2*place.Y/1000, 2*place.Access/1000, 0
	n := &node{
		id: peer.ID(key), index: i, place: place, coord: c, in: w.regions[i%len(w.regions)],
		sessions: w.kinds[w.rnd.IntN(len(w.kinds))], claims: 1, near: make(map[*shard][]peer.ID),
		beliefs: holder.NewBeliefs(), idle: -1,
	}
	if w.liars > 0 && i%(w.plan.nodes/w.liars) == 0 {
		n.claims = 10
	}
	limit := float64(n.sessions) * n.claims
	n.ledger = ledger.New(n.id, ledger.Limits{Uplink: int64(limit * viewerUplink), Packets: int64(2 * limit * viewerPackets)})
	n.in.nodes = append(n.in.nodes, n)
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
}

// split makes the shards of a region as deep as the product does.
func (w *world) split(r *region, bits string, nodes []*node) []*shard {
	if len(nodes) > directory.DefaultSplit && len(bits) < holder.MaxShardBits {
		var half [2][]*node
		for _, n := range nodes {
			half[holder.IDBits(n.id)[len(bits)]-'0'] = append(half[holder.IDBits(n.id)[len(bits)]-'0'], n)
		}
		w.shard(dht.ShardTopic(r.label, bits)).split = true
		return append(w.split(r, bits+"0", half[0]), w.split(r, bits+"1", half[1])...)
	}
	if len(nodes) == 0 {
		return nil
	}
	s := w.shard(dht.ShardTopic(r.label, bits))
	for _, n := range nodes {
		n.home = s
	}
	return []*shard{s}
}

// shard is the shard of that topic, in which there may be nobody.
func (w *world) shard(topic dht.Topic) *shard {
	s := w.shards[topic]
	if s == nil {
		s = &shard{topic: topic, holders: w.elect()}
		w.shards[topic] = s
	}
	return s
}

// depthOf is how finely another region is known to be split: as its first shard
// is.
func (w *world) depthOf(label string) int {
	for _, r := range w.regions {
		if r.label == label && len(r.shards) > 0 {
			_, bits, _ := r.shards[0].topic.Shard()
			return len(bits)
		}
	}
	return 0
}

// elect draws the holders of a topic: those closest to its key are anywhere.
func (w *world) elect() []*node {
	var holders []*node
	for len(holders) < min(holder.Replicas, len(w.nodes)) {
		n := w.nodes[w.rnd.IntN(len(w.nodes))]
		if !slices.Contains(holders, n) {
			holders = append(holders, n)
			if n.table == nil {
				n.table = holder.NewTable(holder.DefaultLimits())
				n.doubts = holder.NewDoubts()
			}
		}
	}
	return holders
}

func (n *node) rtt(to *node) time.Duration { return 2 * n.place.OneWay(to.place) }

// usable is how many viewers the node may be filled with.
func (n *node) usable() int { return int(usable * float64(n.sessions)) }

// effective is how many sessions the node can carry at this moment.
func (n *node) effective() int {
	if n.slowed {
		return max(1, n.sessions/2)
	}
	return n.sessions
}

func (n *node) load() float64 { return float64(n.active) / float64(n.sessions) }

// sample is n's record as it would be now.
func (w *world) sample(n *node) capacity.Record {
	now := w.clock()
	r := capacity.Record{
		Node: n.id, Seq: n.record.Seq, Issued: now, TTL: max(capacity.DefaultTTL, w.fresh.keepalive+w.fresh.keepalive/2),
		URL: "http://node", Region: n.in.label, Coordinate: n.coord,
	}
	n.ledger.Totals(now).Fill(&r)
	return r
}

var sealed = []byte("sealed")

// publish sends the node's record to the holders of its shard, and to every
// centre there is. It arrives everywhere at once.
func (w *world) publish(n *node) {
	r := w.sample(n)
	r.Seq++
	n.record, n.published, n.added = r, w.now, 0
	w.records++
	for _, h := range n.home.holders {
		_ = h.table.Put(epoch.Add(w.now), epoch.Add(w.now), n.home.topic, r, sealed) // it is the newest
	}
}

func (w *world) keepalive(n *node) {
	if n.gone {
		return
	}
	if due := n.published + w.fresh.keepalive; due > w.now {
		w.at(due, func() { w.keepalive(n) })
		return
	}
	w.publish(n)
	w.after(w.fresh.keepalive, func() { w.keepalive(n) })
}

// moved has a node look, at its next sample, whether its load is news.
func (w *world) moved(n *node) {
	if n.looking || n.gone || !w.fresh.events {
		return
	}
	n.looking = true
	phase := time.Duration(n.index) * 7919 * time.Microsecond % holder.SampleEvery
	w.after(holder.SampleEvery-(w.now-phase)%holder.SampleEvery, func() {
		n.looking = false
		r := w.sample(n)
		switch {
		case n.gone || !holder.LoadMoved(&n.record, &r):
		case w.now-n.news < holder.PublishGap:
			w.moved(n)
		default:
			n.news = w.now
			w.publish(n)
		}
	})
}

// requestID is unique.
func (w *world) requestID() string {
	w.ids++
	return strconv.FormatUint(w.ids, 36)
}

// seat makes a session on n that lasts for so long. What entered it in the
// ledger is undone when it ends; an empty id was never there.
func (w *world) seat(n *node, id string, lasts time.Duration) {
	n.active++
	n.idle = -1
	w.meter(n, 1)
	w.after(lasts, func() {
		n.active--
		if n.active == 0 {
			n.idle = w.now
		}
		if id != "" {
			n.ledger.End(id)
		}
		w.moved(n)
		w.meter(n, -1)
		w.idles(n)
	})
	w.moved(n)
}

// meter has n's meter see so many sessions more, a little later.
func (w *world) meter(n *node, more int) {
	w.after(meterLag, func() {
		n.measured += more
		n.ledger.Observe(w.clock(), ledger.Load{Uplink: int64(n.measured) * viewerUplink, Packets: int64(n.measured) * viewerPackets})
		w.moved(n)
	})
}

// fill gives every node sessions up to about load of what it may be filled
// with, and lets their meters see them.
func (w *world) fill(load float64, holding time.Duration) {
	for _, n := range w.nodes {
		mean := load * usable * float64(n.sessions)
		count := min(n.usable(), int(mean+w.demand.Float64()))
		for range count {
			id := w.requestID()
			need := capacity.Need{Uplink: viewerUplink, Packets: viewerPackets}
			if n.ledger.Admit(w.clock(), id, need) != nil {
				continue
			}
			w.seat(n, id, ledger.SettleTime+2*meterLag+w.residual(holding))
		}
	}
	w.run(w.now + ledger.SettleTime + 2*meterLag)
	for _, n := range w.nodes {
		w.publish(n)
	}
}

// arrivals has viewers come at random to random nodes, rate of them a second.
// bias is how much more likely those of the first region are than others.
func (w *world) arrivals(rate, bias float64, until time.Duration, place func(ingress *node)) {
	var next func()
	next = func() {
		if w.now >= until {
			return
		}
		place(w.ingress(bias))
		w.after(w.exponential(1/rate), next)
	}
	w.after(w.exponential(1/rate), next)
}

func (w *world) ingress(bias float64) *node {
	r := 0
	if x := w.demand.Float64() * (float64(len(w.regions)) + bias); x >= 1+bias {
		r = min(int(x-bias), len(w.regions)-1)
	}
	nodes := w.regions[r].nodes
	return nodes[w.demand.IntN(len(nodes))]
}

func (w *world) exponential(seconds float64) time.Duration {
	return time.Duration(w.demand.ExpFloat64() * seconds * float64(time.Second))
}

// watching is how long someone watches, lognormal as people do: most go soon,
// some stay for long.
func (w *world) watching(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * math.Exp(watchingSigma*(w.demand.NormFloat64()-watchingSigma/2)))
}

// residual is how much longer one watches who is found watching: a part of a
// time that was drawn in proportion to its length.
func (w *world) residual(mean time.Duration) time.Duration {
	return time.Duration(w.demand.Float64() * float64(mean) * math.Exp(watchingSigma*(w.demand.NormFloat64()+watchingSigma/2)))
}

const watchingSigma = 1.0
