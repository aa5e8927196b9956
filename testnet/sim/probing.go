package sim

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Constants of Prequal (Wydrowski, Kleinberg, Rumble and Archer, "Load is not
// what you should balance: Introducing Prequal", NSDI 2024), with the values of
// its section 4.
const (
	probesPerQuery = 3
	probesAwaited  = 2 // of those, in the mode in which the request waits
	poolSize       = 16
	poolLeast      = 2           // entries; with fewer a node is drawn at random
	probeLives     = time.Second // in the pool
	hotQuantile    = 0.84        // of the loads seen; above it a node is hot
	poolRemoves    = 1           // entries per request, the oldest and the worst in turn
	poolSlack      = 1.0         // δ of the reuse budget
	loadsSeen      = 128         // kept, to estimate the quantile

	fullBelow = 0.97 * usable // a node of thirty sessions has room for one more
)

// A probe is a node's answer to a load probe. Requests in flight are replaced
// by the used share of the node's limit, since nodes differ in size; the
// estimated latency is replaced by the round trip time and the delay in the
// node's queues.
type probe struct {
	of      *node
	load    float64
	latency time.Duration
	at      time.Duration
	uses    float64 // remaining
}

// A prober is one client of Prequal: the gateway of a region.
type prober struct {
	pool  []probe
	loads []float64 // last ones seen
	turns int
}

// queueing is the waiting time of a packet in n, as in an M/M/1 queue with a
// service time of 1 ms, and at most 1 s.
func (n *node) queueing() time.Duration {
	const work = time.Millisecond
	used := float64(n.active) / float64(n.effective())
	return min(time.Second, time.Duration(float64(work)/max(1-used, 1e-3)))
}

func (w *world) probeNow(s, n *node) probe {
	return probe{of: n, load: w.really(n), latency: s.rtt(n) + n.queueing()}
}

// hot is the load above which a node is hot: the quantile of the loads seen,
// but never so high that the node has no room, since nodes refuse here.
func (p *prober) hot() float64 {
	if len(p.loads) == 0 {
		return fullBelow
	}
	sorted := slices.Sorted(slices.Values(p.loads))
	return min(fullBelow, sorted[min(len(sorted)-1, int(hotQuantile*float64(len(sorted))))])
}

func (p *prober) saw(load float64) {
	p.loads = append(p.loads, load)
	if len(p.loads) > loadsSeen {
		p.loads = p.loads[1:]
	}
}

// better is Prequal's hot-cold lexicographic rule: any cold node before any hot
// one, the cold ones by latency, the hot ones by load.
func (p *prober) better(a, b probe) int {
	hot := p.hot()
	switch ha, hb := a.load > hot, b.load > hot; {
	case ha != hb && hb:
		return -1
	case ha != hb:
		return 1
	case ha:
		return cmp.Compare(a.load, b.load)
	}
	return cmp.Compare(a.latency, b.latency)
}

// askSome is the synchronous mode: three random nodes are probed, and the
// better of the two that answer first is chosen.
func (w *world) askSome(s *node, tried []*node, chosen func(*node)) {
	p := s.in.prober
	var answers []probe
	asked := slices.Clone(tried)
	done := false
	finish := func() {
		if done {
			return
		}
		done = true
		if len(answers) == 0 {
			chosen(nil)
			return
		}
		chosen(slices.MinFunc(answers, p.better).of)
	}
	pending := 0
	for range probesPerQuery {
		n := w.draw(asked, func(*node) bool { return true })
		if n == nil {
			break
		}
		asked = append(asked, n)
		pending++
		w.after(s.rtt(n)/2, func() {
			a := w.probeNow(s, n)
			w.after(s.rtt(n)/2, func() {
				p.saw(a.load)
				answers = append(answers, a)
				if pending--; pending == 0 || len(answers) == probesAwaited {
					finish()
				}
			})
		})
	}
	if pending == 0 {
		finish()
	}
}

// fromPool is the asynchronous mode: the best of the pool of recent answers is
// chosen at once, and three nodes are probed for later requests.
func (w *world) fromPool(s *node, tried []*node) *node {
	p := s.in.prober
	for range probesPerQuery {
		n := w.draw(nil, func(*node) bool { return true })
		w.after(s.rtt(n)/2, func() {
			a := w.probeNow(s, n)
			w.after(s.rtt(n)/2, func() { p.put(w, a) })
		})
	}
	p.pool = slices.DeleteFunc(p.pool, func(e probe) bool { return w.now-e.at > probeLives || e.uses < 1 })
	usable := slices.DeleteFunc(slices.Clone(p.pool), func(e probe) bool { return slices.Contains(tried, e.of) })
	if len(usable) < poolLeast {
		return w.draw(tried, func(*node) bool { return true })
	}
	best := slices.MinFunc(usable, p.better).of
	for i := range p.pool {
		if e := &p.pool[i]; e.of == best {
			e.uses--
			e.load += 1 / float64(best.sessions)
		}
	}
	p.remove()
	return best
}

// put adds an answer to the pool, and replaces the oldest if the pool is full.
// It may be used as often as the rates of probing and removing allow.
func (p *prober) put(w *world, a probe) {
	p.saw(a.load)
	share := 1 - poolSize/float64(max(poolSize+1, len(w.nodes)))
	uses := max(1, (1+poolSlack)/max(0.1, share*probesPerQuery-poolRemoves))
	a.at, a.uses = w.now, math.Floor(uses)
	if w.rnd.Float64() < uses-math.Floor(uses) {
		a.uses++
	}
	p.pool = slices.DeleteFunc(p.pool, func(e probe) bool { return e.of == a.of })
	if len(p.pool) == poolSize {
		p.pool = slices.Delete(p.pool, 0, 1) // the oldest: they are in order of time
	}
	p.pool = append(p.pool, a)
}

// remove removes the oldest and the worst from the pool, in turn.
func (p *prober) remove() {
	for range poolRemoves {
		if len(p.pool) <= poolLeast {
			return
		}
		i := 0
		if p.turns++; p.turns%2 == 0 {
			for j := range p.pool {
				if p.better(p.pool[j], p.pool[i]) > 0 {
					i = j
				}
			}
		}
		p.pool = slices.Delete(p.pool, i, i+1)
	}
}

// joinsBelow is the load, as a share of usable capacity, below which a node
// counts as idle. Media servers are hardly ever quite idle, for which
// join-idle-queue was made (Lu et al., "Join-Idle-Queue", Performance
// Evaluation 68(11), 2011).
const joinsBelow = 0.85

// idles adds n to the shorter of two regions' queues, drawn at random, if it is
// idle and in none.
func (w *world) idles(n *node) {
	if n.queued || n.gone || float64(n.active) >= joinsBelow*usable*float64(n.sessions) {
		return
	}
	a, b := w.regions[w.rnd.IntN(len(w.regions))], w.regions[w.rnd.IntN(len(w.regions))]
	if len(b.idle) < len(a.idle) {
		a = b
	}
	n.queued = true
	a.idle = append(a.idle, n)
}

// nextIdle removes the first idle node from the queue of s's region, or draws a
// random node if the queue is empty.
func (w *world) nextIdle(s *node, tried []*node) *node {
	for len(s.in.idle) > 0 {
		n := s.in.idle[0]
		s.in.idle = s.in.idle[1:]
		n.queued = false
		if !slices.Contains(tried, n) {
			return n
		}
	}
	return w.draw(tried, func(*node) bool { return true })
}

// firstOfZone is atm0s-media-server's rule: the node of the seeker's zone with
// the lowest usage, in whole percent, as last published; other zones only if
// that zone has none.
func (w *world) firstOfZone(s *node, tried []*node) *node {
	for _, among := range [][]*node{s.in.nodes, w.nodes} {
		var first *node
		for _, n := range among {
			if !slices.Contains(tried, n) && (first == nil || percent(n) < percent(first)) {
				first = n
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

func percent(n *node) int { return int(100 * claimed(n)) }

// nearestWithRoom is the nearest node whose last record has room.
func (w *world) nearestWithRoom(s *node, tried []*node) *node {
	for _, n := range w.byDistance(s) {
		if claimed(n) < usable && !slices.Contains(tried, n) {
			return n
		}
	}
	return w.draw(tried, func(*node) bool { return true })
}

// byDistance returns all nodes but s by their distance to it, the nearest first.
func (w *world) byDistance(s *node) []*node {
	if s.distances == nil {
		s.distances = slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == s })
		slices.SortStableFunc(s.distances, func(a, b *node) int { return cmp.Compare(s.rtt(a), s.rtt(b)) })
	}
	return s.distances
}
