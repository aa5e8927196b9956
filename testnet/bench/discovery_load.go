package bench

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/testnet/lab"
)

const (
	loadStep = 250 * time.Millisecond
	// A node's load changes by loadWander of its limit per step and, every
	// loadJump on average, jumps to a value between loadLeast and loadMost.
	loadWander = 0.008
	loadJump   = 20 * time.Second
	loadLeast  = 0.40
	loadMost   = 1.00
	// stay is the mean duration of a placed session; an unused lease ends after
	// ten seconds by itself.
	stay = 2 * time.Second

	uplinkLimit  = 1e9     // bit/s, the lab's default
	packetsLimit = 150_000 // packets/s
)

// A wander is the load of one node over time: the same for the same seed and
// node, in every mode.
type wander struct {
	rnd   *rand.Rand
	share float64
}

func newWander(seed uint64, node int) *wander {
	w := &wander{rnd: rand.New(rand.NewPCG(seed^0x6c6f6164, uint64(node)))}
	w.jump()
	return w
}

func (w *wander) jump() { w.share = loadLeast + (loadMost-loadLeast)*w.rnd.Float64() }

// next is the load one step later.
func (w *wander) next() ledger.Load {
	if w.rnd.Float64() < float64(loadStep)/float64(loadJump) {
		w.jump()
	} else {
		w.share += loadWander * w.rnd.NormFloat64()
	}
	w.share = min(max(w.share, loadLeast), loadMost)
	return ledger.Load{Uplink: int64(w.share * uplinkLimit), Packets: int64(0.8 * w.share * packetsLimit), CPU: 0.7 * w.share, CPULimit: 0.8}
}

// A loader moves all nodes' load until its context ends.
type loader struct{ wg sync.WaitGroup }

func (l *loader) wait() { l.wg.Wait() }

func startLoad(ctx context.Context, nodes []*lab.Node, seed uint64) *loader {
	l := &loader{}
	wanders := make([]*wander, len(nodes))
	for i := range nodes {
		wanders[i] = newWander(seed, i)
		nodes[i].SetLoad(wanders[i].next())
	}
	l.wg.Go(func() {
		tick := time.NewTicker(loadStep)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			for i, n := range nodes {
				n.SetLoad(wanders[i].next())
			}
		}
	})
	return l
}

// A plan is the seekers, times and needs of the selections: the same for the
// same seed.
type plan struct {
	rnd  *rand.Rand
	rate float64
	size int
}

func newPlan(cfg DiscoveryConfig, size int) *plan {
	return &plan{rnd: rand.New(rand.NewPCG(cfg.Seed^0x706c616e, 0)), rate: cfg.Rate, size: size}
}

// A planned is one selection to come.
type planned struct {
	after  time.Duration // after the previous one
	seeker int
	need   capacity.Need
	stay   time.Duration
}

func (p *plan) next() planned {
	uplink := []int64{5e6, 10e6, 20e6, 40e6}[p.rnd.IntN(4)]
	return planned{
		after:  time.Duration(p.rnd.ExpFloat64() / p.rate * float64(time.Second)),
		seeker: p.rnd.IntN(p.size),
		need:   capacity.Need{Purpose: capacity.View, Uplink: uplink, Packets: uplink / 8_000},
		stay:   time.Duration(min(p.rnd.ExpFloat64(), 4) * float64(stay)),
	}
}

// A truth knows every node's state at every instant, and the policy's result
// for it.
type truth struct {
	nodes    []*lab.Node
	compiled *policy.Compiled // the policy
	scorer   *policy.Compiled // its score alone, also for full nodes
	keep     int
}

func newTruth(nodes []*lab.Node, seed uint64) (*truth, error) {
	p := policy.Default()
	compiled, err := policy.Compile(p)
	if err != nil {
		return nil, err
	}
	t := &truth{nodes: nodes, compiled: compiled, keep: p.Keep}
	p.Filter = nil
	t.scorer, err = policy.Compile(p)
	return t, err
}

// An insight is the truth for a seeker at one instant.
type insight struct {
	seeker int
	scores map[int]float64 // of every live node but the seeker
	stress map[int]float64
	best   float64 // score of the best node that the policy accepts; NaN: none
	drawn  float64 // regret of drawing two by the policy and taking the nearer
	random float64 // mean regret of the accepted nodes
}

func (t *truth) look(seeker *lab.Node, need capacity.Need, rnd *rand.Rand) insight {
	in := insight{scores: make(map[int]float64), stress: make(map[int]float64), best: math.NaN()}
	var all []policy.Candidate
	index := make(map[string]int, len(t.nodes))
	for _, n := range t.nodes {
		if n == seeker || n.Dead() {
			continue
		}
		r := n.Record()
		in.stress[n.Index] = r.Stress()
		index[string(n.ID())] = n.Index
		all = append(all, policy.Candidate{Record: r, RTT: seeker.RTT(n), Trust: 1})
	}
	me := seeker.Record()
	for _, v := range t.scorer.Rank(need, me, all).Passed {
		in.scores[index[string(v.Record.Node)]] = v.Score
	}
	passed := t.compiled.Rank(need, me, all)
	if len(passed.Passed) == 0 {
		return in
	}
	in.best = passed.Passed[0].Score
	for _, v := range passed.Passed {
		in.random += (in.best - v.Score) / float64(len(passed.Passed))
	}
	drawn := passed.Draw(2, t.keep, rnd)
	nearer := slices.MinFunc(drawn, func(a, b policy.Evaluation) int { return cmp.Compare(a.RTT, b.RTT) })
	in.drawn = in.best - nearer.Score
	return in
}

// publishing is how often a node publishes under this load, per second, and the
// shares that holders have to confirm and get whole, by the rules of package
// dht: a record is sent when the load has changed by a twentieth. It is
// confirmed when it is whole or says that the node is full, or no longer, and
// every [holder.ConfirmEvery].
func publishing(seed uint64) (rate, confirmed, whole float64) {
	const (
		nodes, steps = 100, 4_800
		gap, keep    = int(holder.PublishGap / loadStep), int(holder.Keepalive / loadStep)
		acked, base  = int(holder.ConfirmEvery / loadStep), int(holder.WholeEvery / loadStep)
		moved        = 0.05
	)
	records, acks, wholes := 0, 0, 0
	for node := range nodes {
		w := newWander(seed, node)
		full, toldFull := capacity.Hysteresis{}, false
		last, told, ack, rebased := -keep, 0.0, -acked, -base
		for step := range steps {
			w.next()
			isFull := full.Next(w.share)
			if since := step - last; since < gap || since < keep && math.Abs(w.share-told) < moved && isFull == toldFull {
				continue
			}
			records++
			whole := step-rebased >= base
			if whole {
				wholes++
				rebased = step
			}
			if whole || step-ack >= acked || isFull != toldFull {
				acks++
				ack = step
			}
			last, told, toldFull = step, w.share, isFull
		}
	}
	n := float64(records)
	return n / (nodes * steps * loadStep.Seconds()), float64(acks) / n, float64(wholes) / n
}
