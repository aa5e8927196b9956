package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weir/dht/directory"
	"weir/testnet"
)

// diagnosis is the output of weir doctor --json.
type diagnosis struct {
	OK     bool
	Checks []struct{ Name, Outcome, Seen, Do string }
}

// lone runs a single node, outside any testnet, until the test ends, and
// returns the address of its admin API.
func lone(t *testing.T, flags ...string) string {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	daemon(t, nodeArgs(t, append(flags, "--ready-file", ready)...)...)
	var info struct{ Admin string }
	eventually(t, "the node is ready", func() bool {
		b, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(b, &info) == nil
	})
	return info.Admin
}

// Doctor reports no faults in a healthy network, and each fault otherwise, with
// an exit code for scripts.
func TestDoctor(t *testing.T) {
	w := up(t, 3, nil)
	eventually(t, "all is well everywhere", func() bool {
		for i := 1; i <= 3; i++ {
			r := cli(t, "doctor", "--admin", w.n(i).Admin)
			if r.code != ok || !strings.Contains(r.out, "all checks passed") {
				return false
			}
		}
		return true
	})

	const dead = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ"
	alone := lone(t, "--bootstrap", dead)
	r := cli(t, "doctor", "--admin", alone)
	if r.code != failure {
		t.Errorf("a dead bootstrap peer: exit code %d, want %d: %s", r.code, failure, r.errout)
	}
	says(t, r.out, "FAIL  bootstrap", "/ip4/127.0.0.1/tcp/1", "8KjZLqRJ", "refused", "start that node", "alone", "2 problems: bootstrap, network")
	r = cli(t, "doctor", "--json", "--admin", alone)
	var d diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || d.OK || len(d.Checks) == 0 || r.code != failure {
		t.Errorf("--json: exit code %d, %v: %s", r.code, err, r.out)
	}

	r = cli(t, "doctor", "--admin", lone(t, "--network", "other", "--bootstrap", w.n(1).P2P[0]))
	if r.code != failure {
		t.Errorf("another network: exit code %d, want %d", r.code, failure)
	}
	says(t, r.out, "another network", `"other"`, "--network")

	r = cli(t, "doctor", "--admin", lone(t, "--bootstrap", w.n(1).P2P[0], "--discovery", "broker", "--server", w.n(2).P2P[0]))
	if r.code != failure {
		t.Errorf("another way to hold: exit code %d, want %d", r.code, failure)
	}
	says(t, r.out, "--discovery kademlia", "this node with broker")

	fails(t, noConnection, []string{"no node answers", "weir node --dev"}, "doctor", "--admin", "127.0.0.1:1")

	// Two of three nodes have died.
	for i := 2; i <= 3; i++ {
		if err := w.Signal(w.n(i).Name, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	r = cli(t, "doctor", "--admin", w.n(1).Admin)
	if r.code != failure {
		t.Errorf("a network that is cut: exit code %d, want %d: %s", r.code, failure, r.out)
	}
	says(t, r.out, "FAIL  partition", w.n(2).PeerID.String()[44:], w.n(3).PeerID.String()[44:])
}

// Invalid lists of servers are refused with the line, and a valid one is accepted.
func TestServerListFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "servers")
	if err := os.WriteFile(file, []byte("# brokers\n\nbroker.example.org:4001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, badInput, []string{file + ":3: ", "not a multiaddr such as /ip4/"}, nodeArgs(t, "--discovery", "broker", "--server-list", file)...)
	fails(t, badInput, []string{"--discovery pull", "--server-list FILE"}, nodeArgs(t, "--discovery", "pull")...)
	fails(t, badInput, []string{"--discovery broker, pull or push"}, nodeArgs(t, "--server-list", file)...)
	fails(t, badInput, []string{"kademlia, broker, pull or push"}, nodeArgs(t, "--discovery", "redis")...)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := cli(t, "doctor", "--admin", lone(t, "--discovery", "pull", "--server-list", file))
	if r.code != failure {
		t.Errorf("an empty list: exit code %d, want %d", r.code, failure)
	}
	says(t, r.out, "FAIL  servers", "--server-list")
}

// The records of a network with a list of servers are read by that list,
// without a node.
func TestRecordsByServerList(t *testing.T) {
	for _, mode := range []directory.Mode{directory.Broker, directory.Pull, directory.Push} {
		net, err := testnet.Up(t.Context(), testnet.Config{Dir: t.TempDir(), N: 2, Binary: weir, Discovery: mode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := net.Close(); err != nil {
				t.Error(err)
			}
		})
		by := []string{"--discovery", string(mode), "--server-list", filepath.Join(net.Dir(), "servers")}
		eventually(t, "both records are listed, and where", func() bool {
			r := cli(t, append([]string{"records", "list", "--copies"}, by...)...)
			return r.code == ok && strings.Contains(r.out, "capacity") &&
				strings.Contains(r.out, net.Node("n1").PeerID.String()[44:]) && strings.Contains(r.out, net.Node("n2").PeerID.String()[44:])
		})
		fails(t, noConnection, []string{"servers listed", `"other"`}, append([]string{"records", "list", "--network", "other"}, by...)...)
	}
}

// daemon runs weir until the test ends.
func daemon(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(weir, args...)
	cmd.Env = cleanEnv()
	var log syncBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("weir %s: %s", strings.Join(args, " "), log.String())
		}
	})
}
