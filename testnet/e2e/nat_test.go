package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"weir/dht"
)

// A nat is in front of one node: datagrams to its own address, at the node's
// media port, are forwarded to the node from one port per sender, and back.
type nat struct {
	t     *testing.T
	node  netip.AddrPort
	outer *net.UDPConn
	lossy atomic.Bool // drops three of four RTP packets, in both directions
	runs  sync.WaitGroup

	mu    sync.Mutex
	ended bool
	inner map[netip.AddrPort]*net.UDPConn // by sender
	links map[netip.AddrPort]*choke       // to it
	lost  int
}

// newNAT is a nat at ip for a node that uses the same port of 127.0.0.1.
func newNAT(t *testing.T, ip string) *nat {
	t.Helper()
	outer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	port := outer.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	n := &nat{t: t, node: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), outer: outer, inner: make(map[netip.AddrPort]*net.UDPConn), links: make(map[netip.AddrPort]*choke)}
	n.runs.Go(n.inwards)
	t.Cleanup(n.close)
	return n
}

func (n *nat) close() {
	n.mu.Lock()
	n.ended = true
	_ = n.outer.Close()
	for _, c := range n.inner {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.runs.Wait()
}

func (n *nat) senders() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.inner)
}

func (n *nat) inwards() {
	b := make([]byte, 2048)
	for {
		size, from, err := n.outer.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if c := n.from(from); c != nil && !n.loses(b[:size]) {
			_, _ = c.Write(b[:size]) // lost if the node is gone
		}
	}
}

// from returns the connection to the node for a sender.
func (n *nat) from(sender netip.AddrPort) *net.UDPConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.inner[sender]; c != nil || n.ended {
		return c
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(n.node))
	if err != nil {
		n.t.Errorf("nat: %v", err)
		return nil
	}
	link := &choke{}
	n.inner[sender], n.links[sender] = c, link
	n.runs.Go(func() {
		defer link.wait()
		b := make([]byte, 2048)
		for {
			size, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && !n.loses(b[:size]) {
				link.send(b[:size], func(b []byte) { _, _ = n.outer.WriteToUDPAddrPort(b, sender) })
			}
		}
	})
	return c
}

// chokes returns the links to the senders so far.
func (n *nat) chokes() map[netip.AddrPort]*choke {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.links)
}

// loses decides whether a datagram is dropped. RTCP is not (RFC 5761).
func (n *nat) loses(b []byte) bool {
	if !n.lossy.Load() || len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] < 224 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost++
	return n.lost%4 != 0
}

// Nodes behind one-to-one NATs, as at cloud providers, meet at their public
// addresses, and serve from there. Doctor warns a node that does not publish
// its own, and those that cannot reach it.
func TestNodesBehindOneToOneNAT(t *testing.T) {
	t.Parallel()
	router, a, b, c := newNetns(t, "nat"), newNetns(t, "a"), newNetns(t, "b"), newNetns(t, "c")
	for i, ns := range []*netns{a, b, c} {
		gateway := fmt.Sprintf("10.%d.0.1", 211+i)
		wire(router, fmt.Sprintf("r%d", i), []string{gateway + "/24"}, ns, "e0", []string{fmt.Sprintf("10.%d.0.2/24", 211+i)})
		ns.ip("route add default via " + gateway)
	}
	router.ip("addr add 10.211.2.2/32 dev lo")
	router.ip("addr add 10.211.3.2/32 dev lo")
	if out, err := router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"); err != nil {
		t.Skipf("sysctl: %v: %s", err, out)
	}
	router.nft(`table ip t {
		chain pre { type nat hook prerouting priority -100;
			ip daddr 10.211.2.2 dnat to 10.212.0.2
			ip daddr 10.211.3.2 dnat to 10.213.0.2
		}
		chain post { type nat hook postrouting priority 100;
			ip saddr 10.212.0.2 oifname != "r1" snat to 10.211.2.2
			ip saddr 10.213.0.2 oifname != "r2" snat to 10.211.3.2
		}
		chain flt { type filter hook forward priority 0;
			ip daddr { 10.212.0.0/16, 10.213.0.0/16 } ct status dnat accept
			ip daddr { 10.212.0.0/16, 10.213.0.0/16 } ct state established,related accept
			ip daddr { 10.212.0.0/16, 10.213.0.0/16 } drop
		}
	}`)
	everywhere := []string{"--listen", "/ip4/0.0.0.0/tcp/4001", "--listen", "/ip4/0.0.0.0/udp/4001/quic-v1",
		"--http", "0.0.0.0:8080", "--admin", "127.0.0.1:8081", "--media-port", "0.0.0.0:8082"}
	start := func(ns *netns, flags ...string) (p2p []string) {
		t.Helper()
		ns.node(slices.Concat(everywhere, flags)...)
		var s struct{ P2P []string }
		if err := ns.reads(&s, "status"); err != nil {
			t.Fatal(err)
		}
		return s.P2P
	}
	// A has one address, which it gives to clients because it knows no other.
	first := start(a)
	if !strings.HasPrefix(first[0], "/ip4/10.211.0.2/tcp/4001/p2p/") {
		t.Errorf("a node on a wildcard announces %q", first)
	}
	behind := start(b, "--public-ip", "10.211.2.2", "--bootstrap", first[0])
	if !strings.HasPrefix(behind[0], "/ip4/10.211.2.2/tcp/4001/p2p/") || !strings.HasPrefix(behind[1], "/ip4/10.211.2.2/udp/4001/quic-v1/p2p/") {
		t.Errorf("a node behind a NAT announces %q", behind)
	}
	start(c, "--public-ip", "10.211.3.2", "--bootstrap", behind[0]) // b's suggestion for joining
	connected := func(ns *netns) (n int) {
		var peers []struct{ Connected, Member bool }
		if err := ns.reads(&peers, "peers"); err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			if p.Connected && p.Member {
				n++
			}
		}
		return n
	}
	for _, ns := range []*netns{a, b, c} {
		eventually(t, ns.name+" has met both others", func() bool { return connected(ns) == 2 })
	}
	publishing := a.command(weir, "publish", "--pattern", "http://10.211.2.2:8080/whip/demo")
	publishing.Env = cleanEnv()
	if err := publishing.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = publishing.Process.Kill()
		_ = publishing.Wait() // killed
	})
	out := ""
	eventually(t, "media comes from behind the other NAT", func() bool {
		var err error
		out, err = a.run(weir, "view", "--duration", "2s", "http://10.211.3.2:8080/whep/demo")
		return err == nil && strings.Contains(out, "first frame")
	})
	for _, ns := range []*netns{a, b, c} {
		if out, err := ns.run(weir, "doctor", "--admin", "127.0.0.1:8081"); err != nil {
			t.Errorf("doctor at %s: %v: %s", ns.name, err, out)
		}
	}
	if out, err := router.run(append([]string{weir, "node", "--insecure-open", "--data-dir", t.TempDir()}, everywhere...)...); err == nil {
		t.Error("a node with several addresses starts on a wildcard, and does not know what to tell clients")
	} else {
		says(t, out, "--http 0.0.0.0:8080", "several addresses", "--public-url http://HOST:8080")
	}
}

// Nodes that publish addresses behind their NATs never connect, though both are
// in the network: doctor says so at each.
func TestDoctorFindsMembersNeverReached(t *testing.T) {
	t.Parallel()
	router, a, b, c := newNetns(t, "nat"), newNetns(t, "a"), newNetns(t, "b"), newNetns(t, "c")
	for i, ns := range []*netns{a, b, c} {
		gateway := fmt.Sprintf("10.%d.0.1", 215+i)
		wire(router, fmt.Sprintf("r%d", i), []string{gateway + "/24"}, ns, "e0", []string{fmt.Sprintf("10.%d.0.2/24", 215+i)})
		ns.ip("route add default via " + gateway)
	}
	if out, err := router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"); err != nil {
		t.Skipf("sysctl: %v: %s", err, out)
	}
	router.nft(`table ip t { chain flt { type filter hook forward priority 0;
		ct state established,related accept
		ip daddr { 10.216.0.0/16, 10.217.0.0/16 } drop
	}
	}`)
	flags := []string{"--listen", "/ip4/0.0.0.0/tcp/4001", "--http", "0.0.0.0:8080", "--admin", "127.0.0.1:8081", "--media-port", "0.0.0.0:8082"}
	a.node(flags...)
	var s struct{ P2P []string }
	if err := a.reads(&s, "status"); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []*netns{b, c} {
		ns.node(append(flags, "--bootstrap", s.P2P[0])...)
	}
	for _, ns := range []*netns{b, c} {
		out := ""
		eventually(t, "doctor says that a member was never reached", func() bool {
			var err error
			out, err = ns.run(weir, "doctor", "--admin", "127.0.0.1:8081")
			return err != nil && strings.Contains(out, "FAIL  members")
		})
		says(t, out, "never been reached", "--public-ip")
	}
}

// reads decodes the JSON output of a weir command in the namespace.
func (ns *netns) reads(v any, args ...string) error {
	out, err := ns.command(append(append([]string{weir}, args...), "--admin", "127.0.0.1:8081", "--json")...).Output()
	if err != nil {
		return err
	}
	return json.Unmarshal(out, v)
}

// behindNATs starts two nodes, each behind a nat.
func behindNATs(t *testing.T) (*world, [2]*nat) {
	t.Helper()
	var nats [2]*nat
	ips := [2]string{"127.0.0.2", "127.0.0.3"}
	for i, ip := range ips {
		nats[i] = newNAT(t, ip)
	}
	return up(t, 2, func(i int) []string {
		return []string{"--media-port", nats[i-1].node.String(), "--public-ip", ips[i-1]}
	}), nats
}

// A node publishes the address of its NAT, and all media comes that way.
func TestNodesBehindNAT(t *testing.T) {
	t.Parallel()
	w, nats := behindNATs(t)
	a, b := w.n(1), w.n(2)
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	resp, answer := b.post(t, b.whep("demo"), viewerOffer(t))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	candidates := 0
	for line := range strings.Lines(answer) {
		if strings.HasPrefix(line, "a=candidate:") {
			candidates++
			if !strings.Contains(line, " 127.0.0.3 ") {
				t.Errorf("the answer has %s", line)
			}
		}
	}
	if candidates == 0 {
		t.Error("the answer has no candidate")
	}
	flows(t, view(t, b.whep("demo")))
	for i, n := range nats {
		if n.senders() == 0 {
			t.Errorf("nobody sent to %s", n.outer.LocalAddr())
		}
		if got := w.n(i + 1).Media; got != n.outer.LocalAddr().String() {
			t.Errorf("node %d says that its media is at %s, not %s", i+1, got, n.outer.LocalAddr())
		}
	}
}

// A node that loses a part of the media gets a lower trust from the node that
// it sends to.
func TestNodeThatDoesNotDeliverIsDoubted(t *testing.T) {
	t.Parallel()
	w, nats := behindNATs(t)
	a, b := w.n(1), w.n(2)
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	view(t, b.whep("demo"))
	believed := func(n node, other node) float64 {
		for _, v := range ask[dht.Decision](t, n, "/select?purpose=view").Verdicts {
			if v.Node == other.PeerID {
				return v.Trust
			}
		}
		t.Fatalf("%s knows nothing of %s", n.Name, other.Name)
		return 0
	}
	if x := believed(b, a); x != 1 {
		t.Errorf("before anything was lost, it was believed %.2f", x)
	}
	for _, n := range nats { // the link may go through either
		n.lossy.Store(true)
	}
	eventually(t, "the node is doubted", func() bool { return believed(b, a) < 0.5 })
	if x := believed(a, b); x != 1 {
		t.Errorf("the one that was sent to is believed %.2f", x)
	}
}
