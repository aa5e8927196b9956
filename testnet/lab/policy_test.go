package lab

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht"
	"weir/dht/dhttest"
)

// A policy reaches all of fifty distant nodes within two seconds.
func TestPolicyReachesEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("runs 50 nodes for some seconds")
		}
		const nodes, aim = 50, 2 * time.Second
		operator := dhttest.Key(t)
		id := dhttest.ID(t, operator)
		var mu sync.Mutex
		applied := make(map[uint64][]time.Time)
		l := up(t, Config{Nodes: nodes, Seed: 21, Change: func(_ int, cfg *dht.Config) {
			cfg.Operator = id
			cfg.Apply = func(p signed.Policy, _ []byte) error {
				mu.Lock()
				defer mu.Unlock()
				applied[p.Version] = append(applied[p.Version], time.Now())
				return nil
			}
		}})
		steady(t, l)
		text, err := policy.Default().Text()
		if err != nil {
			t.Fatal(err)
		}
		for version := uint64(1); version <= 5; version++ {
			sealed, err := signed.SealPolicy("p", text, version, time.Now(), operator)
			if err != nil {
				t.Fatal(err)
			}
			pushed := time.Now()
			if _, err := l.Nodes()[version*7].Policies.Push(sealed); err != nil {
				t.Fatal(err)
			}
			dhttest.Eventually(t, func() error {
				mu.Lock()
				defer mu.Unlock()
				if got := len(applied[version]); got < nodes {
					return fmt.Errorf("version %d: %d of %d nodes", version, got, nodes)
				}
				return nil
			})
			mu.Lock()
			times := applied[version]
			mu.Unlock()
			slices.SortFunc(times, time.Time.Compare)
			last := times[nodes-1].Sub(pushed)
			t.Logf("version %d: half have it after %v, all after %v", version, times[nodes/2].Sub(pushed).Round(time.Millisecond), last.Round(time.Millisecond))
			if len(times) != nodes {
				t.Errorf("version %d: applied %d times, want %d", version, len(times), nodes)
			}
			within(t, fmt.Sprintf("version %d is everywhere after", version), last, aim)
		}
	})
}
