package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/capacity"
	"weir/testnet"
)

// A process is one weir node started by a test, with only the given flags.
type process struct {
	testnet.Node
	cmd *exec.Cmd
	log *syncBuffer
}

// runNode starts a node and waits until it is ready. It is killed at the end of
// the test at the latest.
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

// A node with only defaults starts, also beside another one, with every
// variable of ours set and empty; and two killed nodes find each other at their
// previous addresses.
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

	stranger := runNode(t, nil, append(nodeArgs(t)[1:], "--network", "other", "--bootstrap", a.P2P[0])...)
	says(t, stranger.log.String(), "node is ready, but alone", "no node of this network")
	if r = cli(t, "doctor", "--admin", stranger.Admin); r.code != failure {
		t.Errorf("doctor at a node whose bootstrap peer is of another network exits with %d: %s", r.code, r.out)
	}
	stranger.kill()

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
	const stop = time.Minute // for sessions, of which it has none
	a2 := runNode(t, env(0), "--stop-timeout", stop.String())
	if !slices.Equal(a2.P2P, a.P2P) || !slices.Equal(b2.P2P, b.P2P) {
		t.Errorf("after a restart nodes are at %q and %q; before, they were at %q and %q", a2.P2P, b2.P2P, a.P2P, b.P2P)
	}
	eventually(t, "they meet again", func() bool { return slices.Contains(known(t, node{b2.Node}), a2.PeerID) })

	began := time.Now()
	a2.signal(t, syscall.SIGTERM)
	if err := a2.cmd.Wait(); err != nil || time.Since(began) >= stop {
		t.Errorf("a node without sessions that is told to end: %v after %v", err, time.Since(began))
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A node that is told to end waits for its sessions, admits none, and reports
// that, also to the service manager.
func TestNodeThatIsToldToEnd(t *testing.T) {
	t.Parallel()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	heard := &syncBuffer{}
	var listening sync.WaitGroup
	listening.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(heard, "%s\n", b[:n])
		}
	})
	t.Cleanup(func() {
		_ = manager.Close()
		listening.Wait()
	})
	start := func(args ...string) (*process, *publisher) {
		p := runNode(t, []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String(), "WATCHDOG_USEC=200000"}, append(nodeArgs(t)[1:], args...)...)
		return p, publish(t, p.HTTP+"/whip/demo")
	}
	hears := func(words string) {
		t.Helper()
		eventually(t, "the service manager hears "+words, func() bool { return strings.Contains(heard.String(), words) })
	}

	p, pub := start()
	hears("READY=1")
	hears("1 publisher, 0 viewers")
	hears("WATCHDOG=1")
	p.signal(t, syscall.SIGTERM)
	hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=16000000")
	eventually(t, "the log says what it waits for", func() bool {
		return strings.Contains(p.log.String(), "told to end: waiting for sessions") && strings.Contains(p.log.String(), "publishers=1")
	})
	if _, err := tryPublish(t, p.HTTP+"/whip/other"); err == nil {
		t.Error("a node that is told to end takes a publisher")
	} else if got := refusal(t, err); got.Status != http.StatusServiceUnavailable {
		t.Errorf("it answers %d", got.Status)
	}
	if r := cli(t, "undrain", "--admin", p.Admin); r.code == ok {
		t.Errorf("it can be taken back: %s", r.out)
	}
	select {
	case <-pub.Done():
		t.Error("its publisher was not waited for")
	default:
	}
	pub.stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("once its publisher has gone: %v", err)
	}

	p, _ = start("--stop-timeout", "1h")
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it waits", func() bool { return strings.Contains(p.log.String(), "at_most=1h") })
	p.signal(t, syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("at a second signal: %v", err)
	}

	p, _ = start("--stop-timeout", "1s")
	p.signal(t, os.Interrupt)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("when its time is over: %v", err)
	}
	says(t, p.log.String(), "1 publisher") // the sessions it ends with
}

// CPU usage of other programs is no load of a node: it admits its first client,
// and a second, beside as many busy loops as there are cores.
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
