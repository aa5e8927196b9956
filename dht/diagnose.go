package dht

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/inspect"
	"weir/dht/overlay"
	"weir/dht/policysync"
)

// Diagnose finds out, within [inspect.MaxTime], whether this node's network is
// empty, partitioned or wrong in another way, and why. It dials the peers that
// the node ought to reach. Open means that the node is meant to be reachable
// from other machines.
func (n *Node) Diagnose(ctx context.Context, open bool) []inspect.Finding {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.Overlay.Context(), cancel)()
	return n.examiner().Examine(ctx, open).Findings()
}

func (n *Node) examiner() *inspect.Examiner {
	return &inspect.Examiner{
		Host:      n.Overlay.Host,
		Network:   inspect.Network{Name: n.cfg.Network, ID: n.network},
		Client:    n.cfg.Client,
		Mode:      n.cfg.Discovery,
		Bootstrap: directory.EachOnce(n.cfg.Bootstrap),
		Servers:   n.cfg.Servers,
		Remembered: func() []peer.AddrInfo {
			remembered, _ := overlay.ReadPeerFile(n.cfg.PeerFile) // a damaged file was reported at start
			return remembered
		},
		MetSince: n.Prober.Since,
		Met:      func(p peer.ID) time.Time { return n.Prober.Of(p).At },
		Said: func(p peer.ID) inspect.SelfReport {
			said := n.Prober.Of(p)
			return inspect.SelfReport{Mode: said.Mode, Timed: said.Timed, Ahead: said.Clock}
		},
		Member: n.peers.Member,
		Retry:  n.peers.ClearBackoff,
		Ask:    n.Prober.Ask,
		Policy: func() inspect.Policy {
			version, compared := n.Policies.Compared()
			p := inspect.Policy{Operated: n.cfg.Operator != "", Version: version, Every: policysync.CompareEvery}
			if !compared.IsZero() {
				p.Heard, p.Age = true, time.Since(compared)
			}
			return p
		},
		TableSize: func() int { return n.Overlay.Kad.RoutingTable().Size() },
		SelfAt:    func() []multiaddr.Multiaddr { return overlay.Elsewhere(n.ID(), n.cfg.Bootstrap, n.Overlay.OwnAddrs()) },
		Record:    n.ownRecord,
	}
}

// ownRecord finds out which holders have this node's record, the nodes whose
// records they have, and the record of another process with this identity.
func (n *Node) ownRecord(ctx context.Context) (own inspect.OwnRecord, others []peer.AddrInfo, copied *capacity.Record) {
	if _, own.Published = n.Publisher.Own(); own.Published && !n.cfg.Discovery.Own() {
		home := n.sharding.Home()
		own.Holders = slices.DeleteFunc(n.Holders(home), func(p peer.ID) bool { return p == n.ID() })
		var changes []inspect.Change
		var heard Hearing
		changes, heard, own.Err = n.Reader.Read(ctx, home)
		for _, s := range heard.Silent {
			if slices.Contains(own.Holders, s.Node) {
				own.Silent++
			}
		}
		for _, c := range changes {
			if c.Err != nil {
				continue
			}
			if c.Node == n.ID() && c.Holder != n.ID() && !slices.Contains(own.Have, c.Holder) {
				own.Have = append(own.Have, c.Holder)
			}
			others = append(others, peer.AddrInfo{ID: c.Node, Addrs: c.Record.Addrs})
		}
		n.copies.Note(inspect.OfNode(changes, n.ID()))
	}
	if r, ok := n.copies.Seen(); ok {
		copied = &r
	}
	return own, others, copied
}
