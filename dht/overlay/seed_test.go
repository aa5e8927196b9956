package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"weir/dht/dhttest"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

func TestParseSeed(t *testing.T) {
	for in, want := range map[string]string{
		"weir.example.org:4001":        "",
		"weir:4001":                    "",
		"weir_a-1.net.:4001":           "",
		"192.0.2.1:4001":               "",
		"[2001:db8::1]:4001":           "",
		"weir.example.org":             "want HOST:PORT",
		"weir.example.org:0":           "want a port",
		"weir.example.org:66000":       "want a port",
		"weir.example.org:http":        "want a port",
		":4001":                        "neither",
		"a b:4001":                     "neither",
		"weir..org:4001":               "neither",
		"/ip4/192.0.2.1/tcp/4001":      "want HOST:PORT",
		strings.Repeat("a", 64) + ":1": "neither",
	} {
		s, err := ParseSeed(in)
		switch {
		case want == "" && (err != nil || s.String() != in):
			t.Errorf("%q: %v, %v", in, s, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error %v, want %q in it", in, err, want)
		}
	}
}

func FuzzParseSeed(f *testing.F) {
	for _, s := range []string{"weir:4001", "[::1]:1", "192.0.2.1:4001", "a..b:1", ":", "[fe80::1%lo]:9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSeed(in)
		if err != nil {
			return
		}
		if again, err := ParseSeed(s.String()); err != nil || again != s {
			t.Errorf("%q is read as %+v, and that as %+v, %v", in, s, again, err)
		}
	})
}

// tcpOf is the TCP address where n listens.
func tcpOf(t *testing.T, n *testNode) netip.AddrPort {
	t.Helper()
	for _, a := range n.Host.Addrs() {
		if na, err := manet.ToNetAddr(a); err == nil {
			if tcp, ok := na.(*net.TCPAddr); ok {
				return tcp.AddrPort()
			}
		}
	}
	t.Fatal("it does not listen by TCP")
	return netip.AddrPort{}
}

func seedAt(a netip.AddrPort) Seed { return Seed{a.Addr().String(), a.Port()} }

// A server at a seed that is no node of this network is reported, and has no
// other effect; a node that comes back there with another identity is found.
func TestSeedOfOthers(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp4", "127.0.0.1:0") // accepts connections and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	stranger := newTestNode(t, func(c *Config) { c.Prefix = "/weir/another" })
	stranger.run(t)
	ports := dhttest.FixedPorts(t)
	first := newTestNode(t, func(c *Config) { c.Listen = ports })
	first.run(t)

	n := newTestNode(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range []struct {
		name string
		at   netip.AddrPort
		want string
	}{
		{"mute", mute.Addr().(*net.TCPAddr).AddrPort(), ""}, // whatever the time-out's text is
		{"a web server", web.Addr().(*net.TCPAddr).AddrPort(), "no libp2p node answers there"},
		{"another network", tcpOf(t, stranger), "not a node of this network"},
		{"nothing", netip.MustParseAddrPort("127.0.0.1:1"), "refused"},
		{"itself", tcpOf(t, n), "this node alone"},
	} {
		err := (&joiner{n.Overlay}).seekOnce(ctx, newSeeker([]Seed{seedAt(c.at)}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}

	s := newSeeker([]Seed{seedAt(tcpOf(t, first))})
	if err := (&joiner{n.Overlay}).seekOnce(ctx, s); err != nil {
		t.Fatalf("a node of this network: %v", err)
	}
	if n.Peers.Alone() {
		t.Error("it is alone all the same")
	}
	first.stop()
	second := newTestNode(t, func(c *Config) { c.Listen = ports })
	second.run(t)
	dhttest.Eventually(t, func() error { // the loss of the first connection may not be known yet
		if err := (&joiner{n.Overlay}).seekOnce(ctx, s); err != nil {
			return err
		}
		if !n.Peers.Member(second.ID()) {
			return errors.New("the node that has its place is not met")
		}
		return nil
	})
}

// However many addresses a name resolves to, and however often they change, few
// are tried at a time, and the total is bounded.
func TestSeedsAreBounded(t *testing.T) {
	n := newTestNode(t, nil)
	tried := make(chan netip.AddrPort, 2*maxSeedsNamed)
	round := 0
	s := newSeeker([]Seed{{"many.test", 4001}})
	s.resolve = func(context.Context, string) (addrs []netip.Addr, err error) {
		round++
		for i := range 1000 {
			addrs = append(addrs, netip.AddrFrom4([4]byte{127, byte(round >> 6), byte(round << 2), byte(i)}))
		}
		return addrs, nil
	}
	s.who = func(_ context.Context, at netip.AddrPort) (peer.ID, error) {
		tried <- at
		return "", errors.New("nobody there")
	}
	if err := (&joiner{n.Overlay}).seekOnce(t.Context(), s); err == nil || len(tried) != seedDials {
		t.Errorf("%v, after %d tries", err, len(tried))
	}
	var err error
	for range maxSeedsNamed/seedDials + 10 {
		err = (&joiner{n.Overlay}).seekOnce(t.Context(), s)
	}
	if len(tried) != maxSeedsNamed || len(s.known) > maxSeedAddrs {
		t.Errorf("%d tried, %d remembered", len(tried), len(s.known))
	}
	if err == nil || !strings.Contains(err.Error(), "name bootstrap peers") {
		t.Errorf("then it says %v", err)
	}
}
