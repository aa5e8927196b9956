package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"weir/capacity"
	"weir/testnet"
)

// A process is one weir node that a test starts by itself, with no more flags
// than it wants.
type process struct {
	testnet.Node
	cmd *exec.Cmd
	log *syncBuffer
}

// runNode starts a node and waits until it is ready. It is killed at the end of
// the test, if not before.
func runNode(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	p := &process{cmd: exec.Command(weir, append([]string{"node", "--ready-file", ready}, args...)...), log: &syncBuffer{}}
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the log of weir node %s:\n%s", strings.Join(args, " "), p.log)
		}
	})
	eventually(t, "the node is ready", func() bool {
		b, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(b, &p.Node) == nil
	})
	return p
}

// kill ends the process without warning, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// A node with nothing but defaults starts, also beside another one, with every
// variable of ours set and empty; and two nodes that were killed find each other
// where they were.
func TestNodesWithDefaults(t *testing.T) {
	t.Parallel()
	var empty []string
	for _, v := range regexp.MustCompile(`\$(WEIR_[A-Z0-9_]+)`).FindAllStringSubmatch(cli(t, "node", "--help").out, -1) {
		empty = append(empty, v[1]+"=")
	}
	if len(empty) < 20 {
		t.Fatalf("help names %q only", empty)
	}
	dirs := [2]string{t.TempDir(), t.TempDir()}
	env := func(i int) []string { return append(slices.Clone(empty), "XDG_DATA_HOME="+dirs[i]) }

	a := runNode(t, env(0))
	var s struct{ Network string }
	if s = ask[struct{ Network string }](t, node{a.Node}, "/status"); s.Network != "open" {
		t.Errorf("WEIR_NETWORK= joined the network %q", s.Network)
	}
	join := []string{"--bootstrap", a.P2P[0], "--bootstrap", a.P2P[1]}
	b := runNode(t, env(1), join...)

	r := cli(t, "node", "--data-dir", filepath.Join(dirs[0], "weir"))
	if r.code != failure {
		t.Errorf("a second node on one data directory exits with %d", r.code)
	}
	says(t, r.errout, "--data-dir "+dirs[0], "in use by process ", "its own")

	eventually(t, "both remember each other", func() bool {
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, "weir", "peers.json")); err != nil {
				return false
			}
		}
		return true
	})
	a.kill()
	b.kill()
	b2 := runNode(t, env(1), join...)
	a2 := runNode(t, env(0))
	if !slices.Equal(a2.P2P, a.P2P) || !slices.Equal(b2.P2P, b.P2P) {
		t.Errorf("after a restart nodes are at %q and %q; before, they were at %q and %q", a2.P2P, b2.P2P, a.P2P, b.P2P)
	}
	eventually(t, "they meet again", func() bool { return slices.Contains(known(t, node{b2.Node}), a2.PeerID) })

	if err := a2.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a2.cmd.Wait(); err != nil {
		t.Errorf("a node told to end: %v", err)
	}
}

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
