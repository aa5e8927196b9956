package e2e

import (
	"os/exec"
	"runtime"
	"testing"

	"weir/capacity"
)

// What other programs do with the CPU is no load of a node: it takes its first
// client, and a second, beside as many busy loops as there are cores.
func TestBusyMachineIsNoLoad(t *testing.T) {
	w := up(t, 1, nil)
	for range runtime.NumCPU() {
		loop := exec.Command("sh", "-c", "while :; do :; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = loop.Process.Kill()
			_ = loop.Wait()
		})
	}
	type status struct {
		State  capacity.State
		Uptime int64 `json:"uptime_ms"`
		Record struct{ CPU float64 }
	}
	began := ask[status](t, w.n(1), "/status").Uptime
	eventually(t, "the meter has seen the machine as it is now", func() bool {
		return ask[status](t, w.n(1), "/status").Uptime > began+2000
	})
	publish(t, w.n(1).whip("demo"))
	flows(t, view(t, w.n(1).whep("demo")))
	if s := ask[status](t, w.n(1), "/status"); s.State != capacity.Active || s.Record.CPU > 0.8 {
		t.Errorf("beside busy loops the node is %s with %.0f %% of the CPU", s.State, 100*s.Record.CPU)
	}
}
