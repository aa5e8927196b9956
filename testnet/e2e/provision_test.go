package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/scale"
	"weir/sfu/client"
	"weir/testnet"
)

// policyWith writes a policy with the given settings and returns its file.
func policyWith(t *testing.T, p policy.Policy, settings policy.Provision) string {
	t.Helper()
	p.Version, p.Provision = 1, settings
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// metric sums one metric over all running nodes.
func (w *world) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	for _, n := range w.Nodes() {
		if !w.Alive(n.Name) {
			continue
		}
		for line := range strings.Lines((node{n}).get(t, "/metrics")) {
			var v float64
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				if _, err := fmt.Sscan(rest, &v); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				sum += v
			}
		}
	}
	return sum
}

func outcome(name string) string { return fmt.Sprintf("weir_provision_total{outcome=%q}", name) }

// Ten viewers come at once and no node has room: one server is started, by the
// elected node, and all of them are served there. A machine that takes longer
// than they can wait has them ask again, and starts no second one.
func TestServerIsStartedForManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	policy := policyWith(t, policy.Default(), policy.Provision{Cooldown: 10 * time.Minute, WaitTimeout: 15 * time.Second})
	hook := fmt.Sprintf("exec '%s' testnet add --dir '%s' -", weir, dir)
	w := upWith(t, testnet.Config{
		Dir: dir, N: 3, Regions: 1, AddFlags: []string{"--session-limit", "40", "--policy", policy},
		// All of them are able to start one.
		NodeFlags: func(int) []string {
			return []string{"--session-limit", "2", "--policy", policy, "--provision-command", hook}
		},
	})
	one := fill(t, w.n(1), "one")
	two := fill(t, w.n(2), "two")
	three := fill(t, w.n(3), "three")

	viewers := make([]*client.Viewer, 10)
	errs := make([]error, len(viewers))
	var all sync.WaitGroup
	var again atomic.Int32
	began := time.Now()
	for i := range viewers {
		full := w.n(i%3 + 1)
		all.Go(func() {
			for time.Since(began) < 3*patience {
				viewers[i], errs[i] = tryView(t, full.whep([]string{"one", "two", "three"}[i%3]))
				var refused *client.Refused
				if !errors.As(errs[i], &refused) || refused.RetryAfter == 0 {
					return
				}
				again.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("ten viewers were served within %v", time.Since(began))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := len(w.Nodes()); n != 4 {
		t.Fatalf("there are %d nodes, want one more than 3", n)
	}
	for _, v := range viewers {
		if !w.n(4).serves(v.NodeURL()) {
			t.Errorf("a viewer is at %s, not at the newcomer", v.NodeURL())
		}
	}
	if started := w.metric(t, outcome("started")); started != 1 {
		t.Errorf("servers started: %v, want 1", started)
	}
	if placed, asked := w.metric(t, outcome("placed")), float64(again.Load()); placed > 10 || placed < 10-asked {
		t.Errorf("requests placed after they waited: %v, want 10 without the %v that were made again", placed, asked)
	}
	flows(t, append(viewers, one, two, three)...)
	continuous(t, one)
}

// A failing hook costs the waiting clients time, and they get the reason;
// others are not affected.
func TestHooksThatDoNotWork(t *testing.T) {
	for _, c := range []struct {
		name, hook, reason string
		outcome            string
	}{
		{"it fails", "echo no money left >&2; exit 3", scale.ProvisioningFailed, "failed"},
		{"it hangs, and so does its child", "sleep 300 & sleep 300", scale.ProvisioningFailed, "failed"},
		{"it prints garbage without end", "cat /dev/urandom", scale.ProvisioningFailed, "failed"},
		{"it prints garbage and brings no node", "head -c 3000 /dev/urandom", scale.ProvisioningTimedOut, "timed_out"},
		{"it says nothing and brings no node", "true", scale.ProvisioningTimedOut, "timed_out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			policy := policyWith(t, policy.Default(), policy.Provision{Cooldown: 2 * time.Second, WaitTimeout: 3 * time.Second})
			w := up(t, 2, func(i int) []string {
				flags := []string{"--session-limit", "2", "--policy", policy}
				if i == 1 {
					flags = append(flags, "--provision-command", c.hook, "--hook-timeout", "1s")
				}
				return flags
			})
			full := w.n(2)
			fill(t, w.n(1), "one")
			watching := fill(t, full, "two")
			_, err := tryView(t, full.whep("two")) // within its patience, for a hook of minutes
			r := refusal(t, err)
			if r.Status != http.StatusServiceUnavailable || r.RetryAfter < time.Second {
				t.Errorf("%d, retry after %v; want 503 and when", r.Status, r.RetryAfter)
			}
			says(t, r.Body, c.reason)
			if strings.Contains(r.Body, "money") {
				t.Errorf("the client is told what the hook printed: %s", r.Body)
			}
			eventually(t, "the failure is counted", func() bool { return w.metric(t, outcome(c.outcome)) == 1 })
			var s struct {
				Provision map[string]scale.Status
			}
			if err := w.n(1).Get(t.Context(), "/status", &s); err != nil || s.Provision[""].Failures != 1 || !strings.Contains(s.Provision[""].Last, strings.TrimPrefix(c.reason, "provisioning-")) {
				t.Errorf("status says %+v, %v", s.Provision, err)
			}
			flows(t, watching)
			continuous(t, watching)
			noneLeft(t, c.hook)
		})
	}
}

// noneLeft waits until no process of a hook is left.
func noneLeft(t *testing.T, hook string) {
	t.Helper()
	eventually(t, "the hook's processes have ended", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			b, err := os.ReadFile(f)
			stat, statErr := os.ReadFile(filepath.Join(filepath.Dir(f), "stat"))
			if err != nil || statErr != nil || strings.Contains(string(stat), ") Z ") {
				continue
			}
			if args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"); len(args) == 3 && args[1] == "-c" && args[2] == hook {
				return false
			}
		}
		return true
	})
}

// Under a binpack policy, idle nodes end one after the other; those with
// viewers, the provisioner and the minimum number stay.
func TestIdleNodesAreReleased(t *testing.T) {
	dir := t.TempDir()
	policy := policyWith(t, policy.BinPacking(), policy.Provision{Cooldown: time.Second, IdleTimeout: 2 * time.Second, MinNodes: 2})
	retire := fmt.Sprintf("exec '%s' testnet retire --dir '%s' -", weir, dir)
	w := upWith(t, testnet.Config{Dir: dir, N: 5, Regions: 1, NodeFlags: func(i int) []string {
		if i == 1 {
			return []string{"--policy", policy, "--provision-command", "false"}
		}
		return []string{"--policy", policy, "--release-command", retire}
	}})
	busy := w.n(2)
	publish(t, busy.whip("demo"))
	v := view(t, busy.whep("demo"))
	events := w.n(1).follow(t)

	retired := func() (n int) {
		for _, node := range w.Nodes() {
			if node.Retired && !w.Alive(node.Name) {
				n++
			}
		}
		return n
	}
	// n1 starts servers, n2 is busy: n3, n4 and n5 end, one by one.
	eventually(t, "the idle nodes have ended", func() bool { return retired() == 3 })
	told := events.of("provision.released", "")
	for i := 1; i < len(told); i++ {
		if gap := told[i].Time.Sub(told[i-1].Time); gap < time.Second {
			t.Errorf("two nodes released within %v", gap)
		}
	}
	if len(told) != 3 {
		t.Errorf("%d nodes were let go, want 3", len(told))
	}
	flows(t, v)
	continuous(t, v)

	// n2 is idle too and would end, but two nodes have to stay.
	_ = v.Close()
	for _, n := range w.Nodes() {
		if b, err := os.ReadFile(n.Log); n.Retired && (err != nil || strings.Contains(string(b), "something came while")) {
			t.Errorf("%s was not empty", n.Name)
		}
	}
	if !w.Alive("n1") || !w.Alive("n2") {
		t.Error("a node that has to stay has ended")
	}
}

// The last nodes of a region stay, even if idle, and report that.
func TestLeastNodesStay(t *testing.T) {
	t.Parallel()
	policy := policyWith(t, policy.BinPacking(), policy.Provision{Cooldown: 500 * time.Millisecond, IdleTimeout: time.Second, MinNodes: 2})
	w := up(t, 2, func(i int) []string {
		if i == 1 {
			return []string{"--policy", policy, "--provision-command", "false"}
		}
		return []string{"--policy", policy, "--release-command", "true", "--log-level", "debug"}
	})
	eventually(t, "the idle node has asked and was told to stay", func() bool {
		b, err := os.ReadFile(w.n(2).Log)
		return err == nil && strings.Contains(string(b), "release-min-nodes")
	})
	var s struct{ Releasable bool }
	if err := w.n(2).Get(t.Context(), "/status", &s); err != nil || !s.Releasable {
		t.Errorf("status says releasable %v, %v", s.Releasable, err)
	}
	if !w.Alive("n2") {
		t.Error("it has ended")
	}
}

// A draining node admits no new clients, keeps its sessions, and ends after the
// last one.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := up(t, 3, nil)
	leaving := w.n(1)
	publish(t, w.n(2).whip("demo"))
	leaving.finds(t, "demo")
	v := view(t, leaving.whep("demo"))
	if !leaving.serves(v.NodeURL()) {
		t.Fatalf("the viewer is at %s", v.NodeURL())
	}
	if r := cli(t, "drain", "--admin", leaving.Admin, "--exit"); r.code != ok {
		t.Fatalf("weir drain: exit %d: %s", r.code, r.errout)
	}
	if s := leaving.status(t); s.State != capacity.Draining {
		t.Errorf("the node is %s", s.State)
	}
	eventually(t, "others see it", func() bool {
		for _, r := range ask[struct {
			Records []struct {
				Node   string
				Record struct{ State string }
			}
		}](t, w.n(2), "/records").Records {
			if r.Node == leaving.PeerID.String() {
				return r.Record.State == "draining"
			}
		}
		return false
	})
	second := view(t, leaving.whep("demo"))
	if leaving.serves(second.NodeURL()) {
		t.Error("it took a viewer though it drains")
	}
	if p := publish(t, leaving.whip("other")); leaving.serves(p.NodeURL()) {
		t.Error("it took a publisher though it drains")
	}
	flows(t, v, second)

	// A drain can be cancelled, and started again.
	if r := cli(t, "undrain", "--admin", leaving.Admin); r.code != ok {
		t.Fatalf("weir undrain: exit %d: %s", r.code, r.errout)
	}
	third := view(t, leaving.whep("demo"))
	if !leaving.serves(third.NodeURL()) {
		t.Error("it takes nobody though it drains no more")
	}
	if r := cli(t, "drain", "--admin", leaving.Admin, "--deadline", "-1s"); r.code != badInput {
		t.Errorf("a negative deadline: exit %d: %s", r.code, r.errout)
	}
	if r := cli(t, "drain", "--admin", leaving.Admin, "--exit", "--deadline", "0"); r.code != ok {
		t.Fatalf("weir drain: exit %d: %s", r.code, r.errout)
	}
	flows(t, v, third)
	if !w.Alive("n1") {
		t.Fatal("it ended with viewers connected")
	}
	_ = v.Close()
	_ = third.Close()
	eventually(t, "it has ended", func() bool { return !w.Alive("n1") })
	b, err := os.ReadFile(leaving.Log)
	if err != nil || !strings.Contains(string(b), "drained: the node ends") {
		t.Errorf("its log does not say so: %v", err)
	}
	flows(t, second)
}

// At the deadline a draining node ends with its remaining sessions, and exits
// with 0.
func TestDrainDeadline(t *testing.T) {
	t.Parallel()
	w := up(t, 2, nil)
	leaving := w.n(1)
	publish(t, leaving.whip("demo"))
	if r := cli(t, "drain", "--admin", leaving.Admin, "--deadline", "500ms", "--wait"); r.code != failure {
		t.Errorf("weir drain --wait with a publisher: exit %d: %s%s", r.code, r.out, r.errout)
	}
	if r := cli(t, "drain", "--admin", leaving.Admin, "--exit", "--deadline", "1s", "--wait"); r.code != ok {
		t.Errorf("weir drain --exit --wait: exit %d: %s%s", r.code, r.out, r.errout)
	}
	eventually(t, "it has ended", func() bool { return !w.Alive("n1") })
}

// The process of a node that has drained exits with 0.
func TestDrainedNodeExitsWithZero(t *testing.T) {
	t.Parallel()
	ready := filepath.Join(t.TempDir(), "ready.json")
	cmd := exec.CommandContext(t.Context(), weir, "node", "--data-dir", t.TempDir(), "--ready-file", ready,
		"--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var info struct{ Admin string }
	eventually(t, "the node is ready", func() bool {
		b, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(b, &info) == nil
	})
	if r := cli(t, "drain", "--admin", info.Admin, "--exit", "--wait"); r.code != ok {
		t.Errorf("weir drain: exit %d: %s", r.code, r.errout)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it has not ended")
	}
}

// No server is started for a need that a rule of the policy would refuse there
// as well.
func TestNoServerIsStartedInVain(t *testing.T) {
	t.Parallel()
	p := policy.Default()
	p.Filter = append(p.Filter, policy.Rule{Name: "moonlit", Expr: `q.purpose == "cascade" || r.zone == "moon"`})
	const wait = policy.MaxWaitTimeout
	policy := policyWith(t, p, policy.Provision{WaitTimeout: wait})
	w := up(t, 2, func(i int) []string {
		return []string{"--session-limit", "2", "--policy", policy, "--provision-command", "false"}
	})
	fill(t, w.n(1), "one")
	began := time.Now()
	_, err := tryView(t, w.n(1).whep("one"))
	r := refusal(t, err)
	if r.Status != http.StatusServiceUnavailable {
		t.Errorf("%d, want 503", r.Status)
	}
	says(t, r.Body, scale.ProvisioningWouldNotHelp, "moonlit")
	if took := time.Since(began); took >= wait {
		t.Errorf("it waited %v for a server that would not help", took)
	}
	if failed := w.metric(t, outcome("failed")); failed != 0 {
		t.Errorf("the hook ran %v times", failed)
	}
}

// A client that comes during a node's release is served elsewhere, and the node
// ends.
func TestNobodyIsLetInDuringRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	asked, goOn := filepath.Join(dir, "asked"), filepath.Join(dir, "go-on")
	policy := policyWith(t, policy.BinPacking(), policy.Provision{Cooldown: time.Second, IdleTimeout: time.Second, MinNodes: 1})
	w := up(t, 2, func(i int) []string {
		if i == 1 {
			return []string{"--policy", policy, "--provision-command", "false"}
		}
		return []string{"--policy", policy, "--release-command", fmt.Sprintf("touch '%s'; until test -e '%s'; do sleep 0.05; done", asked, goOn)}
	})
	eventually(t, "the release hook runs", func() bool { _, err := os.Stat(asked); return err == nil })
	leaving := w.n(2)
	if p := publish(t, leaving.whip("late")); leaving.serves(p.NodeURL()) {
		t.Error("it took a publisher while it was being released")
	}
	leaving.finds(t, "late")
	v := view(t, leaving.whep("late"))
	if leaving.serves(v.NodeURL()) {
		t.Error("it took a viewer while it was being released")
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool { return !w.Alive("n2") })
	if b, err := os.ReadFile(leaving.Log); err != nil || strings.Contains(string(b), "something came while") {
		t.Errorf("it was not empty: %v", err)
	}
	flows(t, v)
	continuous(t, v)
}

// As in the README: a testnet that starts further nodes by itself.
func TestTestnetStartsNodes(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() {
		if out, err := exec.Command(weir, "testnet", "down", "--dir", dir).CombinedOutput(); err != nil {
			t.Errorf("weir testnet down: %v: %s", err, out)
		}
	})
	if r := cli(t, "testnet", "up", "--dir", dir, "-n", "2", "--provision", "--", "--session-limit", "2"); r.code != ok {
		t.Fatalf("weir testnet up: exit %d: %s%s", r.code, r.out, r.errout)
	}
	status := func() (nodes []testnet.Node) {
		r := cli(t, "testnet", "status", "--dir", dir, "--json")
		if err := json.Unmarshal([]byte(r.out), &nodes); r.code != ok || err != nil {
			t.Fatalf("weir testnet status: exit %d, %v: %s%s", r.code, err, r.out, r.errout)
		}
		return nodes
	}
	two := status()
	if len(two) != 2 {
		t.Fatalf("%d nodes, want 2", len(two))
	}
	fill(t, node{two[0]}, "one")
	fill(t, node{two[1]}, "two")
	v := view(t, node{two[0]}.whep("one"))
	three := status()
	if len(three) != 3 || !(node{three[2]}).serves(v.NodeURL()) {
		t.Errorf("%d nodes, want one more, and the viewer there; it is at %s", len(three), v.NodeURL())
	}
	flows(t, v)
}
