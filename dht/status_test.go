package dht

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
	"weir/dht/dhttest"
	"weir/dht/directory"
)

// Peers report how much they hold, their clock and how sure they are of their
// place.
func TestPeersTellOfThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const ahead = 42 * time.Second
		made := 0
		nodes := newTestNetworkOf(t, 3, func(int, *testNode) {}, func(c *Config) {
			if made++; made == 2 {
				c.ClockOffset = ahead
			}
		})
		dhttest.Eventually(t, func() error {
			list := nodes[0].Prober.Peers()
			if len(list) != 2 {
				return fmt.Errorf("%d peers", len(list))
			}
			for _, p := range list {
				want := 0.0
				if p.ID == nodes[1].ID() {
					want = float64(ahead.Milliseconds())
				}
				switch {
				case p.Told.IsZero():
					return fmt.Errorf("%s has not been asked", p.ID)
				case !p.Member || !p.Connected || p.Discovery != directory.Kademlia || p.RTT == 0 || p.CoordinateError == 0:
					return fmt.Errorf("%+v", p)
				case p.Holds < 3 || p.HoldsTopics == 0:
					return fmt.Errorf("%s holds %d records in %d topics", p.ID, p.Holds, p.HoldsTopics)
				case math.Abs(p.ClockOffset-want) > 1_000:
					return fmt.Errorf("the clock of %s is off by %v ms, want %v", p.ID, p.ClockOffset, want)
				}
			}
			if n := nodes[0].Prober.Of(nodes[1].ID()); !n.Timed {
				return errors.New("no clock")
			}
			return nil
		})
	})
}
