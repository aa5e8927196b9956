package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/dht"
	"weir/dht/dhttest"
	"weir/dht/inspect"
)

const (
	// Aims, for links of 100 ms on average.
	selectionP99  = 500 * time.Millisecond // with 30 % of the nodes hung
	recoveryAim   = 5 * time.Second        // after all holders are gone
	selectionMost = 2 * time.Second        // limit of one selection
)

// A selection is one attempt to place a session.
type selection struct {
	by     *Node
	target *Node // nil: it failed
	began  time.Time
	took   time.Duration
	err    error
}

// A crowd has live nodes place sessions at a steady rate, each by another node,
// and release them.
type crowd struct {
	l    *Lab
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	list []selection
}

// gather starts a crowd. Nodes for which may is false do not seek.
func gather(l *Lab, every time.Duration, may func(*Node) bool) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{l: l, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			nodes := l.Nodes()
			n := nodes[(i*7)%len(nodes)]
			if n.Dead() || !ready(n) || !may(n) {
				continue
			}
			wg.Go(func() { c.seek(n) })
		}
	}()
	return c
}

func ready(n *Node) bool {
	select {
	case <-n.Ready():
		return true
	default:
		return false
	}
}

func (c *crowd) seek(n *Node) {
	ctx, cancel := context.WithTimeout(context.Background(), selectionMost)
	defer cancel()
	s := selection{by: n, began: time.Now()}
	placed, _, err := n.Seeker.Place(ctx, dht.CapacityTopic(), need, []peer.ID{n.ID()})
	s.took, s.err = time.Since(s.began), err
	if err == nil {
		for _, m := range c.l.Nodes() {
			if m.ID() == placed.Lease.Target {
				s.target = m
			}
		}
		n.Seeker.ReleaseLease(ctx, placed.Lease)
	}
	if n.Dead() {
		return // the node died meanwhile, and its result does not count
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, s)
}

// soFar returns the selections ended so far, by the time of their start.
func (c *crowd) soFar() []selection {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.list)
	slices.SortFunc(list, func(a, b selection) int { return a.began.Compare(b.began) })
	return list
}

// end stops the crowd and returns all selections.
func (c *crowd) end() []selection {
	c.stop()
	<-c.done
	return c.soFar()
}

// watchFor waits for d while the crowd goes on.
func watchFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// summary returns the failures in list, and the quantiles of the times.
func summary(list []selection) (failed []selection, p50, p99 time.Duration) {
	var times []time.Duration
	for _, s := range list {
		if s.err != nil {
			failed = append(failed, s)
			continue
		}
		times = append(times, s.took)
	}
	if len(times) == 0 {
		return failed, 0, 0
	}
	slices.Sort(times)
	return failed, times[len(times)/2], times[(len(times)-1)*99/100]
}

// report ends the crowd, logs the results and fails the test if a selection
// failed.
func (c *crowd) report(t *testing.T, what string) (list []selection, p99 time.Duration) {
	t.Helper()
	list = c.end()
	failed, p50, p99 := summary(list)
	t.Logf("%s: %d selections, %d failed, p50 %v, p99 %v", what, len(list), len(failed), p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if len(failed) > 0 {
		t.Errorf("%s: %d of %d selections failed; the first: %v", what, len(failed), len(list), failed[0].err)
	}
	if len(list) < 20 {
		t.Errorf("%s: only %d selections", what, len(list))
	}
	return list, p99
}

// within fails the test if took is more than aim.
func within(t *testing.T, what string, took, aim time.Duration) {
	t.Helper()
	if took > aim {
		t.Errorf("%s: %v, the aim is %v", what, took, aim)
	}
}

// everyone lets every node seek.
func everyone(*Node) bool { return true }

// steady waits until a node in each region can be found from everywhere.
func steady(t *testing.T, l *Lab) {
	t.Helper()
	for _, n := range l.Nodes() {
		dhttest.Eventually(t, func() error { _, err := placeWithin(t, l, n, 10*time.Second); return err })
	}
}

// some returns a random share of the nodes.
func some(l *Lab, share float64, seed uint64) []*Node {
	nodes := l.Nodes()
	rnd := rand.New(rand.NewPCG(seed, 0))
	rnd.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes[:int(share*float64(len(nodes)))]
}

// 30 % of the nodes hang, holders among them: no selection waits for them.
func TestThirtyPercentHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 30 nodes for half a minute")
		}
		l := up(t, Config{Nodes: 30, Seed: 11})
		steady(t, l)
		hung := some(l, 0.3, 1)
		for _, n := range hung {
			n.Pause()
		}
		c := gather(l, 50*time.Millisecond, func(n *Node) bool { return !slices.Contains(hung, n) })
		watchFor(t, 20*time.Second)
		list, p99 := c.report(t, "30 % hung")
		within(t, "p99", p99, selectionP99)
		for _, s := range list {
			if slices.Contains(hung, s.target) {
				t.Errorf("placed on a node that hangs")
			}
		}
		// They come back as if nothing had happened.
		for _, n := range hung {
			n.Resume()
		}
		for _, n := range hung {
			dhttest.Eventually(t, func() error { _, err := place(t, l, n); return err })
		}
	})
}

func TestThirtyPercentKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 30 nodes for half a minute")
		}
		l := up(t, Config{Nodes: 30, Seed: 12})
		steady(t, l)
		for _, n := range some(l, 0.3, 2) {
			n.Kill()
		}
		c := gather(l, 50*time.Millisecond, everyone)
		watchFor(t, 20*time.Second)
		list, p99 := c.report(t, "30 % killed")
		within(t, "p99", p99, selectionP99)
		for _, s := range list {
			if s.target != nil && s.target.Dead() {
				t.Error("placed on a dead node")
			}
		}
	})
}

// All holders of a key die at the same instant, with all records they held.
func TestAllHoldersKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 30 nodes for half a minute")
		}
		l := up(t, Config{Nodes: 30, Seed: 13})
		steady(t, l)
		seeker := l.Nodes()[4]
		var holders []peer.ID
		dhttest.Eventually(t, func() error { // the seeker has the nodes' own records
			holders = seeker.Holders(dht.CapacityTopic())
			for _, n := range l.Nodes() {
				if n.At.Region == seeker.At.Region && !slices.Equal(n.Holders(dht.CapacityTopic()), holders) {
					return fmt.Errorf("node %d knows other holders", n.Index)
				}
			}
			return nil
		})
		c := gather(l, 25*time.Millisecond, func(n *Node) bool { return n.At.Region == seeker.At.Region })
		died := time.Now()
		for _, n := range l.Nodes() {
			if slices.Contains(holders, n.ID()) {
				n.Kill()
			}
		}
		if len(holders) != 8 {
			t.Errorf("%d holders", len(holders))
		}
		watchFor(t, 3*recoveryAim)
		list := c.end()
		var last time.Time
		for _, s := range list {
			switch {
			case s.err != nil:
				last = s.began.Add(s.took)
			case s.target.Dead() && s.began.After(died):
				t.Error("placed on a dead node")
			}
		}
		recovered := max(0, last.Sub(died))
		failed, p50, p99 := summary(list)
		t.Logf("all 8 holders of a key killed at once: %d of %d selections failed, the last %v after; p50 %v, p99 %v",
			len(failed), len(list), recovered.Round(time.Millisecond), p50.Round(time.Millisecond), p99.Round(time.Millisecond))
		within(t, "selections fail for", recovered, recoveryAim)
	})
}

// Both halves of a partitioned network continue by themselves, and are one
// again soon after the partition heals.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 24 nodes for a minute")
		}
		l := up(t, Config{Nodes: 24, Seed: 14, Regions: 2})
		steady(t, l)
		half := func(n *Node) int { return n.Index / 2 % 2 } // both have nodes of both regions
		parted := time.Now()
		l.Partition(half)
		c := gather(l, 50*time.Millisecond, everyone)
		watchFor(t, 25*time.Second) // longer than a record lives: they forget each other
		list, _ := c.report(t, "parted in two halves")
		for _, s := range list {
			if s.target != nil && half(s.by) != half(s.target) {
				t.Error("placed across the partition")
			}
		}
		l.Heal()
		healed := time.Now()
		across := func(n *Node) error {
			var exclude []peer.ID
			for _, m := range l.Nodes() {
				if half(m) == half(n) {
					exclude = append(exclude, m.ID())
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), selectionMost)
			defer cancel()
			placed, _, err := n.Seeker.Place(ctx, dht.CapacityTopic(), need, exclude)
			if err == nil {
				n.Seeker.ReleaseLease(ctx, placed.Lease)
			}
			return err
		}
		for _, n := range l.Nodes() {
			dhttest.Eventually(t, func() error { return across(n) })
		}
		t.Logf("after %v of partition, every node is placed across again %v after it was healed",
			healed.Sub(parted).Round(time.Second), time.Since(healed).Round(100*time.Millisecond))
	})
}

// A node that starts while every bootstrap peer is down joins when one is back;
// nodes in the network do not need them.
func TestBootstrapPeersDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 12 nodes for half a minute")
		}
		l := up(t, Config{Nodes: 15, Seed: 15})
		steady(t, l)
		entrances := l.Nodes()[:bootstraps]
		for _, n := range entrances {
			n.Pause()
		}
		inside := l.Nodes()[bootstraps:]
		c := gather(l, 50*time.Millisecond, func(n *Node) bool { return slices.Contains(inside, n) })
		joined := make(chan error, 1)
		started := time.Now()
		go func() {
			_, err := l.Start(t.Context())
			joined <- err
		}()
		watchFor(t, 15*time.Second)
		c.report(t, "bootstrap peers down")
		entrances[1].Resume()
		select {
		case err := <-joined:
			if err != nil {
				t.Fatalf("the new node: %v", err)
			}
		case <-time.After(dhttest.Patience):
			t.Fatal("the new node does not get in though a bootstrap peer is back")
		}
		nodes := l.Nodes()
		newcomer := nodes[len(nodes)-1]
		dhttest.Eventually(t, func() error { _, err := place(t, l, newcomer); return err })
		t.Logf("in %v after its start", time.Since(started).Round(time.Second))
	})
}

// Clocks that are wrong by up to five minutes have no effect.
func TestClocksSkewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 20 nodes for some seconds")
		}
		const most = 5 * time.Minute
		l := up(t, Config{Nodes: 20, Seed: 16, Change: func(i int, cfg *dht.Config) {
			offset := time.Duration(i%5-2) * most / 2 // −5, −2.5, 0, 2.5, 5 minutes
			cfg.ClockOffset = offset
			grant := cfg.Grant
			cfg.Grant = func(r capacity.Request) (capacity.Lease, error) {
				lease, err := grant(r)
				lease.Expires = lease.Expires.Add(offset)
				return lease, err
			}
		}})
		steady(t, l)
		c := gather(l, 25*time.Millisecond, everyone)
		watchFor(t, 5*time.Second)
		list, p99 := c.report(t, "clocks ±5 min")
		within(t, "p99", p99, selectionP99)
		targets := make(map[int]bool)
		for _, s := range list {
			if s.target != nil {
				targets[s.target.Index%5] = true
			}
		}
		if len(targets) != 5 {
			t.Errorf("nodes of some clocks were never chosen: %v", targets)
		}
	})
}

// Nodes join and die without notice, at six times the rate of 10 % per minute.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 30 nodes for half a minute")
		}
		l := up(t, Config{Nodes: 30, Seed: 17})
		steady(t, l)
		c := gather(l, 50*time.Millisecond, everyone)
		const every = 20 * time.Second / 6
		var errs []error
		for i := range 6 {
			watchFor(t, every)
			l.Nodes()[bootstraps+i*4].Kill()
			if _, err := l.Start(t.Context()); err != nil {
				errs = append(errs, err)
			}
		}
		c.report(t, "churn of 60 % a minute")
		if err := errors.Join(errs...); err != nil {
			t.Errorf("newcomers: %v", err)
		}
	})
}

// Seekers elsewhere know of a jump in a node's load within half a second.
func TestJumpsAreSoonVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 20 nodes for half a minute")
		}
		const aim = 500 * time.Millisecond
		l := up(t, Config{Nodes: 20, Seed: 18, Limits: ledger.Limits{Uplink: 1e9}})
		steady(t, l)
		var times []time.Duration
		for i := range 24 {
			n := l.Nodes()[i%20]
			seeker := l.Nodes()[(i+4)%20] // of the same region
			load := int64(800e6)
			if i >= 20 {
				load = 100e6
			}
			watching, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
			seen := make(chan time.Time, 1)
			synced := make(chan struct{})
			go func() {
				_ = seeker.Reader.Watch(watching, dht.CapacityTopic(), func(c inspect.Change) error {
					switch {
					case c.Synced:
						close(synced)
					case c.Node == n.ID() && c.Err == nil && !c.Gone && c.Record.Uplink.Used == load:
						seen <- time.Now()
						return context.Canceled
					}
					return nil
				})
				close(seen)
			}()
			<-synced
			// The publishing rate allows one record per half second: this one is
			// the first.
			watchFor(t, 600*time.Millisecond)
			jumped := time.Now()
			n.SetLoad(ledger.Load{Uplink: load})
			at, ok := <-seen
			cancel()
			if !ok {
				t.Fatalf("the load of node %d never shows", n.Index)
			}
			times = append(times, at.Sub(jumped))
		}
		slices.Sort(times)
		t.Logf("jumps in load are seen after p50 %v, worst %v", times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
		within(t, "the last is seen after", times[len(times)-1], aim)
	})
}
