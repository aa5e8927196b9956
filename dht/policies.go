package dht

import (
	"context"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/policysync"
)

// policyConfig wires a [policysync.Sync] to this node.
func (n *Node) policyConfig() policysync.Config {
	return policysync.Config{
		Operator: n.cfg.Operator,
		Apply:    n.cfg.Apply,
		Peers: func() (peers []peer.ID) {
			for _, ai := range n.peers.Members() {
				peers = append(peers, ai.ID)
			}
			return peers
		},
		Exchange: func(ctx context.Context, p peer.ID, req *pb.PolicyExchange) (*pb.PolicyExchange, error) {
			resp := &pb.PolicyExchange{}
			_, _, err := n.overlay.Call(ctx, p, n.policyID, req, resp, policysync.MaxFrame)
			return resp, err
		},
		Joined: func() bool { return n.overlay.Kad.RoutingTable().Size() > 0 },
		Put: func(ctx context.Context, key string, value []byte) error {
			return n.overlay.Kad.PutValue(ctx, key, value)
		},
		Get: func(ctx context.Context, key string) ([]byte, error) { return n.overlay.Kad.GetValue(ctx, key) },
		Closest: func(key string) bool {
			id := kb.ConvertKey(key)
			return directory.Elect(id, n.self(), n.overlay.Kad.RoutingTable().NearestPeers(id, holder.Replicas)).Self
		},
		Go:  func(f func(context.Context)) bool { return n.overlay.Go(func() { f(n.overlay.Context()) }) },
		Log: n.log,
	}
}
