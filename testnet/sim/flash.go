package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht"
	"weir/dht/holder"
	"weir/sfu/tree"
)

const (
	flashStream  = "show"
	flashNodes   = 500
	flashViewers = 10_000
	flashTime    = 10 * time.Second
	flashWait    = 10 * time.Second // how long a viewer's request may wait; clients give up after about that
	flashFanout  = 8                // pulls of one stream per node, the default of nodes

	pullAttempts = 4                      // of one pull; see package sfu
	comeAgain    = 500 * time.Millisecond // until a refused client tries again
)

// A carrier is a node's state as a carrier of the stream.
type carrier struct {
	depth    int
	children int
	path     []peer.ID
	parent   *node
	viewers  int
	record   capacity.Record
	news     time.Duration
	looking  bool
}

// A crowd is viewers of one stream, whose tree grows by cascade pulls.
type crowd struct {
	w         *world
	topic     dht.Topic
	shard     *shard
	carriers  map[*node]*carrier
	pulling   map[*node][]func(bool)
	tries     map[*node]int           // of the pull that waits for capacity
	retry     map[*node]time.Duration // time of its next try
	served    int
	refused   int
	waited    int // viewers without a path at once
	redirects int
	deepest   int
	pulls     int
	times     []time.Duration
	waits     map[time.Duration]bool // waiting viewers, by the time of their request
	series    []Point
}

// flash: 10,000 viewers of one stream within ten seconds, at 500 nodes, one of
// which has the publisher.
func (s *stage) flash() {
	s.Progress("flash", Weir)
	nodes := cmp.Or(s.Nodes, flashNodes)
	viewers := flashViewers * nodes / flashNodes
	w := s.world(plan{regions: 4, nodes: nodes, kinds: []int{20, 30, 40}, fresh: product, policy: policy.Default(), late: true})
	w.run(10 * time.Second) // until all records are published
	c := &crowd{w: w, topic: dht.StreamTopic(flashStream), carriers: make(map[*node]*carrier), pulling: make(map[*node][]func(bool)), tries: make(map[*node]int), retry: make(map[*node]time.Duration), waits: make(map[time.Duration]bool)}
	c.shard = w.shard(c.topic)
	c.carry(w.nodes[0], nil)
	w.run(w.now + 2*time.Second)
	w.begin()
	began := w.now
	for range viewers {
		w.after(time.Duration(w.demand.Int64N(int64(flashTime))), func() {
			c.come(w.ingress(0), w.now, true)
		})
	}
	end := w.now + flashTime + flashWait + 5*time.Second
	w.every(500*time.Millisecond, end, func() {
		w.look()
		c.series = append(c.series, Point{(w.now - began).Seconds(), float64(c.served)})
	})
	w.run(end)
	r := s.row(w, "flash", "", Weir, (end - began).Seconds())
	total := w.usable()
	r.Placed, r.Blocked = c.served+c.refused, share(c.refused, c.served+c.refused)
	r.TimeP50, r.TimeP99 = capacity.Milliseconds(quantile(c.times, 0.5)), capacity.Milliseconds(quantile(c.times, 0.99))
	r.FirstRefused, r.MostOnOne = share(c.waited, c.served+c.refused), 0
	r.Depth, r.Carriers, r.Series = c.deepest, len(c.carriers), c.series
	r.Peak *= usable // of the limit itself: pulls may use it all
	s.add(r)
	s.aim("flash", "no node over 100 %", w.peak <= 1, "%.0f %%", 100*w.peak)
	s.aim("flash", "tree depth ≤ 4", c.deepest <= 4, "%d", c.deepest)
	s.aim("flash", "none refused while total capacity suffices", c.refused == 0 || total < viewers, "%d of %d refused, with room for %d", c.refused, viewers, total)
}

// come handles a viewer's request at n, its first or a redirected one.
func (c *crowd) come(n *node, began time.Duration, redirect bool) {
	w := c.w
	if c.carriers[n] == nil {
		c.pull(n, nil, func(ok bool) {
			switch {
			case ok:
				c.come(n, began, redirect)
			case w.now-began < flashWait:
				c.wait(began)
				w.at(c.retry[n], func() { c.come(n, began, redirect) })
			default:
				c.refused++
			}
		})
		return
	}
	id := w.requestID()
	if n.ledger.Admit(w.clock(), id, viewerNeed) == nil {
		c.serve(n, id, began)
		return
	}
	if !redirect {
		c.again(n, began)
		return
	}
	w.place(n, viewerNeed, func(p *placing, helper *node) {
		if helper == nil {
			c.again(n, began)
			return
		}
		c.redirects++
		// The viewer follows, with a ticket that names n as a carrier.
		w.after(connecting, func() {
			c.pull(helper, n, func(ok bool) {
				if _, err := helper.ledger.Claim(w.clock(), n.id, p.id); err != nil || !ok {
					if err == nil {
						helper.ledger.End(p.id)
					}
					c.again(helper, began)
					return
				}
				c.serve(helper, p.id, began)
			})
		})
	})
}

// again has a waiting viewer try once more, or give up.
func (c *crowd) again(n *node, began time.Duration) {
	if c.w.now-began >= flashWait {
		c.refused++
		return
	}
	c.wait(began)
	c.w.after(comeAgain, func() { c.come(n, began, true) })
}

// wait counts the viewer of the request made at began as waiting.
func (c *crowd) wait(began time.Duration) {
	if !c.waits[began] {
		c.waits[began] = true // no other viewer came at that nanosecond
		c.waited++
	}
}

func (c *crowd) serve(n *node, id string, began time.Duration) {
	c.served++
	c.times = append(c.times, c.w.now-began)
	c.carriers[n].viewers++
	c.w.seat(n, id, time.Hour)
	c.changed(n)
}

// pull has n carry the stream: from the given carrier, or from the one the
// policy chooses. There is one pull at a time, however many viewers wait.
func (c *crowd) pull(n, from *node, done func(bool)) {
	if c.carriers[n] != nil {
		done(true)
		return
	}
	if waiting, under := c.pulling[n]; under {
		c.pulling[n] = append(waiting, done)
		return
	}
	c.pulling[n] = []func(bool){done}
	c.attempt(n, from, pullAttempts, nil)
}

func (c *crowd) attempt(n, from *node, left int, exclude []peer.ID) {
	w := c.w
	finish := func(ok bool) {
		waiting := c.pulling[n]
		delete(c.pulling, n)
		c.retry[n] = w.now + tree.RoomPause(c.tries[n], w.rnd.Float64())
		if c.tries[n]++; ok {
			delete(c.tries, n)
		}
		for _, done := range waiting {
			done(ok)
		}
	}
	need := capacity.Need{Purpose: capacity.Cascade, Stream: flashStream, Uplink: viewerUplink, Packets: viewerPackets}
	// Over the link: reserving takes one round trip, and subscribing another.
	subscribe := func(parent *node, id string) {
		w.after(2*n.rtt(parent), func() {
			up := c.carriers[parent]
			_, err := parent.ledger.Claim(w.clock(), n.id, id)
			if err != nil || up.children >= flashFanout || up.depth+1 > w.judge.Policy().Depth || slices.Contains(up.path, n.id) {
				if err == nil {
					parent.ledger.End(id)
				}
				n.reputation.Refused(w.clock(), parent.id)
				if left > 1 {
					c.attempt(n, nil, left-1, append(exclude, parent.id))
					return
				}
				finish(false)
				return
			}
			up.children++
			c.pulls++
			parent.active++ // a pull counts as one more viewer
			w.meter(parent, 1)
			c.changed(parent)
			c.carry(n, parent)
			finish(true)
		})
	}
	if from != nil {
		id := w.requestID()
		if _, err := from.ledger.Reserve(w.clock(), capacity.Request{ID: id, From: n.id, Need: need}); err == nil {
			subscribe(from, id)
			return
		}
	}
	p := w.newPlacing(n, need, func(p *placing, parent *node) {
		if parent == nil {
			finish(false)
			return
		}
		subscribe(parent, p.id)
	})
	p.only, p.placement.Further, p.placement.Exclude = c.shard, false, exclude
	p.start()
}

// carry makes n a carrier, below parent.
func (c *crowd) carry(n, parent *node) {
	k := &carrier{parent: parent, news: -time.Hour}
	if parent != nil {
		k.depth = c.carriers[parent].depth + 1
		k.path = slices.Clone(c.carriers[parent].path)
	}
	k.path = append(k.path, n.id)
	c.deepest = max(c.deepest, k.depth)
	c.carriers[n] = k
	c.publish(n)
	var keep func()
	keep = func() {
		c.publish(n)
		c.w.after(holder.Keepalive, keep)
	}
	c.w.after(holder.Keepalive, keep)
}

// changed publishes the change of the node's streams, at the product's rate.
func (c *crowd) changed(n *node) {
	k := c.carriers[n]
	if k.looking {
		return
	}
	k.looking = true
	c.w.after(max(holder.SampleEvery/2, k.news+holder.PublishGap-c.w.now), func() {
		k.looking = false
		k.news = c.w.now
		c.publish(n)
	})
}

func (c *crowd) publish(n *node) {
	k := c.carriers[n]
	r := c.w.sample(n)
	r.Seq = k.record.Seq + 1
	r.Carries = &capacity.StreamInfo{
		Stream: flashStream, Origin: k.parent == nil, Depth: k.depth, Path: k.path,
		Viewers: k.viewers, Children: k.children, Fanout: flashFanout,
	}
	if k.parent != nil {
		r.Carries.Parent, r.Carries.ParentRTT = k.parent.id, n.rtt(k.parent)
	}
	k.record = r
	c.w.after(meanRTT/2, func() {
		for _, h := range c.shard.holders {
			_ = h.table.Put(c.w.clock(), c.w.clock(), c.topic, r, sealed) // newer records have come already
		}
	})
}
