package e2e

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"weir/dht"
)

// A nat stands before one node: what comes to its own address, at the node's
// media port, goes on to the node from a port for each who sends, and back.
type nat struct {
	t     *testing.T
	node  netip.AddrPort
	outer *net.UDPConn
	lossy atomic.Bool // three of four RTP packets are lost, either way
	runs  sync.WaitGroup

	mu    sync.Mutex
	ended bool
	inner map[netip.AddrPort]*net.UDPConn // by who sends
	lost  int
}

// newNAT is a nat at ip for a node that is to use the same port of 127.0.0.1.
func newNAT(t *testing.T, ip string) *nat {
	t.Helper()
	outer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	port := outer.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	n := &nat{t: t, node: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), outer: outer, inner: make(map[netip.AddrPort]*net.UDPConn)}
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

// from returns the connection with the node that stands for one who sends.
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
	n.inner[sender] = c
	n.runs.Go(func() {
		b := make([]byte, 2048)
		for {
			size, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && !n.loses(b[:size]) {
				_, _ = n.outer.WriteToUDPAddrPort(b[:size], sender)
			}
		}
	})
	return c
}

// loses decides whether a datagram gets lost. RTCP gets through
// (RFC 5761).
func (n *nat) loses(b []byte) bool {
	if !n.lossy.Load() || len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] < 224 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost++
	return n.lost%4 != 0
}

// behindNATs starts two nodes, each with a nat before it.
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

// What a node says of where it is reached is where the NAT before it is, and
// all media comes that way.
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

// A node from which a part of the media does not come is believed less by whom
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
				return v.Believed
			}
		}
		t.Fatalf("%s knows nothing of %s", n.Name, other.Name)
		return 0
	}
	if x := believed(b, a); x != 1 {
		t.Errorf("before anything was lost, it was believed %.2f", x)
	}
	for _, n := range nats { // by whichever the link goes
		n.lossy.Store(true)
	}
	eventually(t, "the node is doubted", func() bool { return believed(b, a) < 0.5 })
	if x := believed(a, b); x != 1 {
		t.Errorf("the one that was sent to is believed %.2f", x)
	}
}
