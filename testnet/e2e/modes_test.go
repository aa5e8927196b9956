package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/dht/directory"
	"weir/testnet"
)

// In every discovery mode a full node redirects its publishers and viewers, and
// media flows.
func TestEveryModeOfDiscovery(t *testing.T) {
	for _, c := range []struct {
		discovery directory.Mode
		brokers   int
	}{{directory.Broker, 3}, {directory.Pull, 0}, {directory.Push, 0}} {
		t.Run(string(c.discovery), func(t *testing.T) {
			w := upWith(t, testnet.Config{N: 6, Discovery: c.discovery, Brokers: c.brokers, NodeFlags: only(6, "--session-limit", "1")})
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

			// An invalid list changes nothing, and is reported.
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

			// A holder is killed, and clients are not affected.
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
