package browser

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// withoutUDP is set where the test runs within a network without UDP.
const withoutUDP = "WEIR_TEST_WITHOUT_UDP"

// noUDP is a network in which everything works but UDP.
const noUDP = `
link set lo up
link add lan type veth peer name other
addr add 10.208.0.1/24 dev lan
link set lan up
link set other up
route add default via 10.208.0.2`

// Where a firewall drops all UDP, Chromium publishes and plays over TCP. The
// test runs itself again in a network namespace of its own, with nodes,
// browser and all.
func TestMediaOverTCP(t *testing.T) {
	if os.Getenv(withoutUDP) == "" {
		if testing.Short() {
			t.Skip("a browser and three nodes are too slow for -short")
		}
		ns := fmt.Sprintf("weir-%d-browser", os.Getpid())
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("a network namespace cannot be made here: %v: %s", err, out)
		}
		defer func() { _ = exec.Command("ip", "netns", "del", ns).Run() }()
		for line := range strings.SplitSeq(strings.TrimSpace(noUDP), "\n") {
			if out, err := exec.Command("ip", append([]string{"-n", ns}, strings.Fields(line)...)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", line, err, out)
			}
		}
		if _, err := exec.LookPath("nft"); err != nil {
			t.Skip(err)
		}
		nft := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
		nft.Stdin = strings.NewReader("table inet t { chain output { type filter hook output priority 0;\nmeta l4proto udp drop\n}\n}\n")
		if out, err := nft.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		again := exec.CommandContext(t.Context(), "ip", "netns", "exec", ns, os.Args[0], "-test.run=^TestMediaOverTCP$", "-test.v", "-test.timeout=3m")
		again.Env = append(os.Environ(), withoutUDP+"=1")
		out, err := again.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "--- PASS: TestMediaOverTCP") {
			t.Errorf("without UDP: %v", err)
		}
		return
	}
	setUp(t)
	publisher := publish(t, world.chromium, nodeA, "tcp", source{kind: "pattern"})
	player := play(t, world.chromium, nodeA, "tcp")
	moves(t, player, true)
	checkSound(t, player)
	for name, tab := range map[string]*Tab{"the publisher": publisher, "the player": player} {
		const protocol = `connections.at(-1).getStats().then(stats => {
			const all = [...stats.values()];
			const transport = all.find(s => s.type === 'transport');
			const pair = stats.get(transport.selectedCandidatePairId);
			return stats.get(pair.localCandidateId).protocol + ' ' + stats.get(pair.remoteCandidateId).protocol;
		})`
		if got := Eval[string](tab, protocol); got != "tcp tcp" {
			t.Errorf("%s uses %s", name, got)
		}
	}
}
