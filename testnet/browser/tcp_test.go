package browser

import (
	"os"
	"os/exec"
	"testing"
)

// A network without UDP, with one machine in it.
const (
	withoutUDP  = "WEIR_TCP_TEST_NAMESPACE"
	makeWithout = "ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add " + firefoxHost +
		"/24 dev v0 && ip link set v0 up && ip link set v1 up && ip route add default via 10.77.0.2 && " +
		"nft 'add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o meta l4proto udp drop' && " +
		"exec \"$0\" -test.run '^TestMediaOverTCP$' -test.v -test.timeout 4m"
)

// Where a firewall drops all UDP, browsers publish and play over TCP.
func TestMediaOverTCP(t *testing.T) {
	if testing.Short() {
		t.Skip("two browsers and two nodes are too slow for -short")
	}
	if os.Getenv(withoutUDP) == "" {
		if os.Getuid() != 0 {
			t.Skip("only root may make a network namespace")
		}
		if _, err := exec.LookPath("nft"); err != nil {
			t.Skip(err)
		}
		run := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", makeWithout, os.Args[0])
		run.Env = append(os.Environ(), withoutUDP+"=1")
		out, err := run.CombinedOutput()
		if t.Log(string(out)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := readSources(); err != nil {
		t.Fatal(err)
	}
	node, _ := twoNodes(t)
	chromium, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chromium.Close(); err != nil {
			t.Error(err)
		}
	})
	page := func(path string) *Tab {
		tb := open(t, chromium)
		tb.Expect(notThere)
		tb.Expect("Cross-Origin-Opener-Policy") // browsers want https for it
		tb.Go(node + path)
		return tb
	}
	const protocols = `connections.at(-1).getStats().then(stats => {
		const transport = [...stats.values()].find(s => s.type === 'transport');
		const pair = stats.get(transport.selectedCandidatePairId);
		return stats.get(pair.localCandidateId).protocol + ' ' + stats.get(pair.remoteCandidateId).protocol;
	})`

	publisher := page("/publish?stream=tcp")
	publisher.Click("#source-pattern")
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.framesEncoded > 0 && window.weir.bytesSent > 0")
	player := page("/play/tcp")
	player.Until("window.weir.state === 'live' && window.weir.framesDecoded > 20")
	moves(t, player, true)
	for name, tab := range map[string]*Tab{"the publisher": publisher, "the player": player} {
		if got := Eval[string](tab, protocols); got != "tcp tcp" {
			t.Errorf("%s uses %s", name, got)
		}
	}

	firefox, err := StartFirefox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := firefox.Close(); err != nil {
			t.Error(err)
		}
	})
	other, err := firefox.Open(node + "/play/tcp")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "in Firefox: frames that rise", func() bool {
		var ok bool
		if err := other.Eval(`Boolean(window.weir && window.weir.state === 'live' && window.weir.framesDecoded > 20)`, &ok); err != nil {
			t.Fatal(err)
		}
		return ok
	})
}
