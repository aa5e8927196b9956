// Package model computes the cost of discovery in networks too large to run:
// the same figures, for the same modes, as testnet/bench measures in small
// ones. It is pure. A formula stands where it is used, with its source; sizes
// are those of real messages ([SizesOf]), round trips those of the map that the
// lab runs on.
//
// Not modelled: keepalives of connections, packet headers and acknowledgements,
// lost packets, processors busy with other work, and the load that selections
// add to the nodes that answer them.
package model

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/place"
	"weir/testnet/lab"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Params describe the network, except for its size.
type Params struct {
	Map     *lab.Geography `json:"-"`
	Regions int            `json:"regions"`
	Seed    uint64         `json:"seed"`
	Trials  int            `json:"-"` // selections drawn; 0: 2000

	Rate      float64 `json:"rate"`      // records a node publishes per second: by keepalive and because its load changed
	Confirmed float64 `json:"confirmed"` // share of them that a holder confirms
	Whole     float64 `json:"whole"`     // share of the confirmed ones that are whole records, the rest being updates in datagrams
	Sizes     Sizes   `json:"sizes"`
}

// Constants of package dht, and of machines.
const (
	holders    = holder.Replicas        // of a topic
	few        = holder.Replicas + 1    // up to this many nodes all nodes hold all records
	shardSplit = directory.DefaultSplit // publishers above which a shard is split in two

	probeEvery    = 5.0  // s between two round trips measured by a node
	indexEvery    = 20.0 // s between two records in the index of regions
	indexSponsors = 16   // nodes of a region in the index
	routeBucket   = 20   // peers in a bucket of Kademlia's routing table

	// Measured on our machine: ranking a record by the default policy,
	// verifying one (ed25519), and a QUIC handshake, in ms; and the rate of a
	// link.
	rankMillis      = 0.0042
	verifyMillis    = 0.061
	handshakeMillis = 1.0
	linkBytes       = 125_000.0 // per ms: 1 Gbit/s
	initialWindow   = 14_480.0  // bytes that TCP sends at once after a pause (RFC 6928)

	// Stress of nodes under the lab's load: it jumps to a uniform value between
	// the first two, and changes little in between. A node that jumps beyond
	// capacity.FullAt is full until it jumps below capacity.FreeAt; so the
	// share F of full nodes is F = above + between × F.
	stressLeast, stressMost = 0.40, 1.00
	above                   = (stressMost - capacity.FullAt) / (stressMost - stressLeast)
	between                 = (capacity.FullAt - capacity.FreeAt) / (stressMost - stressLeast)
	full                    = above / (1 - between)
)

// Row is one mode in a network of one size. Upkeep is payload, in and out.
type Row struct {
	Mode     string  `json:"mode"`
	Nodes    int     `json:"nodes"`
	Messages float64 `json:"messages"` // per selection, up to the decision; mean
	Bytes    float64 `json:"bytes"`    // payload of those messages
	TimeP50  float64 `json:"time_p50_ms"`
	TimeP99  float64 `json:"time_p99_ms"`
	Upkeep   float64 `json:"upkeep"`          // to keep records, in bytes per second and node
	Busiest  float64 `json:"upkeep_busiest"`  // of the node, broker or server with the highest load
	Lookup   float64 `json:"lookup_messages"` // of one Kademlia lookup, made in the background
	Shards   int     `json:"shards"`          // per region
}

// Modes are the modes that [Reckon] models.
var Modes = []string{"kademlia", "broker-1", "broker-3", "pull", "push", "redis"}

// Reckon computes the row of mode in a network of n nodes.
func Reckon(p Params, mode string, n int) Row {
	p.Trials = cmp.Or(p.Trials, 2_000)
	r := Row{Mode: mode, Nodes: n, Shards: 1}
	m := modes[mode]
	m.upkeep(&p, &r, float64(n))
	rnd := rand.New(rand.NewPCG(p.Seed, uint64(n)))
	times := make([]float64, p.Trials)
	worth := newWorth(policy.Default())
	for i := range times {
		t := trial{p: &p, n: n, rnd: rnd, worth: worth, seeker: rnd.IntN(n)}
		t.me = p.Map.Place(t.seeker)
		m.find(&t)
		t.reserve()
		times[i] = t.ms
		r.Messages += t.messages / float64(p.Trials)
		r.Bytes += t.bytes / float64(p.Trials)
	}
	slices.Sort(times)
	r.TimeP50 = times[len(times)/2]
	r.TimeP99 = times[len(times)*99/100]
	return r
}

type mode struct {
	upkeep func(p *Params, r *Row, n float64)
	find   func(*trial)
}

var modes = map[string]mode{
	"kademlia": {kademliaUpkeep, (*trial).kademlia},
	"broker-1": {brokerUpkeep(1), func(t *trial) { t.broker(1) }},
	"broker-3": {brokerUpkeep(3), func(t *trial) { t.broker(3) }},
	"pull":     {pullUpkeep, (*trial).pull},
	"push":     {pushUpkeep, (*trial).push},
	"redis":    {redisUpkeep, (*trial).redis},
}

// publish is the average cost of sending one record to one holder, in bytes.
func (p *Params) publish() float64 {
	s := &p.Sizes
	return p.Whole*(s.Advertise+s.AdvertiseReply) + (p.Confirmed-p.Whole)*(s.Asking+s.Answer) + (1-p.Confirmed)*s.Datagram
}

// probe is the cost of measuring round trips for a node, which sends and
// answers one probe per probeEvery.
func (p *Params) probe() float64 { return 2 * (p.Sizes.Fetch + p.Sizes.FetchReply) / probeEvery }

// shardsOf is the number of shards of a region with region nodes: as few as
// keep each at shardSplit or below.
func shardsOf(region float64) int {
	s := 1
	for region/float64(s) > shardSplit {
		s *= 2
	}
	return s
}

// kademliaUpkeep: on average a node receives, as a holder, as much as it sends
// to the holders of its topic. Holders are the nodes closest to a key that a
// hash makes, so the number of topics a node holds is binomial; the busiest
// node holds the largest number that any of n is expected to.
func kademliaUpkeep(p *Params, r *Row, n float64) {
	a := p.publish()
	if n <= few {
		r.Upkeep = 2*(n-1)*p.Rate*a + p.probe()
		r.Busiest = r.Upkeep
		return
	}
	region := n / float64(p.Regions)
	r.Shards = shardsOf(region)
	remote := holders * (1 - 1/n) // the node may be a holder itself
	index := min(1, indexSponsors/region) * remote * (2*p.Sizes.Datagram + p.Sizes.Advertise + p.Sizes.AdvertiseReply) / 3 / indexEvery
	own := remote*p.Rate*a + index
	r.Upkeep = 2*own + p.probe()
	topics := float64(p.Regions * r.Shards)
	held := busiest(n, topics, min(1, holders/n))
	r.Busiest = own + p.probe() + held*(region/float64(r.Shards))*p.Rate*a
	r.Lookup = lookup(n)
}

// busiest is the number of topics that the busiest of n nodes holds, if each
// holds each topic with the given chance: the most that at least one node is
// expected to reach.
func busiest(n, topics, chance float64) float64 {
	k := 0.0
	at := math.Pow(1-chance, topics) // P(X = 0)
	if chance == 1 {
		return topics
	}
	above := 1 - at // P(X > k)
	for n*above >= 0.5 && k < topics {
		at *= (topics - k) / (k + 1) * chance / (1 - chance)
		k++
		above = max(0, above-at)
	}
	return k
}

// lookup is the number of messages to find a key's k closest nodes: each step
// halves the distance, and with b nodes to a bucket it takes log2(n/b) steps to
// come among the last b, of which each is asked (Maymounkov and Mazières,
// "Kademlia", IPTPS 2002, §3); a request and a reply each.
func lookup(n float64) float64 { return 2 * (max(0, math.Log2(n/routeBucket)) + min(n, routeBucket)) }

// brokerUpkeep: every node sends to every broker.
func brokerUpkeep(brokers float64) func(*Params, *Row, float64) {
	return func(p *Params, r *Row, n float64) {
		one := p.Rate * p.publish()
		r.Upkeep = brokers*one + p.probe()
		r.Busiest = n * one
	}
}

// pullUpkeep: records are not published, only requested.
func pullUpkeep(p *Params, r *Row, _ float64) { r.Upkeep, r.Busiest = p.probe(), p.probe() }

// pushUpkeep: every node sends to every node.
func pushUpkeep(p *Params, r *Row, n float64) {
	r.Upkeep = 2*(n-1)*p.Rate*p.publish() + p.probe()
	r.Busiest = r.Upkeep
}

func redisUpkeep(p *Params, r *Row, n float64) {
	r.Upkeep = p.Rate*p.Sizes.RedisSet + p.probe()
	r.Busiest = n * p.Rate * p.Sizes.RedisSet
}

// A trial is one modelled selection.
type trial struct {
	p      *Params
	n      int
	rnd    *rand.Rand
	seeker int
	me     lab.Place

	ms, messages, bytes float64
	worth               *worth
	candidates          []holder.Offer
	records             bool // the seeker has the candidates' records, so that a lease comes without one
}

// rtt is the round trip time from the seeker.
func (t *trial) rtt(to lab.Place) time.Duration { return 2 * t.me.OneWay(to) }

// other is a random node that is not the seeker, of the seeker's region or of
// any.
func (t *trial) other(near bool) lab.Place {
	for range 100 {
		i := t.rnd.IntN(t.n)
		if near {
			i = i/t.p.Regions*t.p.Regions + t.seeker%t.p.Regions // regions are assigned to nodes in turn
		}
		if i < t.n && i != t.seeker {
			return t.p.Map.Place(i)
		}
	}
	return t.me
}

// pool draws up to count distinct nodes and counts those with room. It keeps as
// many candidates, the best by the policy, as a holder draws its offers from.
// Least is the lowest stress.
func (t *trial) pool(count int, near bool) (room int, least float64) {
	type candidate struct {
		score, stress float64
		rtt           time.Duration
	}
	var all []candidate
	least = 1
	for range count {
		to, stress := t.other(near), stressLeast+(stressMost-stressLeast)*t.rnd.Float64()
		if stress >= capacity.FullAt || stress > capacity.FreeAt && t.rnd.Float64() < full {
			continue
		}
		rtt := t.rtt(to)
		least = min(least, stress)
		all = append(all, candidate{t.worth.of(stress, rtt), stress, rtt})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	for _, c := range all[:min(len(all), holder.PoolFactor*place.OfferLimit)] {
		o := holder.Offer{Stress: c.stress}
		o.Record.Node = nameOf(len(t.candidates))
		o.Score, o.RTT = c.score, c.rtt
		t.candidates = append(t.candidates, o)
	}
	return len(all), least
}

// sample keeps the candidates that this many holders offer.
func (t *trial) sample(holders int) {
	if len(t.candidates) <= place.OfferLimit {
		return
	}
	var all policy.Ranking
	byNode := make(map[peer.ID]holder.Offer)
	for _, o := range t.ranked() {
		all.Passed = append(all.Passed, o.Evaluation)
		byNode[o.Record.Node] = o
	}
	offers := make(map[peer.ID]holder.Offer)
	for range holders {
		for _, v := range all.Draw(place.OfferLimit, holder.PoolFactor*place.OfferLimit, t.rnd) {
			offers[v.Record.Node] = byNode[v.Record.Node]
		}
	}
	t.candidates = slices.Collect(maps.Values(offers))
}

// ranked are the candidates, best first.
func (t *trial) ranked() []holder.Offer {
	slices.SortFunc(t.candidates, func(a, b holder.Offer) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Record.Node, b.Record.Node))
	})
	return t.candidates
}

// most bounds the candidates drawn for a seeker that sees all nodes: with so
// many, the best four do not improve further.
const most = 500

func (t *trial) kademlia() {
	if t.n <= few {
		t.records = true
		t.pool(t.n-1, false)
		return
	}
	region := t.n / t.p.Regions
	shards := shardsOf(float64(region))
	shard := region / shards
	rank := rankMillis * float64(shard)
	var room int
	var least float64
	if shards == 1 {
		room, least = t.pool(min(shard-1, most), true)
		t.ms += t.ask(place.Query{}, t.holders(), room) + rank
	} else { // the nearest holder of its own shard, and that of another one
		room, least = t.pool(min(2*shard-1, most), true)
		one := place.Query{First: 1, Near: true}
		t.ms += max(t.ask(one, t.holders(), room/2), t.ask(one, t.holders(), room/2)) + rank
	}
	t.sample(holder.QueryFirst)
	if !place.GoodEnough(least) {
		// The nearest regions, at the same time; their holders are at the same
		// distance.
		slowest := 0.0
		for range place.NearRegions {
			room, _ := t.pool(min(shard, 2*place.OfferLimit), false)
			slowest = max(slowest, t.ask(place.Query{Near: true}, t.holders(), room))
		}
		t.ms += slowest + rank
	}
}

// holders are the round trip times to the holders of a topic, which may be
// anywhere.
func (t *trial) holders() (rtts []time.Duration) {
	for range holders {
		rtts = append(rtts, t.rtt(t.other(false)))
	}
	return rtts
}

func (t *trial) broker(brokers int) {
	var rtts []time.Duration
	for i := range brokers {
		rtts = append(rtts, t.rtt(t.p.Map.Centre(i)))
	}
	room, _ := t.pool(min(t.n-1, most), false)
	t.ms += t.ask(place.Query{}, rtts, room) + rankMillis*float64(t.n)
	t.sample(min(holder.QueryFirst, brokers))
}

// pull asks every node, place.PollAtOnce at a time. Once three quarters have
// answered, the rest has the same time again.
func (t *trial) pull() {
	asked := t.n - 1
	sample := min(asked, most)
	rtts := make([]float64, sample)
	for i := range rtts {
		rtts[i] = asMillis(t.rtt(t.other(false))) * t.trips()
	}
	slices.Sort(rtts)
	rounds := math.Ceil(float64(asked) / place.PollAtOnce)
	mean := 0.0
	for _, r := range rtts {
		mean += r / float64(sample)
	}
	all := (rounds-1)*mean + min(rtts[sample-1], 2*max(rtts[sample*3/4], asMillis(place.GraceMost)))
	took := min(all, asMillis(place.PollTime))
	part := took / all // the share answered in time
	t.ms += took + part*float64(asked)*(t.trips()-1)*handshakeMillis
	t.messages += part * 2 * float64(asked)
	t.bytes += part * float64(asked) * t.p.Sizes.Query
	room, _ := t.pool(int(part*float64(sample)), false)
	pass := float64(room) / float64(sample)
	t.bytes += part * float64(asked) * (t.p.Sizes.reply(0) + pass*(t.p.Sizes.reply(1)-t.p.Sizes.reply(0)))
}

func (t *trial) push() {
	t.records = true
	t.ms += rankMillis * float64(t.n)
	t.pool(min(t.n-1, most), false)
}

// redis: one round trip, and more while TCP's congestion window grows: it
// doubles with each (RFC 5681 §3.1). The seeker verifies every record.
func (t *trial) redis() {
	reply := float64(t.n) * t.p.Sizes.RedisRecord
	rounds := 1 + max(0, math.Ceil(math.Log2(reply/initialWindow+1))-1)
	t.ms += rounds*asMillis(t.rtt(t.p.Map.Centre(0))) + reply/linkBytes + float64(t.n)*(verifyMillis+rankMillis)
	t.messages += 2
	t.bytes += t.p.Sizes.RedisRead + reply
	t.records = true
	t.pool(min(t.n-1, most), false)
}

func asMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// trips is the average number of round trips of an exchange with a random node:
// two if there is no connection, the first being QUIC's handshake (RFC 9000). A
// node is connected to those in its routing table, to its holders, and to those
// whose holder it is.
func (t *trial) trips() float64 {
	n := float64(t.n)
	peers := lookup(n)/2*routeBucket/2 + 2*holders // buckets, about half full
	return 2 - min(1, peers/n)
}
