package lab

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
)

// In a network too large to know everybody in, whoever asks finds where a
// stream is published, at the first try, though the stream is new to it.
func TestNamesAreKnownEverywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("runs 60 nodes for some seconds")
	}
	const nodes, streams = 60, 20
	var mu sync.Mutex
	carried := make([][]capacity.Carriage, nodes)
	l := up(t, Config{Nodes: nodes, Seed: 23, Change: func(i int, cfg *dht.Config) {
		sample := cfg.Sample
		cfg.Sample = func() (capacity.Record, []capacity.Carriage) {
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
		carried[i] = []capacity.Carriage{{Stream: name(i), Origin: true, Path: []peer.ID{n.ID()}}}
		mu.Unlock()
		n.Kick()
	}
	for i, n := range l.Nodes()[:streams] {
		eventually(t, func() error {
			copies, err := n.Snapshot(t.Context(), dht.StreamTopic(name(i)))
			if err == nil && len(copies) < 6 {
				err = fmt.Errorf("%s is held by %d nodes", name(i), len(copies))
			}
			return err
		})
	}
	var free, taken []time.Duration
	ask := func(asker *Node, stream string) ([]peer.ID, time.Duration) {
		began := time.Now()
		at := asker.Publishers(t.Context(), stream)
		return at, time.Since(began)
	}
	var asking sync.WaitGroup
	for i := range streams {
		asking.Go(func() {
			for k := range 3 {
				asker := l.Nodes()[streams+(7*i+13*k)%(nodes-streams)]
				at, took := ask(asker, name(i))
				if want := []peer.ID{l.Nodes()[i].ID()}; !slices.Equal(at, want) {
					t.Errorf("%s: published at %v, want %v", name(i), at, want)
				}
				unused, missed := ask(asker, fmt.Sprintf("free%d-%d", i, k))
				if len(unused) > 0 {
					t.Errorf("a free name is published at %v", unused)
				}
				mu.Lock()
				taken, free = append(taken, took), append(free, missed)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	for what, took := range map[string][]time.Duration{"taken": taken, "free": free} {
		slices.Sort(took)
		t.Logf("%s: known after %v, at most %v", what, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
}
