package dht

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/scope"
	"weir/dht/pb"
)

// Addresses that others name are dialled where the node's network is, and
// nowhere else.
func TestDialsStayInScope(t *testing.T) {
	n := newTestNode(t, nil)
	near := newTestNode(t, nil) // on loopback, as it is itself
	if err := n.Host().Connect(t.Context(), near.info()); err != nil {
		t.Fatal(err)
	}

	stranger := idOf(t, newKey(t))
	for _, s := range []string{"/ip4/10.255.0.1/tcp/6379", "/ip4/169.254.169.254/tcp/80", "/ip4/100.64.0.1/udp/1/quic-v1", "/ip6/fd00:ec2::254/tcp/80"} {
		n.learn(stranger, []multiaddr.Multiaddr{addr(t, s)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := n.Host().Connect(ctx, peer.AddrInfo{ID: stranger}); err == nil || time.Since(began) > time.Second {
		t.Errorf("Connect = %v after %v, want an error at once", err, time.Since(began))
	}
	got := n.cfg.Gate.Refused()
	for _, want := range []scope.Refusal{{Use: scope.Dial, Kind: scope.Private}, {Use: scope.Dial, Kind: scope.Metadata}, {Use: scope.Dial, Kind: scope.Shared}} {
		if got[want] == 0 {
			t.Errorf("not refused: %v of %v", want, got)
		}
	}
}

// A peer that the operator named by a name of the DNS is dialled wherever that
// leads, but to metadata.
func TestNamedPeersAreDialled(t *testing.T) {
	named, other := idOf(t, newKey(t)), idOf(t, newKey(t))
	gate := scope.NewGate(nil, false)
	gate.Own(scope.Dial, func() []scope.Kind { return []scope.Kind{scope.Public} })
	g := newDialGate(gate, []peer.AddrInfo{{ID: named, Addrs: []multiaddr.Multiaddr{addr(t, "/dns4/weir.internal/tcp/4001")}}})
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
		if got := g.InterceptAddrDial(tt.peer, addr(t, tt.addr)); got != tt.want {
			t.Errorf("%s dialled: %v, want %v", tt.addr, got, tt.want)
		}
	}
}

// Clients are sent to no address that its record alone vouches for: a candidate
// with such a one is passed over, and its lease given back.
func TestPlaceSendsNobodyOutOfScope(t *testing.T) {
	nodes := newTestNetwork(t, 2)
	var clerks []*clerk
	for _, url := range []string{"http://169.254.169.254/latest", "http://10.0.0.7:6379", "http://localhost.internal"} {
		var f *fake
		c := &clerk{reply: func(from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
			r := f.record()
			r.URL = url
			return &pb.ReserveResponse{Lease: f.lease(t, from, req), Record: seal(t, r, f.key)}
		}}
		f = newFake(t, nodes[0].info(), nil)
		f.host.SetStreamHandler(testProtocol(testReserves), c.handle)
		f.host.SetStreamHandler(testProtocol(testRecords), hang)
		r := f.record()
		r.URL, r.Sessions.Limit = url, 1_000 // the best of all
		for _, n := range nodes {
			f.host.Peerstore().AddAddrs(n.ID(), n.Host().Addrs(), time.Hour)
			f.call(t, n.ID(), advertisement(&pb.Entry{Topic: string(testHome), Sealed: seal(t, r, f.key)}))
		}
		clerks = append(clerks, c)
	}
	for range 5 {
		placed, d, err := nodes[0].Place(t.Context(), CapacityTopic(), view(), []peer.ID{nodes[0].ID()})
		if err != nil || placed.Lease.Target != nodes[1].ID() {
			t.Fatalf("placed on %s (%s), %v: %+v", placed.Lease.Target, placed.Candidate.Record.URL, err, d.Reservations)
		}
		for _, r := range d.Reservations {
			if r.Node != nodes[1].ID() && r.Reason != "address" && r.Reason != "abandoned" {
				t.Errorf("passed over for %q: %s", r.Reason, r.Detail)
			}
		}
	}
	eventually(t, func() error {
		for _, c := range clerks {
			if reserved, released := c.seen(); !slices.Equal(reserved, released) {
				return fmt.Errorf("reserved %v, released %v", reserved, released)
			}
		}
		return nil
	})
	// A cascade goes by libp2p, whatever the URL.
	need := view()
	need.Purpose = capacity.Cascade
	if err := nodes[0].reachable(need, &capacity.Record{URL: "http://10.0.0.7"}); err != nil {
		t.Errorf("a pull: %v", err)
	}
}
