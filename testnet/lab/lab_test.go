package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/dht"
	"weir/dht/dhttest"
	"weir/dht/dhttest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var need = capacity.Need{Purpose: capacity.View, Uplink: 20e6, Packets: 3_000}

func up(t testing.TB, cfg Config) *Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := Up(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

// place has n place a session within a second, and returns the chosen node.
func place(t testing.TB, l *Lab, n *Node) (*Node, error) { return placeWithin(t, l, n, time.Second) }

func placeWithin(t testing.TB, l *Lab, n *Node, limit time.Duration) (*Node, error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	placed, _, err := n.Seeker.Place(ctx, dht.CapacityTopic(), need, nil)
	if err != nil {
		return nil, err
	}
	for _, m := range l.Nodes() {
		if m.ID() == placed.Candidate.Record.Node {
			return m, nil
		}
	}
	return nil, fmt.Errorf("placed on %s, which is no node of the lab", placed.Candidate.Record.Node)
}

func TestGeography(t *testing.T) {
	const n = 200
	g := NewGeography(7, 4, 100*time.Millisecond)
	var sum, within, pairs, near float64
	for i := range n {
		for j := range i {
			a, b := g.Place(i), g.Place(j)
			rtt := 2 * a.OneWay(b).Seconds() * 1000
			sum += rtt
			pairs++
			if a.Region == b.Region {
				within += rtt
				near++
			}
		}
	}
	if mean := sum / pairs; math.Abs(mean-100) > 5 {
		t.Errorf("mean round trip %.1f ms, want 100", mean)
	}
	if within/near > 40 {
		t.Errorf("mean round trip within a region %.1f ms: regions are no regions", within/near)
	}
	if g.Place(5) != NewGeography(7, 4, 100*time.Millisecond).Place(5) {
		t.Error("the same seed puts node 5 elsewhere")
	}
	if g.Place(5) == NewGeography(8, 4, 100*time.Millisecond).Place(5) {
		t.Error("another seed puts node 5 in the same place")
	}
}

// Nodes find and reserve on each other over paths with the map's delays, and
// the wire counts the packets for that.
func TestNodesPlaceOnEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := up(t, Config{Nodes: 5, Seed: 1})
		nodes := l.Nodes()
		nodes[1].SetLoad(ledger.Load{Uplink: 95e7})
		for _, n := range nodes {
			dhttest.Eventually(t, func() error {
				on, err := place(t, l, n)
				if err == nil && on == nodes[1] {
					return errors.New("placed on a node without room")
				}
				return err
			})
		}
		a, b := nodes[0], nodes[3]
		conns := a.Overlay.Host.Network().ConnsToPeer(b.ID())
		if len(conns) == 0 {
			t.Fatal("two nodes of five are not connected")
		}
		dhttest.Eventually(t, func() error { // a call beside other work took longer
			for _, p := range a.Prober.Peers() {
				if p.ID != b.ID() {
					continue
				}
				if want := a.RTT(b).Seconds() * 1000; p.RTT < want || p.RTT > 1.5*want+5 {
					return fmt.Errorf("measured a round trip of %.1f ms, the map says %.1f", p.RTT, want)
				}
				return nil
			}
			return errors.New("peer not listed")
		})
		if c := a.Wire(); c.PacketsIn < 10 || c.PacketsOut < 10 || c.BytesOut < 28*c.PacketsOut {
			t.Errorf("counted %+v", c)
		}
	})
}

// A paused node does not answer, a killed one never again, and selections
// succeed without them.
func TestPauseAndKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := up(t, Config{Nodes: 6, Seed: 2, RTT: 40 * time.Millisecond})
		nodes := l.Nodes()
		seeker := nodes[5]
		dhttest.Eventually(t, func() error { _, err := place(t, l, seeker); return err })
		nodes[0].Pause()
		nodes[1].Kill()
		before := nodes[0].Wire()
		dhttest.Eventually(t, func() error {
			for range 3 {
				on, err := place(t, l, seeker)
				if err != nil {
					return err
				}
				if on == nodes[0] || on == nodes[1] {
					t.Fatalf("placed on node %d, which is cut off", on.Index)
				}
			}
			return nil
		})
		if got := nodes[0].Wire().Sub(before); got != (wire.Counters{}) {
			t.Errorf("a paused node exchanged %+v", got)
		}
		if !nodes[1].Dead() || nodes[0].Dead() {
			t.Error("Dead is true of the wrong nodes")
		}
		nodes[0].Resume()
		dhttest.Eventually(t, func() error { _, err := place(t, l, nodes[0]); return err })
	})
}

// Two halves of a network choose nodes among themselves until they are joined
// again. A node that joins later is chosen too.
func TestPartitionAndGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := up(t, Config{Nodes: 6, Seed: 3, RTT: 20 * time.Millisecond})
		half := func(n *Node) int { return n.Index % 2 }
		l.Partition(half)
		for _, n := range l.Nodes() {
			dhttest.Eventually(t, func() error {
				on, err := place(t, l, n)
				if err == nil && half(on) != half(n) {
					t.Fatalf("node %d placed on node %d across the gap", n.Index, on.Index)
				}
				return err
			})
		}
		l.Heal()
		ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
		defer cancel()
		late, err := l.Start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes() {
			if n != late {
				n.SetLoad(ledger.Load{Uplink: 95e7})
			}
		}
		dhttest.Eventually(t, func() error {
			on, err := place(t, l, l.Nodes()[0])
			if err == nil && on != late {
				return fmt.Errorf("placed on node %d, which is full", on.Index)
			}
			return err
		})
		if err := late.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
}

func TestUpTellsWhatIsWrong(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no nodes":        {},
		"everything lost": {Nodes: 2, Loss: 1},
		"no regions":      {Nodes: 2, Regions: -1},
	} {
		if l, err := Up(t.Context(), cfg); err == nil {
			l.Close()
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Up(ctx, Config{Nodes: 3, Seed: 4}); !errors.Is(err, context.Canceled) {
		t.Errorf("Up with a context that has ended: %v", err)
	}
}

// A hundred nodes start on one machine.
func BenchmarkUp(b *testing.B) {
	for b.Loop() {
		start := time.Now()
		l := up(b, Config{Nodes: 100, Seed: 5})
		b.ReportMetric(time.Since(start).Seconds(), "s-to-ready")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-heap")
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
