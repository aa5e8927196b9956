package dht

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/pb"
)

// probeEvery is how often the round trip to one connected peer, drawn at
// random, is measured.
const probeEvery = 5 * time.Second

// probe measures round trips, so that the node's coordinate takes in peers
// other than its holders, until ctx is done.
func (n *Node) probe(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		members := n.members()
		if len(members) == 0 {
			continue
		}
		p := members[rand.IntN(len(members))].ID
		if _, err := n.fetch(ctx, p, 0); err != nil && ctx.Err() == nil {
			n.log.Debug("round trip not measured", "peer", p, "err", err)
		}
	}
}

// Fetch returns id's own newest sealed records, its capacity record first, as
// id itself says. They are not verified.
func (n *Node) Fetch(ctx context.Context, id peer.ID) ([][]byte, error) {
	if id == n.ID() {
		return n.outbox.sealed(fetchLimit), nil
	}
	n.locate(ctx, id)
	return n.fetch(ctx, id, fetchLimit)
}

func (n *Node) fetch(ctx context.Context, id peer.ID, max int) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var resp pb.Response
	rtt, _, err := n.call(ctx, id, n.records, &pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{Max: uint32(max)}}}, &resp, maxFetchReply)
	if err != nil {
		n.failed(id, err)
		return nil, err
	}
	n.answered(id, rtt)
	n.coords.observe(id, coordinateFromWire(resp.GetFetch().GetCoordinate()), rtt)
	sealed := resp.GetFetch().GetSealed()
	return sealed[:min(len(sealed), max)], nil
}

// PeerInfo is what a node knows of another.
type PeerInfo struct {
	ID            peer.ID               `json:"peer_id"`
	Addrs         []multiaddr.Multiaddr `json:"addrs"`
	Connected     bool                  `json:"connected"`
	RTT           float64               `json:"rtt_ms"`              // measured; 0: never
	CoordinateRTT float64               `json:"coordinate_rtt_ms"`   // predicted; 0: unknown
	Direction     string                `json:"direction,omitempty"` // "inbound", "outbound": who dialled
	Transport     string                `json:"transport,omitempty"` // "quic", "tcp"
	Holder        bool                  `json:"holder"`              // of the capacity topic
	Since         time.Time             `json:"since,omitzero"`      // connected since
}

// Peers lists the peers that are connected or in the routing table.
func (n *Node) Peers() []PeerInfo {
	holders := n.Holders(CapacityTopic())
	ids := slices.Concat(n.host.Network().Peers(), n.kad.RoutingTable().ListPeers())
	slices.Sort(ids)
	ids = slices.Compact(ids)
	list := make([]PeerInfo, 0, len(ids))
	for _, p := range ids {
		info := PeerInfo{
			ID:     p,
			Addrs:  append([]multiaddr.Multiaddr{}, n.host.Peerstore().Addrs(p)...),
			RTT:    millis(n.reach.rtt(p)),
			Holder: slices.Contains(holders, p),
		}
		slices.SortFunc(info.Addrs, multiaddr.Multiaddr.Compare)
		if h := n.table.get(time.Now(), CapacityTopic(), p); h != nil {
			info.CoordinateRTT = millis(n.coords.predict(h.record.Coordinate))
		}
		if conns := n.host.Network().ConnsToPeer(p); len(conns) > 0 {
			c := conns[0]
			info.Connected = true
			info.Since = c.Stat().Opened
			info.Direction = "inbound"
			if c.Stat().Direction == network.DirOutbound {
				info.Direction = "outbound"
			}
			info.Transport = "tcp"
			if _, err := c.RemoteMultiaddr().ValueForProtocol(multiaddr.P_QUIC_V1); err == nil {
				info.Transport = "quic"
			}
		}
		list = append(list, info)
	}
	return list
}

// HeldTopic is what a node holds of one topic.
type HeldTopic struct {
	Topic   Topic        `json:"topic"`
	Records []HeldRecord `json:"records"`
}

// HeldRecord is one record that a node holds, times by its own clock.
type HeldRecord struct {
	Node   peer.ID       `json:"node"`
	Seq    uint64        `json:"seq"`
	Sealed []byte        `json:"-"`
	For    time.Duration `json:"-"` // since it came in
	Left   time.Duration `json:"-"` // until it is dropped
}

// Held is what this node holds, for others and of its own, for inspection.
func (n *Node) Held() []HeldTopic {
	now := time.Now()
	list := []HeldTopic{}
	for topic, records := range n.table.all(now) {
		t := HeldTopic{Topic: topic}
		for _, h := range records {
			t.Records = append(t.Records, HeldRecord{
				Node:   h.node(),
				Seq:    h.record.Seq,
				Sealed: h.sealed,
				For:    now.Sub(h.received),
				Left:   h.expires.Sub(now),
			})
		}
		slices.SortFunc(t.Records, func(a, b HeldRecord) int { return cmp.Compare(a.Node, b.Node) })
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b HeldTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return list
}
