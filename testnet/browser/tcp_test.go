package browser

import (
	"os/exec"
	"testing"
)

// If a firewall drops all UDP, browsers publish and play over TCP.
func TestMediaOverTCP(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip(err)
	}
	if !ownNetwork(t, "ip route add default via 10.77.0.2",
		"nft 'add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o meta l4proto udp drop'") {
		return
	}
	node, _ := twoNodes(t)
	chromium := startChromium(t)
	tab := func(path string) *Tab {
		tb := open(t, chromium)
		tb.Expect(notThere)
		tb.Expect("Cross-Origin-Opener-Policy") // browsers require https for it
		tb.Go(node + path)
		return tb
	}
	const protocols = `connections.at(-1).getStats().then(stats => {
		const transport = [...stats.values()].find(s => s.type === 'transport');
		const pair = stats.get(transport.selectedCandidatePairId);
		return stats.get(pair.localCandidateId).protocol + ' ' + stats.get(pair.remoteCandidateId).protocol;
	})`

	publisher := tab("/publish?stream=tcp")
	publisher.Click("#source-pattern")
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.framesEncoded > 0 && window.weir.bytesSent > 0")
	player := tab("/play/tcp")
	player.Until("window.weir.state === 'live' && window.weir.framesDecoded > 20")
	moves(t, player, true)
	for name, tb := range map[string]*Tab{"the publisher": publisher, "the player": player} {
		if got := Eval[string](tb, protocols); got != "tcp tcp" {
			t.Errorf("%s uses %s", name, got)
		}
	}

	other := openPage(t, startFirefox(t), node+"/play/tcp")
	until(t, other, "frames that rise", `window.weir && window.weir.state === 'live' && window.weir.framesDecoded > 20`)
}
