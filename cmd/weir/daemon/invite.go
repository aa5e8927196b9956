package daemon

import (
	"weir/cmd/weir/invite"

	"github.com/libp2p/go-libp2p/core/peer"
)

// invite makes a token for joining this node's network.
func (n *node) invite() (string, error) {
	i := invite.Invitation{Version: invite.Version, Network: n.cfg.network, Operator: n.cfg.operator.String()}
	if n.cfg.operator == "" {
		i.Operator = ""
	}
	add := func(list []string, more ...string) []string {
		for _, a := range more {
			if len(list) < invite.MaxAddrs {
				list = append(list, a)
			}
		}
		return list
	}
	for _, a := range n.dht.Overlay.Addrs() {
		i.Bootstrap = add(i.Bootstrap, a.String())
	}
	i.Bootstrap = add(i.Bootstrap, n.cfg.bootstrap...)
	if n.cfg.servers != nil {
		i.Discovery = string(n.cfg.discovery)
		for _, s := range n.cfg.servers.Servers() {
			addrs, err := peer.AddrInfoToP2pAddrs(&s)
			if err != nil {
				continue
			}
			for _, a := range addrs {
				i.Servers = add(i.Servers, a.String())
			}
		}
	}
	return i.Token()
}
