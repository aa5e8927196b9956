package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
	"weir/dht/dhttest"
	"weir/dht/inspect"
	"weir/dht/naming"
)

// In a network too large for every node to know all others, each node finds the
// publisher of a stream at the first try, even if it has not asked for the
// stream before.
func TestNamesAreKnownEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 60 nodes for some seconds")
		}
		const nodes, streams = 60, 20
		var mu sync.Mutex
		carried := make([][]capacity.StreamInfo, nodes)
		l := up(t, Config{Nodes: nodes, Seed: 23, Change: func(i int, cfg *dht.Config) {
			sample := cfg.Sample
			cfg.Sample = func() (capacity.Record, []capacity.StreamInfo) {
				mu.Lock()
				defer mu.Unlock()
				r, _ := sample()
				return r, carried[i]
			}
		}})
		steady(t, l)
		name := func(i int) string { return fmt.Sprintf("stream%d", i) }
		for i, n := range l.Nodes()[:streams] {
			mu.Lock()
			carried[i] = []capacity.StreamInfo{{Stream: name(i), Origin: true, Path: []peer.ID{n.ID()}}}
			mu.Unlock()
			n.Publisher.Kick()
		}
		for i, n := range l.Nodes()[:streams] {
			dhttest.Eventually(t, func() error {
				copies, err := n.Reader.Snapshot(t.Context(), dht.StreamTopic(name(i)))
				if err == nil && len(copies) < 6 {
					err = fmt.Errorf("%s is held by %d nodes", name(i), len(copies))
				}
				return err
			})
		}
		var (
			free, taken []time.Duration
			unknown     int
		)
		// A claimed name is never reported free, nor a free one claimed. On a slow
		// machine "unknown" is a valid answer: the node asks again.
		ask := func(asker *Node, stream string, want []peer.ID) time.Duration {
			began := time.Now()
			for range 10 {
				publishers, err := asker.Names.Publishers(t.Context(), stream, nil)
				if err == nil {
					var at []peer.ID
					for _, p := range publishers {
						at = append(at, p.Node)
					}
					if !slices.Equal(at, want) {
						t.Errorf("%s: published at %v, want %v; holders as who asked has them, and as they are: %s", stream, at, want, holders(l, asker, stream))
					}
					return time.Since(began)
				}
				t.Logf("asked again: %v", err)
				if !errors.Is(err, dht.ErrUnanswered) {
					t.Errorf("%s: %v", stream, err)
				}
				mu.Lock()
				unknown++
				mu.Unlock()
			}
			t.Errorf("%s: not known after %v", stream, time.Since(began))
			return time.Since(began)
		}
		var asking sync.WaitGroup
		for i := range streams {
			asking.Go(func() {
				for k := range 3 {
					asker := l.Nodes()[streams+(7*i+13*k)%(nodes-streams)]
					took := ask(asker, name(i), []peer.ID{l.Nodes()[i].ID()})
					missed := ask(asker, fmt.Sprintf("free%d-%d", i, k), nil)
					mu.Lock()
					taken, free = append(taken, took), append(free, missed)
					mu.Unlock()
				}
			})
		}
		asking.Wait()
		t.Logf("%d of %d questions had to be asked again", unknown, 2*3*streams)
		for what, took := range map[string][]time.Duration{"taken": taken, "free": free} {
			slices.Sort(took)
			t.Logf("%s: known after %v, at most %v", what, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		}
	})
}

// Of several nodes that claim one name at the same time, in a network too large
// for every node to know all others, one gets it, whatever the order.
func TestNameIsTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 24 nodes for some seconds")
		}
		const names = 12
		l := up(t, Config{Nodes: 24, Seed: 29})
		steady(t, l)
		var taking sync.WaitGroup
		for i := range names {
			taking.Go(func() {
				var got, refused, unknown atomic.Int64
				var same sync.WaitGroup
				for k := range 3 {
					same.Go(func() {
						_, err := l.Nodes()[(5*i+7*k)%24].Names.Claim(t.Context(), fmt.Sprint("same", i), nil)
						var taken *naming.Taken
						switch {
						case err == nil:
							got.Add(1)
						case errors.As(err, &taken):
							refused.Add(1)
						case errors.Is(err, dht.ErrUnanswered):
							unknown.Add(1)
						default:
							t.Error(err)
						}
					})
				}
				same.Wait()
				if got.Load() > 1 || got.Load() == 0 && unknown.Load() == 0 {
					t.Errorf("name %d: %d got it, %d were refused, to %d it is not known", i, got.Load(), refused.Load(), unknown.Load())
				}
			})
		}
		taking.Wait()
	})
}

// holders describes which of the nodes that asker takes for the holders of a
// stream have its record, and which other nodes do.
func holders(l *Lab, asker *Node, stream string) string {
	var has []string
	for _, n := range l.Nodes() {
		mark := ""
		if slices.Contains(asker.Holders(dht.StreamTopic(stream)), n.ID()) {
			mark = "asked "
		}
		if slices.ContainsFunc(n.Reader.Holdings(), func(t inspect.HeldTopic) bool { return t.Topic == dht.StreamTopic(stream) }) {
			mark += "has it"
		}
		if mark != "" {
			has = append(has, fmt.Sprintf("n%d %s", n.Index, strings.TrimSpace(mark)))
		}
	}
	return strings.Join(has, ", ")
}
