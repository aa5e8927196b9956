package dht

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/directory"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

const (
	// probeEvery is how often one connected peer is asked what it says of
	// itself, and probeNew how soon the next one that never was.
	probeEvery = 5 * time.Second
	probeNew   = 500 * time.Millisecond
)

// probe asks connected peers in turn, to measure round trips and clocks, so that
// the node's coordinate takes in peers other than its holders, until ctx is done.
func (n *Node) probe(ctx context.Context) error {
	tick := time.NewTicker(probeNew)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		var members []peer.ID
		for _, ai := range n.peers.Members() {
			members = append(members, ai.ID)
		}
		p, fresh := n.status.Next(members)
		if p == "" || !fresh && time.Since(last) < probeEvery {
			continue
		}
		last = time.Now()
		n.status.Asked(last, p)
		if _, err := n.fetch(ctx, p, "", 0); err != nil && ctx.Err() == nil {
			n.log.Debug("round trip not measured", "peer", p, "err", err)
		}
	}
}

// Fetch returns id's own newest sealed records, its capacity record first, as
// id itself says. They are not verified.
func (n *Node) Fetch(ctx context.Context, id peer.ID) ([][]byte, error) {
	if id == n.ID() {
		return n.publisher.Sealed(fetchLimit), nil
	}
	n.peers.Locate(ctx, id)
	return n.fetch(ctx, id, "", fetchLimit)
}

// fetch asks for at most max of id's own records; those of one topic, unless
// that is empty.
func (n *Node) fetch(ctx context.Context, id peer.ID, topic Topic, max int) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, overlay.DialTimeout)
	defer cancel()
	var resp pb.Response
	rtt, _, err := n.overlay.Call(ctx, id, n.records, &pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{Topic: string(topic), Max: uint32(max)}}}, &resp, maxFetchReply)
	if err != nil {
		n.peers.Failed(id, err)
		return nil, err
	}
	n.peers.Answered(id, rtt)
	reply := resp.GetFetch()
	if reply == nil {
		return nil, fmt.Errorf("%s answered something else: %.200s", id, resp.Error)
	}
	now := time.Now()
	n.overlay.Coords.Observe(id, vivaldi.FromWire(reply.Coordinate), rtt)
	n.status.Take(now, n.wall(now), id, reply, rtt)
	sealed := reply.Sealed
	return sealed[:min(len(sealed), max)], nil
}

// Ping measures round trips to id by libp2p's ping protocol, connecting first if
// need be, and tells each until told returns false, ctx is done or a ping
// fails, which is the error.
func (n *Node) Ping(ctx context.Context, id peer.ID, told func(rtt time.Duration) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.peers.Locate(ctx, id)
	for r := range ping.Ping(ctx, n.overlay.Host, id) {
		if r.Error != nil {
			return overlay.WhyNotDialled(r.Error)
		}
		if !told(r.RTT) {
			return nil
		}
	}
	return ctx.Err()
}

// PeerInfo is what a node knows of another.
type PeerInfo struct {
	ID            peer.ID               `json:"peer_id"`
	Name          string                `json:"name,omitempty"` // its own claim
	Addrs         []multiaddr.Multiaddr `json:"addrs"`
	Connected     bool                  `json:"connected"`
	Member        bool                  `json:"member"`            // serves this network's protocol, as far as known
	RTT           float64               `json:"rtt_ms"`            // measured; 0: never
	CoordinateRTT float64               `json:"coordinate_rtt_ms"` // predicted; 0: unknown
	// CoordinateError is how far the peer trusts its coordinate: Vivaldi's
	// estimate of its relative error, without unit; 0: unknown.
	CoordinateError float64   `json:"coordinate_error"`
	Direction       string    `json:"direction,omitempty"` // "inbound", "outbound": who dialled
	Transport       string    `json:"transport,omitempty"` // "quic", "tcp"
	Holder          bool      `json:"holder"`              // of the capacity topic
	Since           time.Time `json:"since,omitzero"`      // connected since

	// What the peer itself said, at Told; zero: nothing yet.
	Told        time.Time      `json:"told,omitzero"`
	ClockOffset float64        `json:"clock_offset_ms"` // how far its clock is ahead of ours
	HoldsTopics int            `json:"holds_topics"`    // topics of which it holds records
	Holds       int            `json:"holds_records"`   // records it holds, its own included
	Discovery   directory.Mode `json:"discovery,omitempty"`
	Release     string         `json:"release,omitempty"`
}

// Peers lists the peers that are connected or in the routing table.
func (n *Node) Peers() []PeerInfo {
	holders := n.Holders(CapacityTopic())
	ids := slices.Concat(n.overlay.Host.Network().Peers(), n.overlay.Kad.RoutingTable().ListPeers())
	slices.Sort(ids)
	ids = slices.Compact(ids)
	list := make([]PeerInfo, 0, len(ids))
	for _, p := range ids {
		info := PeerInfo{
			ID:     p,
			Name:   n.Name(p),
			Addrs:  append([]multiaddr.Multiaddr{}, n.overlay.Host.Peerstore().Addrs(p)...),
			Member: n.peers.Member(p),
			RTT:    millis(n.peers.Live.RTT(p)),
			Holder: slices.Contains(holders, p),
		}
		slices.SortFunc(info.Addrs, multiaddr.Multiaddr.Compare)
		said := n.status.Of(p)
		at := said.Coordinate
		if h := n.table.Get(time.Now(), CapacityTopic(), p); at == nil && h != nil {
			at = h.Record.Coordinate
		}
		if at != nil {
			info.CoordinateRTT, info.CoordinateError = millis(n.overlay.Coords.Predict(at)), at.Error
		}
		info.Told, info.ClockOffset = said.At, millis(said.Clock)
		info.HoldsTopics, info.Holds = said.Topics, said.Records
		info.Discovery, info.Release = said.Mode, said.Release
		if conns := n.overlay.Host.Network().ConnsToPeer(p); len(conns) > 0 {
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

// Name is how id's operator calls it, as far as known: a claim, which several
// nodes may make. "" if it is not known.
func (n *Node) Name(id peer.ID) string {
	if id == n.ID() {
		me, _ := n.publisher.Own()
		return me.Name
	}
	if name := n.status.Of(id).Name; name != "" {
		return name
	}
	if h := n.table.Get(time.Now(), CapacityTopic(), id); h != nil {
		return h.Record.Name
	}
	return ""
}

// Names are the names of this node, of those it has asked lately, and of those
// whose records it holds.
func (n *Node) Names() map[peer.ID]string {
	names := n.status.Names()
	for _, records := range n.table.All(time.Now()) {
		for _, h := range records {
			if name := h.Record.Name; name != "" && names[h.Node()] == "" {
				names[h.Node()] = name
			}
		}
	}
	if name := n.Name(n.ID()); name != "" {
		names[n.ID()] = name
	}
	return names
}
