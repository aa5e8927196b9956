package sim

import (
	"testing"
	"time"

	"weir/capacity/policy"
)

func TestHotAndCold(t *testing.T) {
	seen := []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7} // the quantile is 0.6
	a, b := &node{}, &node{}
	for name, c := range map[string]struct {
		a, b probe
		want *node
	}{
		"the quicker of two cold ones, whatever their load": {probe{of: a, load: 0.5, latency: 10}, probe{of: b, load: 0.1, latency: 20}, a},
		"a slow cold one before a quick hot one":            {probe{of: a, load: 0.7, latency: 10}, probe{of: b, load: 0.6, latency: 900}, b},
		"the less loaded of two hot ones":                   {probe{of: a, load: 0.8, latency: 10}, probe{of: b, load: 0.7, latency: 900}, b},
	} {
		p := &prober{loads: seen}
		got := c.a
		if p.better(c.b, c.a) < 0 {
			got = c.b
		}
		if got.of != c.want {
			t.Errorf("%s: the other was taken", name)
		}
	}
	full := &prober{loads: []float64{0.9, 0.9, 0.9}}
	if full.better(probe{load: 0.89, latency: 1}, probe{load: 0.5, latency: time.Second}) < 0 {
		t.Error("a node without room counts as cold where most have none")
	}
}

// An answer is used as often as allowed, its load is raised by each use, and it
// expires after a second.
func TestPool(t *testing.T) {
	w := testStage().world(plan{seed: 1, regions: 1, nodes: 40, kinds: []int{50}, fresh: product, policy: policy.Default()})
	s := w.nodes[0]
	p := s.in.prober
	for _, n := range w.nodes[1:11] {
		p.put(w, w.probeNow(s, n))
	}
	if len(p.pool) != 10 {
		t.Fatalf("%d in the pool, want 10", len(p.pool))
	}
	again := w.probeNow(s, w.nodes[1])
	if p.put(w, again); len(p.pool) != 10 || p.pool[9].of != w.nodes[1] {
		t.Errorf("asked again it stands twice, or where it stood: %d", len(p.pool))
	}
	for i := range p.pool {
		p.pool[i].uses = 1
	}
	chosen := w.fromPool(s, nil)
	if next := w.fromPool(s, nil); next == chosen {
		t.Error("an answer is used more often than it may be")
	}
	w.now += 2 * probeLives
	w.fromPool(s, nil)
	if len(p.pool) != 0 {
		t.Errorf("%d old answers are in the pool", len(p.pool))
	}
	for _, n := range w.nodes {
		p.put(w, w.probeNow(s, n))
	}
	if len(p.pool) != poolSize {
		t.Errorf("%d in the pool, want %d", len(p.pool), poolSize)
	}
}

func TestIdleNodesJoinOnce(t *testing.T) {
	w := testStage().world(plan{seed: 1, regions: 1, nodes: 10, kinds: []int{20}, fresh: product, policy: policy.Default()})
	r := w.regions[0]
	if len(r.idle) != 10 {
		t.Fatalf("%d of 10 idle nodes are in the queue", len(r.idle))
	}
	first := r.idle[0]
	w.idles(first)
	if len(r.idle) != 10 {
		t.Error("it joined twice")
	}
	if got := w.nextIdle(w.nodes[0], nil); got != first || len(r.idle) != 9 || first.queued {
		t.Errorf("node %d was taken, want %d; %d left", got.index, first.index, len(r.idle))
	}
	first.active = 20
	if w.idles(first); len(r.idle) != 9 {
		t.Error("a full node joined")
	}
}

// The rule of atm0s's gateway uses whole percents only, and no other zone while
// its own has a node.
func TestFirstOfZone(t *testing.T) {
	w := testStage().world(plan{seed: 1, regions: 2, nodes: 6, kinds: []int{100}, fresh: product, policy: policy.Default()})
	s := w.nodes[0]
	for _, n := range s.in.nodes {
		n.record.Uplink.Used = n.record.Uplink.Limit / 2
	}
	s.in.nodes[1].record.Uplink.Used -= n1percent(s.in.nodes[1]) / 2
	if got := w.firstOfZone(s, nil); got != s.in.nodes[1] {
		t.Errorf("node %d was taken, want the least used of the zone", got.index)
	}
	if got := w.firstOfZone(s, s.in.nodes); got == nil || got.in == s.in {
		t.Error("no other zone was tried when everybody in one's own had been")
	}
}

func n1percent(n *node) int64 { return n.record.Uplink.Limit / 100 }

// Nodes that silently lose half of their capacity get their full share of
// viewers from systems that measure nothing, and fewer from weir, whose viewers
// report delivery.
func TestAntagonist(t *testing.T) {
	s := testStage()
	sent := func(who string) float64 {
		w := s.runAntagonist(who, 60)
		return share(w.degraded, w.reached)
	}
	centre, weir, prequal := sent(Incremental), sent(Weir), sent(PrequalPool)
	t.Logf("sent to degraded nodes: weir %.3f, centre %.3f, Prequal %.3f", weir, centre, prequal)
	if centre < 0.05 {
		t.Errorf("a centre that knows nothing of it sends %.3f there: they are not degraded", centre)
	}
	if weir >= centre || prequal >= centre {
		t.Errorf("weir %.3f, Prequal %.3f, and a centre that knows nothing %.3f", weir, prequal, centre)
	}
}

// A node that has lost half of its CPU is found out by its own delay, without
// which its records make it look like the emptiest.
func TestAntagonistIsSparedForItsDelay(t *testing.T) {
	sent := make(map[string]float64)
	for _, who := range []string{Weir, Incremental} {
		w := testStage().runAntagonist(who, 40)
		sent[who] = share(w.degraded, w.reached)
		if w.reached < 100 {
			t.Fatalf("%s placed only %d", who, w.reached)
		}
	}
	if sent[Weir] > 0.001 || sent[Incremental] < 0.05 {
		t.Errorf("sent to nodes that are too late: by weir %.3f, by a centre that does not ask them %.3f", sent[Weir], sent[Incremental])
	}
}
