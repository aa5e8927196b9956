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
	"weir/dht/place"
	"weir/testnet/lab"
)

const (
	// One viewer: H264 at 2.5 Mbit/s and 30 frames a second, with Opus.
	viewerUplink  = 2_500_000
	viewerPackets = 333

	// usable is the part of its uplink that a node uses for viewers. The rest
	// is for cascades; see [ledger.Ledger].
	usable = 0.9

	meterLag   = time.Second           // until the meter sees a started or ended session
	connecting = 60 * time.Millisecond // from a lease until its viewer's session starts

	meanRTT = 100 * time.Millisecond
)

// fresh is a node's rule for publishing its record.
type fresh struct {
	keepalive time.Duration
	events    bool // also when its load has changed, by [holder.LoadMoved]
}

// product is weir's rule.
var product = fresh{holder.Keepalive, true}

// stale is the hard case: records are up to 15 s old.
var stale = fresh{keepalive: capacity.DefaultTTL}

// A plan is a network to simulate.
type plan struct {
	seed    uint64
	regions int
	kinds   []int // session limits of nodes, assigned in turn
	nodes   int
	liars   int // this many nodes, spread over all, claim ten times their limit
	fresh   fresh
	policy  policy.Policy
	hearsay bool // seekers report nodes they doubt to holders
	late    bool // nodes take nobody while they serve packets too late, as weir's do
}

// A world is a network on virtual time. It belongs to one goroutine.
type world struct {
	engine
	plan
	rnd     *rand.Rand
	demand  *rand.Rand // which viewers come, when, where and for how long: the same for all systems
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
	near   []*region // the other regions, nearest first

	prober *prober
	idle   []*node // idle nodes that have said so, in order of time
}

// A shard is a topic and its holders.
type shard struct {
	topic   dht.Topic
	holders []*node
	split   bool // split: its nodes are in its parts
}

type node struct {
	id    peer.ID
	index int
	place lab.Place
	coord *coordinate.Coordinate
	in    *region
	home  *shard
	near  map[*shard][]peer.ID // holders of shards that it has queried, nearest first

	partner *shard // the other shard that it queries; nil: there is only one

	sessions int     // its limit
	claims   float64 // the limit it publishes, as a multiple of its own
	slowed   bool    // it carries half of its limit, and knows only by its delay
	ledger   *ledger.Ledger
	active   int // sessions
	measured int // sessions seen by the meter
	idle     time.Duration
	gone     bool // released

	table      *holder.Table // if it is a holder
	reports    *holder.Reports
	reputation *holder.Reputation

	record    capacity.Record // as last published
	published time.Duration
	news      time.Duration // when it was last published for its load
	looking   bool          // a check of the load is scheduled
	added     int           // placed by a central scheduler since the last record
	recent    []time.Duration
	queued    bool    // in a region's queue of idle nodes
	distances []*node // all other nodes, nearest first
	loads     place.Loads
}

func newWorld(p plan) *world {
	judge, err := policy.Compile(p.policy)
	if err != nil {
		panic(err) // the policy is one of ours
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
				n.partner = r.nodes[w.rnd.IntN(len(r.nodes))].home // with the chance of its share of all IDs
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
		reputation: holder.NewReputation(), idle: -1,
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

// split makes a region's shards as deep as the product does.
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

// shard is the shard of that topic, which may have no nodes.
func (w *world) shard(topic dht.Topic) *shard {
	s := w.shards[topic]
	if s == nil {
		s = &shard{topic: topic, holders: w.elect()}
		w.shards[topic] = s
	}
	return s
}

// depthOf is the split depth of another region, known from its first shard.
func (w *world) depthOf(label string) int {
	for _, r := range w.regions {
		if r.label == label && len(r.shards) > 0 {
			_, bits, _ := r.shards[0].topic.Shard()
			return len(bits)
		}
	}
	return 0
}

// elect draws the holders of a topic: the nodes closest to its key may be
// anywhere.
func (w *world) elect() []*node {
	var holders []*node
	for len(holders) < min(holder.Replicas, len(w.nodes)) {
		n := w.nodes[w.rnd.IntN(len(w.nodes))]
		if !slices.Contains(holders, n) {
			holders = append(holders, n)
			if n.table == nil {
				n.table = holder.NewTable(holder.DefaultLimits())
				n.reports = holder.NewReports()
			}
		}
	}
	return holders
}

func (n *node) rtt(to *node) time.Duration { return 2 * n.place.OneWay(to.place) }

// usable is the number of viewers that the node may take.
func (n *node) usable() int { return int(usable * float64(n.sessions)) }

// effective is the number of sessions the node can carry at this moment.
func (n *node) effective() int {
	if n.slowed {
		return max(1, n.sessions/2)
	}
	return n.sessions
}

func (n *node) load() float64 { return float64(n.active) / float64(n.sessions) }

// sample is n's record as of now.
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
// central scheduler. It arrives everywhere at once.
func (w *world) publish(n *node) {
	r := w.sample(n)
	r.Seq++
	n.record, n.published, n.added = r, w.now, 0
	w.records++
	for _, h := range n.home.holders {
		_ = h.table.Put(epoch.Add(w.now), epoch.Add(w.now), n.home.topic, r, sealed) // this record is the newest
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

// moved has a node check, at its next sample, whether to publish its load.
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

// requestID returns a unique ID.
func (w *world) requestID() string {
	w.ids++
	return strconv.FormatUint(w.ids, 36)
}

// seat starts a session on n for the given time. Its entry in the ledger is
// removed when it ends; an empty id means that there is none.
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

// meter has n's meter see the given number of further sessions, a little later.
func (w *world) meter(n *node, more int) {
	w.after(meterLag, func() {
		n.measured += more
		w.observe(n)
	})
}

// observe tells n's ledger what its meters see now. A liar is never late.
func (w *world) observe(n *node) {
	load := ledger.Load{Uplink: int64(n.measured) * viewerUplink, Packets: int64(n.measured) * viewerPackets}
	if w.late && n.claims == 1 {
		load.Delay, load.DelayLimit = n.queueing(), ledger.DefaultDelayLimit
	}
	n.ledger.Observe(w.clock(), load)
	w.moved(n)
}

// fill gives every node sessions up to about load, a share of usable, and lets
// their meters see them.
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

// arrivals generates viewers at random at random nodes, at rate per second.
// bias is how much more likely viewers at the first region are than at others.
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

// watching is the duration of a session, lognormal as measured for people: most
// leave soon, some stay long.
func (w *world) watching(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * math.Exp(watchingSigma*(w.demand.NormFloat64()-watchingSigma/2)))
}

// residual is the remaining duration of a session under way: a part of a
// duration drawn with a probability proportional to its length.
func (w *world) residual(mean time.Duration) time.Duration {
	return time.Duration(w.demand.Float64() * float64(mean) * math.Exp(watchingSigma*(w.demand.NormFloat64()+watchingSigma/2)))
}

const watchingSigma = 1.0
