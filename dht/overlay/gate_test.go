package overlay

import (
	"context"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity/scope"
	"weir/dht/dhttest"
)

// Addresses that others name are dialled only within the scope of the node's
// network.
func TestDialsStayInScope(t *testing.T) {
	n := newTestNode(t, nil)
	near := newTestNode(t, nil) // on loopback, like the other node
	if err := n.Host.Connect(t.Context(), near.info()); err != nil {
		t.Fatal(err)
	}

	stranger := dhttest.ID(t, dhttest.Key(t))
	for _, s := range []string{"/ip4/10.255.0.1/tcp/6379", "/ip4/169.254.169.254/tcp/80", "/ip4/100.64.0.1/udp/1/quic-v1", "/ip6/fd00:ec2::254/tcp/80"} {
		n.Peers.Learn(stranger, []multiaddr.Multiaddr{multiaddr.StringCast(s)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
	defer cancel()
	if err := n.Host.Connect(ctx, peer.AddrInfo{ID: stranger}); err == nil || ctx.Err() != nil {
		t.Errorf("Connect = %v, %v; want an error without a try", err, ctx.Err())
	}
	got := n.cfg.Gate.Refused()
	for _, want := range []scope.Refusal{{Use: scope.Dial, Kind: scope.Private}, {Use: scope.Dial, Kind: scope.Metadata}, {Use: scope.Dial, Kind: scope.Shared}} {
		if got[want] == 0 {
			t.Errorf("not refused: %v of %v", want, got)
		}
	}
}

// A peer that the operator configured by a DNS name is dialled wherever it
// resolves to, except for metadata services.
func TestNamedPeersAreDialled(t *testing.T) {
	named, other := dhttest.ID(t, dhttest.Key(t)), dhttest.ID(t, dhttest.Key(t))
	gate := scope.NewGate(nil, false)
	gate.Own(scope.Dial, func() []scope.Kind { return []scope.Kind{scope.Public} })
	g := newDialGate(gate, []peer.AddrInfo{{ID: named, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/dns4/weir.internal/tcp/4001")}}})
	for _, tt := range []struct {
		peer peer.ID
		addr string
		want bool
	}{
		{named, "/ip4/10.0.0.7/tcp/4001", true},
		{named, "/ip4/169.254.169.254/tcp/80", false},
		{other, "/ip4/10.0.0.7/tcp/4001", false},
		{other, "/ip4/203.0.113.7/tcp/4001", true},
	} {
		if got := g.InterceptAddrDial(tt.peer, multiaddr.StringCast(tt.addr)); got != tt.want {
			t.Errorf("%s dialled: %v, want %v", tt.addr, got, tt.want)
		}
	}
}
