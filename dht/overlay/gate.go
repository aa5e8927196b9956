package overlay

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"weir/capacity/scope"
)

// A dialGate makes libp2p dial only the addresses that the gate allows,
// whatever their source: records, tickets, other peers, a resolved name. It
// does not restrict inbound connections.
type dialGate struct {
	*scope.Gate
	// named are the peers that the operator configured by a DNS name: the
	// operator vouches for the addresses it resolves to, except for addresses
	// that belong to no host.
	named map[peer.ID]bool
}

var _ connmgr.ConnectionGater = dialGate{}

func (g dialGate) InterceptPeerDial(peer.ID) bool { return true }
func (g dialGate) InterceptAddrDial(p peer.ID, a multiaddr.Multiaddr) bool {
	if kinds := scope.KindsOf([]multiaddr.Multiaddr{a}); g.named[p] && len(kinds) == 1 {
		switch kinds[0] {
		case scope.Loopback, scope.Private, scope.Shared:
			return true
		}
	}
	return g.CheckMultiaddr(scope.Dial, a) == nil
}
func (g dialGate) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (g dialGate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (g dialGate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func newDialGate(gate *scope.Gate, bootstrap []peer.AddrInfo) dialGate {
	g := dialGate{gate, map[peer.ID]bool{}}
	for _, ai := range bootstrap {
		for _, a := range ai.Addrs {
			if _, err := manet.ToIP(a); err != nil {
				g.named[ai.ID] = true
			}
		}
		gate.Name(ai.Addrs...)
	}
	return g
}

// gateOwn registers this node's own addresses with the gate.
func (o *Overlay) gateOwn() {
	own := func() []scope.Kind {
		if o.cfg.PublicIP.IsValid() {
			return []scope.Kind{scope.KindOf(o.cfg.PublicIP)}
		}
		listen, err := o.Host.Network().InterfaceListenAddresses()
		if err != nil {
			listen = o.Host.Network().ListenAddresses()
		}
		return scope.KindsOf(listen)
	}
	for _, use := range o.cfg.Uses {
		o.cfg.Gate.Own(use, own)
	}
}
