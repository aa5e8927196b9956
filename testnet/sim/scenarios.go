package sim

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
	"weir/testnet/model"
)

// A stage runs scenarios one after another.
type stage struct {
	Config
	weights model.Sizes
	report  *Report
	mu      sync.Mutex // for progress
}

func (s *stage) world(p plan) *world {
	p.seed = cmp.Or(p.seed, s.Seed)
	w := newWorld(p)
	w.weights = s.weights
	return w
}

func (s *stage) aim(scenario, aim string, met bool, found string, args ...any) {
	s.report.Aims = append(s.report.Aims, Aim{scenario, aim, fmt.Sprintf(found, args...), met})
}

// row makes a row of w's figures over the given seconds.
func (s *stage) row(w *world, scenario, kase, who string, seconds float64) Row {
	r := Row{
		Scenario: scenario, Case: kase, Who: who, Nodes: len(w.nodes), Placed: w.placed,
		FirstRefused: share(w.firstRefused, w.placed), BothRefused: share(w.bothRefused, w.placed),
		Blocked: share(w.blocked, w.placed), Overfull: share(w.overfull, w.placed),
		Peak: w.peak / usable, Spread: mean(w.spread),
		TimeP50: capacity.Milliseconds(quantile(w.times, 0.5)), TimeP99: capacity.Milliseconds(quantile(w.times, 0.99)),
		Messages: float64(w.messages) / float64(max(1, w.placed)), Bytes: w.bytes / float64(max(1, w.placed)),
		Records: float64(w.records) / float64(len(w.nodes)) / seconds,
	}
	if !placesByWeir(who) {
		r.BothRefused = r.FirstRefused
	}
	r.RTT, r.Degraded = capacity.Milliseconds(w.distance/time.Duration(max(1, w.reached))), share(w.degraded, w.reached)
	for _, n := range w.on {
		r.MostOnOne = max(r.MostOnOne, share(n, w.placed))
	}
	return r
}

// each calls run for every system, some concurrently, and adds the rows in
// their order.
func (s *stage) each(who []string, run func(who string) Row) []Row {
	rows := make([]Row, len(who))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, w := range who {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			rows[i] = run(w)
		})
	}
	all.Wait()
	s.report.Rows = append(s.report.Rows, rows...)
	return rows
}

func (s *stage) progress(scenario, who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Progress(scenario, who)
}

func (s *stage) add(r Row) Row {
	s.report.Rows = append(s.report.Rows, r)
	return r
}

// begin starts counting.
func (w *world) begin() { w.counting, w.records = true, 0 }

func (w *world) usable() (sum int) {
	for _, n := range w.nodes {
		sum += n.usable()
	}
	return sum
}

const (
	burstViewers = 92
	burstTime    = 31 * time.Second
	burstNodes   = 10
	burstSeeds   = 10
)

// burst: 92 viewers within 31 s at 10 idle nodes of one region, as in
// jicofo#1298, several times over. Of each figure the worst run counts.
func (s *stage) burst() {
	for _, who := range append([]string{Weir}, Rivals...) {
		s.Progress("burst", who)
		var worst Row
		for i := range uint64(burstSeeds) {
			w := s.world(plan{seed: s.Seed + i, regions: 1, nodes: burstNodes, kinds: []int{20}, fresh: product, policy: policyOf(who), late: placesByWeir(who)})
			w.begin()
			s.burstOn(w, who)
			r := s.row(w, "burst", "", who, (burstTime + 5*time.Second).Seconds())
			if i == 0 {
				worst = r
			}
			worst.MostOnOne, worst.Peak = max(worst.MostOnOne, r.MostOnOne), max(worst.Peak, r.Peak)
			worst.FirstRefused, worst.BothRefused = max(worst.FirstRefused, r.FirstRefused), max(worst.BothRefused, r.BothRefused)
			worst.Blocked, worst.Overfull = max(worst.Blocked, r.Blocked), max(worst.Overfull, r.Overfull)
		}
		if s.add(worst); who == Weir {
			s.aim("burst", "no node over 15 % of the viewers", worst.MostOnOne <= 0.15, "%.1f %%", 100*worst.MostOnOne)
			s.aim("burst", "none over its threshold", worst.Peak <= 1, "%.0f %% of it", 100*worst.Peak)
			s.aim("burst", "none refused", worst.Blocked == 0, "%.1f %%", 100*worst.Blocked)
		}
	}
}

func (s *stage) burstOn(w *world, who string) {
	for range burstViewers {
		w.after(time.Duration(w.demand.Int64N(int64(burstTime))), func() { w.view(who, w.ingress(0), time.Hour) })
	}
	end := w.now + burstTime + 5*time.Second
	w.every(time.Second, end, w.look)
	w.run(end)
}

// A steadyCase is a load that neither rises nor falls.
type steadyCase struct {
	name    string
	fresh   fresh
	kinds   []int
	holding time.Duration
	nodes   int
	load    float64
	bias    float64 // further demand in the first region
	warm    time.Duration
	lasts   time.Duration
}

func (s *stage) runSteady(c steadyCase, who string) *world {
	w := s.world(plan{regions: 4, nodes: c.nodes, kinds: c.kinds, fresh: c.fresh, policy: policyOf(who), late: placesByWeir(who)})
	w.fill(c.load, c.holding)
	rate := c.load * float64(w.usable()) / c.holding.Seconds()
	until := w.now + c.warm + c.lasts
	w.arrivals(rate, c.bias, until, func(n *node) { w.view(who, n, w.watching(c.holding)) })
	w.run(w.now + c.warm)
	w.begin()
	w.every(time.Second, until, w.look)
	w.run(until)
	return w
}

var (
	serverKinds = []int{100, 200, 400} // sessions: a quarter, half and all of 1 Gbit/s
	smallKinds  = []int{20, 40, 80}
)

// steadyCases: 85 % of the usable capacity, n nodes.
func steadyCases(n int) []steadyCase {
	c := steadyCase{fresh: stale, kinds: serverKinds, holding: 10 * time.Minute, nodes: n, load: 0.85, warm: 15 * time.Minute, lasts: 3 * time.Minute}
	old, now, hard := c, c, c
	old.name = "records up to 15 s old"
	now.name, now.fresh = "published as weir does", product
	hard.name, hard.kinds, hard.holding, hard.warm, hard.lasts = "up to 15 s old, small nodes, stays of 2 min", smallKinds, 2*time.Minute, 4*time.Minute, time.Minute
	return []steadyCase{old, now, hard}
}

// steady: 1,000 nodes at 85 %. The aims have every case and every other system.
func (s *stage) steady() {
	for _, c := range steadyCases(cmp.Or(s.Nodes, 1_000)) {
		rows := s.each(append([]string{Weir}, Rivals...), func(who string) Row {
			s.progress("steady", who+", "+c.name)
			return s.row(s.runSteady(c, who), "steady", c.name, who, c.lasts.Seconds())
		})
		s.aimSteady(c.name, rows)
	}
}

// aimSteady states weir's results with the default policy against their aims,
// and the best other system in each.
func (s *stage) aimSteady(kase string, rows []Row) {
	of := make(map[string]Row)
	for _, r := range rows {
		of[r.Who] = r
	}
	weir := of[Weir]
	best := func(value func(Row) float64, among func(Row) bool) Row {
		var list []Row
		for _, r := range rows {
			if r.Who != Weir && r.Who != Knowing && r.Who != KnowingDraw && among(r) {
				list = append(list, r)
			}
		}
		return slices.MinFunc(list, func(a, b Row) int { return cmp.Compare(value(a), value(b)) })
	}
	refusing := func(r Row) bool { return admits(r.Who) }
	anyone := func(Row) bool { return true }
	refused := func(r Row) float64 { return r.FirstRefused }
	spread := func(r Row) float64 { return r.Spread }
	fewest, evenest := best(refused, refusing), best(spread, anyone)
	s.aim("steady", kase+": first tries refused ≤ 0.1 %", weir.FirstRefused <= 0.001, "%.2f %%; fewest: %s, %.2f %%", 100*weir.FirstRefused, fewest.Who, 100*fewest.FirstRefused)
	s.aim("steady", kase+": blocked ≤ 0.1 %", weir.Blocked <= 0.001, "%.3f %%", 100*weir.Blocked)
	s.aim("steady", kase+": s.d. of load ≤ 1.1 × that of a centre that counts what it places", weir.Spread <= 1.1*of[Incremental].Spread,
		"%.2f ×: %.4f, %.4f; least: %s, %.4f", weir.Spread/of[Incremental].Spread, weir.Spread, of[Incremental].Spread, evenest.Who, evenest.Spread)
	s.aim("steady", kase+": s.d. of load ≤ 1.2 × that of an all-knowing follower of the same policy", weir.Spread <= 1.2*of[KnowingDraw].Spread,
		"%.2f ×: %.4f, %.4f", weir.Spread/of[KnowingDraw].Spread, weir.Spread, of[KnowingDraw].Spread)
	s.aim("steady", kase+": round trip to the node chosen ≤ 1.5 × that to the nearest with room", weir.RTT <= 1.5*of[Nearest].RTT,
		"%.2f ×: %.0f ms, %.0f ms; by that centre %.0f ms", weir.RTT/of[Nearest].RTT, weir.RTT, of[Nearest].RTT, of[Incremental].RTT)
}

const (
	antagonistFrom  = 30 * time.Second
	antagonistLasts = time.Minute
	antagonistSeen  = 5 * time.Second // time limit for detection
)

// antagonist: one node in ten carries half of its limit for a minute. Its load
// and its limits do not show it; how late it serves packets does, which weir's
// nodes measure themselves and Prequal's probes report. The result counts where
// viewers are sent from five seconds after that on.
func (s *stage) antagonist() {
	rows := s.each([]string{Weir, WeirHotCold, Prequal, PrequalPool, JoinIdle, Incremental, TwoChoices, Atm0s, Random}, func(who string) Row {
		s.progress("antagonist", who)
		return s.row(s.runAntagonist(who, cmp.Or(s.Nodes, 200)), "antagonist", "", who, (antagonistLasts - antagonistSeen).Seconds())
	})
	of := make(map[string]float64)
	for _, r := range rows {
		of[r.Who] = r.Degraded
	}
	prequal := min(of[Prequal], of[PrequalPool])
	s.aim("antagonist", "viewers sent to degraded nodes ≤ half of Prequal's after 5 s", of[Weir] <= prequal/2,
		"%.1f %%; Prequal asking %.1f %%, from a pool %.1f %%", 100*of[Weir], 100*of[Prequal], 100*of[PrequalPool])
}

func (s *stage) runAntagonist(who string, nodes int) *world {
	const holding, load = 2 * time.Minute, 0.75
	w := s.world(plan{regions: 2, nodes: nodes, kinds: []int{50}, fresh: product, policy: policyOf(who), hearsay: true, late: placesByWeir(who)})
	w.fill(load, holding)
	w.feedback = placesByWeir(who)
	begun := w.now
	until := begun + antagonistFrom + antagonistLasts
	w.arrivals(load*float64(w.usable())/holding.Seconds(), 0, until, func(n *node) { w.view(who, n, w.watching(holding)) })
	w.run(begun + antagonistFrom)
	for i, n := range w.nodes {
		if n.slowed = i%10 == 0; n.slowed {
			w.after(meterLag, func() { w.observe(n) })
		}
	}
	w.run(w.now + antagonistSeen)
	w.begin()
	w.every(time.Second, until, w.look)
	w.run(until)
	return w
}

// pack: 100 equal nodes, loaded to 60 % of the packing limit, then gradually
// less down to 20 %.
func (s *stage) pack() {
	s.Progress("pack", Weir)
	const (
		size    = 50
		holding = time.Minute
		idle    = 30 * time.Second // of a node, until its release
		high    = 8 * time.Minute
		falls   = 12 * time.Minute
		settled = 25 * time.Minute // five minutes after that
		lasts   = 30 * time.Minute
	)
	nodes := cmp.Or(s.Nodes, 100)
	w := s.world(plan{regions: 1, nodes: nodes, kinds: []int{size}, fresh: product, policy: policy.BinPacking(), late: true})
	start := w.now
	load := func() float64 { return 0.6 - 0.4*min(1, max(0, (w.now-start-high).Seconds()/falls.Seconds())) }
	full := policy.BinPackTarget * size
	var row Row
	var ratios, falling []float64
	released, disturbed := 0, 0
	w.begin()
	var next func()
	most := 0.6 * full * float64(nodes) / holding.Seconds()
	next = func() {
		if w.now-start >= lasts {
			return
		}
		if w.demand.Float64() < load()/0.6 {
			w.view(Weir, w.ingress(0), w.exponential(holding.Seconds()))
		}
		w.after(w.exponential(1/most), next)
	}
	w.after(0, next)
	w.every(time.Second, start+lasts, func() {
		w.look()
		sessions, used := 0, 0
		for _, n := range w.nodes {
			sessions += n.active
			t := n.ledger.Totals(w.clock())
			if n.active > 0 {
				used++
			}
			switch {
			case n.gone && (n.active > 0 || t.Leases > 0):
				disturbed++
			case n.gone || n.idle < 0 || w.now-n.idle < idle:
			case t.State == capacity.Draining:
				if n.active == 0 && t.Leases == 0 {
					n.gone = true
					released++
				}
			default:
				n.ledger.SetDraining(true)
				w.publish(n)
			}
		}
		least := int(float64(sessions)/full) + 1
		if since := w.now - start; since > 4*holding { // the network has filled up
			if since <= high || since >= settled {
				ratios = append(ratios, float64(used)/float64(least))
			} else {
				falling = append(falling, float64(used)/float64(least))
			}
			if int(since.Seconds())%15 == 0 {
				row.Series = append(row.Series, Point{since.Seconds(), float64(used)})
			}
		}
	})
	w.run(start + lasts)
	series := row.Series
	row = s.row(w, "pack", "load falls from 60 to 20 %", Weir, lasts.Seconds())
	row.InUse, row.Falling, row.Released, row.Disturbed, row.Series = mean(ratios), mean(falling), released, disturbed, series
	s.add(row)
	s.aim("pack", "nodes in use ≤ 1.15 × the bin-packing bound while load is steady", row.InUse <= 1.15, "%.2f ×; %.2f × while it falls, as nobody is moved", row.InUse, row.Falling)
	s.aim("pack", "every released node was empty", disturbed == 0 && released > 0, "%d of %d were not", disturbed, released)
	s.aim("pack", "none refused", row.Blocked == 0, "%.2f %%", 100*row.Blocked)
}

// liars: one node in twenty claims ten times its capacity, and accepts all
// viewers.
func (s *stage) liars() {
	for _, c := range []struct {
		name    string
		hearsay bool
		who     string
	}{{"doubts are shared", true, Weir}, {"every seeker for itself", false, Weir}, {"", false, Central}, {"", false, Incremental}, {"", false, TwoChoices}, {"", false, Random}} {
		s.Progress("liars", c.who+" "+c.name)
		w, series, ratio := s.runLiars(c.who, c.hearsay, cmp.Or(s.Nodes, 200))
		r := s.row(w, "liars", c.name, c.who, liarsLast.Seconds())
		r.Series, r.FairShare = series, ratio
		s.add(r)
		if c.who == Weir && c.hearsay {
			s.aim("liars", "≤ 1.33 × their fair share within 2 min", ratio <= 1.33, "%.2f ×", ratio)
		}
	}
}

const (
	liarsLast  = 4 * time.Minute
	liarsTime  = 2 * time.Minute // time to detect them
	probeEvery = 5 * time.Second // interval at which a viewer, or a link, measures what arrives
)

// runLiars also returns the time series of the liars' share of sessions, over
// their share of capacity, and its mean after liarsTime.
func (s *stage) runLiars(who string, hearsay bool, nodes int) (*world, []Point, float64) {
	const holding = 2 * time.Minute
	w := s.world(plan{regions: 2, nodes: nodes, liars: nodes / 20, kinds: []int{50}, fresh: product, policy: policy.Default(), hearsay: hearsay, late: placesByWeir(who)})
	w.fill(0.75, holding)
	rate := 0.75 * float64(w.usable()) / holding.Seconds()
	until := w.now + liarsLast
	begun := w.now
	w.feedback = true
	w.arrivals(rate, 0, until, func(n *node) { w.view(who, n, w.watching(holding)) })
	w.begin()
	var series []Point
	var late []float64
	w.every(time.Second, until, func() {
		w.look()
		var theirs, honest, liars float64
		for _, n := range w.nodes {
			if n.claims > 1 {
				theirs += float64(n.active)
				liars++
			} else {
				honest += float64(n.active)
			}
		}
		ratio := theirs / liars / (honest / (float64(len(w.nodes)) - liars))
		since := w.now - begun
		if int(since.Seconds())%4 == 0 {
			series = append(series, Point{since.Seconds(), ratio})
		}
		if since >= liarsTime {
			late = append(late, ratio)
		}
	})
	w.run(until)
	return w, series, slices.Max(late)
}

// watchDelivery has seeker measure, during a session, what target delivers of
// what it should.
func (w *world) watchDelivery(seeker, target *node, lasts time.Duration) {
	end := w.now + lasts
	var look func()
	look = func() {
		if delivered := float64(target.effective()) / float64(max(1, target.active)); delivered < 1 {
			seeker.reputation.FellShort(w.clock(), target.id, holder.ClaimAccuracy(target.record.Stress(), delivered))
		}
		if w.now+probeEvery < end {
			w.after(probeEvery, look)
		}
	}
	if probeEvery < lasts {
		w.after(probeEvery, look)
	}
}

// scale: up to 100,000 nodes at 85 %, and 30 % further demand in one region.
func (s *stage) scale() {
	sizes := []int{1_000, 10_000, 100_000}
	if s.Nodes > 0 {
		sizes = []int{s.Nodes}
	}
	var rows []Row
	for _, n := range sizes {
		// For large networks a shorter run is enough, with longer sessions.
		c := steadyCase{fresh: product, kinds: []int{20, 40, 80}, holding: 10 * time.Minute, nodes: n, load: 0.8, bias: 0.3, warm: 15 * time.Second, lasts: 15 * time.Second}
		if n > 20_000 {
			c.holding, c.kinds, c.warm, c.lasts = 30*time.Minute, []int{8, 16, 32}, 8*time.Second, 8*time.Second
		}
		for _, who := range []string{Weir, Random, TwoChoices, Incremental, Jitsi, LiveKit} {
			if n > 20_000 && (who == Incremental || who == Jitsi) {
				continue // a central scheduler checks every node for every viewer
			}
			s.Progress("scale", fmt.Sprintf("%s, %d nodes", who, n))
			w := s.runSteady(c, who)
			r := s.row(w, "scale", "30 % further demand in one region", who, c.lasts.Seconds())
			if who == Weir {
				r.Regret, r.CPU = w.regret(100), w.decisionTime(50)
			}
			s.add(r)
			if who == Weir {
				rows = append(rows, r)
			}
		}
	}
	for _, r := range rows {
		s.aim("scale", fmt.Sprintf("%d nodes: blocked ≤ 0.1 %%", r.Nodes), r.Blocked <= 0.001, "%.3f %%", 100*r.Blocked)
	}
	if len(rows) > 1 {
		a, b := rows[0], rows[len(rows)-1]
		s.aim("scale", "messages and bytes per selection flat in n (≤ 1.2 ×)", b.Messages <= 1.2*a.Messages && b.Bytes <= 1.2*a.Bytes,
			"%.1f to %.1f messages, %.0f to %.0f bytes", a.Messages, b.Messages, a.Bytes, b.Bytes)
	}
}

// regret is the difference between the score of the best of a thousand nodes in
// the seeker's region, and the score of nodes that weir would choose now, both
// computed from the nodes' true state.
func (w *world) regret(decisions int) float64 {
	w.counting = false
	sum, counted := 0.0, 0
	for range decisions {
		seeker := w.ingress(0)
		me := capacity.Record{Node: seeker.id, Region: seeker.in.label, Coordinate: seeker.coord}
		w.place(seeker, viewerNeed, func(p *placing, n *node) {
			if n == nil {
				return
			}
			candidates := []policy.Candidate{{Record: w.sample(n), RTT: seeker.rtt(n), Trust: 1}}
			for range 1_000 {
				other := seeker.in.nodes[w.rnd.IntN(len(seeker.in.nodes))]
				candidates = append(candidates, policy.Candidate{Record: w.sample(other), RTT: seeker.rtt(other), Trust: 1})
			}
			passed := w.judge.Rank(viewerNeed, me, candidates).Passed
			i := slices.IndexFunc(passed, func(v policy.Evaluation) bool { return v.Record.Node == n.id })
			if i >= 0 {
				sum += passed[0].Score - passed[i].Score
				counted++
			}
			n.ledger.Release(seeker.id, p.id)
		})
		w.run(w.now + time.Second)
	}
	return sum / float64(max(1, counted))
}

// decisionTime is the real time of a placement's decisions, in µs: ranking at
// two holders, and the final choice.
func (w *world) decisionTime(decisions int) float64 {
	began := time.Now()
	for range decisions {
		seeker := w.ingress(0)
		p := w.newPlacing(seeker, viewerNeed, nil)
		p.exclude = []peer.ID{seeker.id}
		for _, h := range seeker.nearestHolders(seeker.home)[:holder.QueryFirst] {
			offers, _ := p.offersOf(w.byID[h], seeker.home, place.OfferLimit)
			for _, o := range offers {
				place.Merge(p.offers, o)
			}
		}
		p.order()
	}
	return float64(time.Since(began).Microseconds()) / float64(decisions)
}
