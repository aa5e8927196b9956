package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/dht"
	"weir/testnet"
)

// Whoever holds the records, a full node hands its publishers and viewers on,
// and media flows.
func TestEveryModeOfHolding(t *testing.T) {
	for _, c := range []struct {
		holding dht.Holding
		brokers int
	}{{dht.HoldCentral, 3}, {dht.HoldNone, 0}, {dht.HoldAll, 0}} {
		t.Run(string(c.holding), func(t *testing.T) {
			w := upWith(t, testnet.Config{N: 6, Holding: c.holding, Brokers: c.brokers, NodeFlags: only(6, "--session-limit", "1")})
			full := w.n(6)
			publish(t, full.whip("own"))
			v := view(t, full.whep("own"))
			if full.serves(v.NodeURL()) {
				t.Error("the full node serves the viewer itself")
			}
			flows(t, v)
			if p := publish(t, full.whip("other")); full.serves(p.NodeURL()) {
				t.Error("the full node took another publisher")
			}

			// A list with a fault in it changes nothing, and is complained of.
			list := filepath.Join(w.Dir(), "servers")
			good, err := os.ReadFile(list)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(list, append([]byte("nonsense\n"), good...), 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the fault is logged", func() bool {
				b, err := os.ReadFile(full.Log)
				return err == nil && strings.Contains(string(b), "servers:1:")
			})

			// One that others ask is killed, and nobody notices.
			dies := w.n(2)
			if dies.serves(v.NodeURL()) {
				dies = w.n(3)
			}
			if err := w.Kill(dies.Name); err != nil {
				t.Fatal(err)
			}
			var took []time.Duration
			for _, stream := range []string{"a", "b", "c", "d"} {
				began := time.Now()
				if p := publish(t, full.whip(stream)); full.serves(p.NodeURL()) {
					t.Error("the full node took a publisher")
				}
				took = append(took, time.Since(began))
			}
			inTime(t, "publishers beside a dead node", time.Second, took)
			flows(t, v)
		})
	}
}
