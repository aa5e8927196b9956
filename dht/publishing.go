package dht

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/datagram"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/publish"
	"weir/dht/vivaldi"
)

// publishing wires a [publish.Publisher] to this node.
func (n *Node) publishing(self peer.ID) publish.Config {
	var provisions []string
	if p := n.cfg.Provisioner; p != nil {
		provisions = p.Regions
	}
	return publish.Config{
		ID: self, Key: n.cfg.Key, Directory: n.dir, Sharding: n.sharding, Table: n.table, Live: n.peers.Live,
		Sample: n.cfg.Sample, Provisions: provisions, Coordinate: n.overlay.Coords.Here, Wall: n.wall,
		Addrs: func() []multiaddr.Multiaddr { return n.overlay.Host.Addrs() },
		Audience: func() publish.Audience {
			peers := append(n.overlay.Kad.RoutingTable().ListPeers(), n.servers()...)
			slices.Sort(peers)
			return publish.Audience{Liveness: n.peers.Live.Generation(), Cache: n.cache.Changes(), Peers: peers}
		},
		Connected: n.peers.Connected,
		Advertise: n.advertise, Datagram: func(p peer.ID, m *pb.Datagram) bool { return n.datagrams.Send(p, m) }, Acked: n.acked, Copied: func() { n.copies.Suspect() },
		Log: n.log,
	}
}

// advertise sends entries to p.
func (n *Node) advertise(ctx context.Context, p peer.ID, entries []*pb.Entry) (*pb.AdvertiseReply, time.Duration, error) {
	req := &pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: entries}}}
	var resp pb.Response
	rtt, _, err := n.overlay.Call(ctx, p, n.records, req, &resp, maxAdvertiseReply)
	if err != nil {
		n.peers.Failed(p, err)
		return nil, 0, err
	}
	n.peers.Answered(p, 0) // acked takes the round trip
	if resp.Error != "" {
		n.log.Debug("records refused", "peer", p, "err", resp.Error)
	}
	return resp.GetAdvertise(), rtt, nil
}

// acked takes in the reply of p, a holder, to records.
func (n *Node) acked(p peer.ID, reply *pb.AdvertiseReply, rtt time.Duration, accepted bool) {
	n.peers.Answered(p, rtt)
	n.overlay.Coords.Observe(p, vivaldi.FromWire(reply.Coordinate), rtt)
	if accepted {
		n.overlay.Host.ConnManager().TagPeer(p, holderTag, peerWeight)
	}
	n.meet(p, reply.Closer)
}

// meet checks holders that a peer named: only those that answer count.
func (n *Node) meet(from peer.ID, named []*pb.Peer) {
	for _, w := range named[:min(len(named), holding.MaxCloser)] {
		ai, err := w.AddrInfo()
		if err != nil {
			n.log.Debug("holder named is no peer", "peer", from, "err", err)
			continue
		}
		now := time.Now()
		if ai.ID == n.ID() || n.peers.Live.Down(now, ai.ID) || !n.dir.Meets(now, ai.ID) {
			continue
		}
		n.overlay.Go(func() {
			ctx, cancel := context.WithTimeout(n.overlay.Context(), overlay.DialTimeout)
			defer cancel()
			if err := n.peers.Verify(ctx, ai); err != nil {
				if n.overlay.Context().Err() == nil {
					n.log.Debug("holder named is not there", "peer", ai.ID, "by", from, "err", err)
				}
				return
			}
			n.cache.Add(ai.ID)
		})
	}
}

// holdingConfig wires a [holding.Holder] to this node.
func (n *Node) holdingConfig(self peer.ID) holding.Config {
	return holding.Config{
		ID: self, NetworkID: n.network, Directory: n.dir, Sharding: n.sharding, Table: n.table, Doubts: n.doubts, Rates: &n.rates,
		Policy: n.cfg.Policy, Wall: n.wall, Log: n.log,
		Introduce: func(id peer.ID) *pb.Peer { return pb.PeerOf(n.overlay.Host.Peerstore().PeerInfo(id)) },
		Accepted:  func(from peer.ID) { n.overlay.Host.ConnManager().TagPeer(from, publisherTag, peerWeight) },
		Left:      n.peers.Live.Leave,
	}
}

// newDatagrams wires received datagrams to the publisher and the holder.
func (n *Node) newDatagrams() *datagram.Exchange {
	return datagram.New(datagram.Config{
		NetworkID: n.network, Protocol: n.records + "/datagram", Traffic: n.overlay.Traffic, Conns: n.overlay.Host.Network().ConnsToPeer,
		Go: func(f func(context.Context)) { n.overlay.Go(func() { f(n.overlay.Context()) }) }, Rates: &n.rates,
		Heard: func(from peer.ID) { n.peers.Answered(from, 0) }, Answered: n.publisher.Answered, Lacks: n.publisher.Lacks, Hold: n.holding.Datagram,
		Log: n.log,
	})
}
