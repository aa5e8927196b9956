package dht

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Holding is who holds the records of all nodes. One protocol, one record and
// one policy serve all four.
type Holding string

const (
	// HoldDHT: the nodes closest to a topic's key in Kademlia's metric.
	HoldDHT Holding = "dht"
	// HoldCentral: the listed brokers.
	HoldCentral Holding = "central"
	// HoldNone: nobody; a seeker asks every listed node for its own record.
	HoldNone Holding = "none"
	// HoldAll: every listed node; each node pushes its record to all.
	HoldAll Holding = "all"
)

// ParseHolding reads a Holding; "" is HoldDHT.
func ParseHolding(s string) (Holding, error) {
	switch h := Holding(s); h {
	case "":
		return HoldDHT, nil
	case HoldDHT, HoldCentral, HoldNone, HoldAll:
		return h, nil
	}
	return "", fmt.Errorf("holders %q: want dht, central, none or all", s)
}

// listed reports whether the holders are configured, not elected.
func (h Holding) listed() bool { return h != HoldDHT }

// errNotHolder tells a publisher that it has come to the wrong place.
var errNotHolder = errors.New("this node holds no records of others: look at --holders and at the list of servers on both nodes")

// holds reports why this node does not hold others' records.
func (n *Node) holds() error {
	switch n.cfg.Holding {
	case HoldNone:
		return errNotHolder
	case HoldCentral:
		if !slices.Contains(n.servers(), n.ID()) {
			return errNotHolder
		}
	}
	return nil
}

// servers are the listed servers, this node perhaps among them, in the order of
// their IDs. It sees to it that they can be dialled.
func (n *Node) servers() []peer.ID {
	if !n.cfg.Holding.listed() {
		return nil
	}
	var list []peer.ID
	for _, ai := range n.cfg.Servers() {
		list = append(list, ai.ID)
		n.cfg.Gate.Name(ai.Addrs...)
		if n.host.Network().Connectedness(ai.ID) != network.Connected {
			n.learn(ai.ID, ai.Addrs)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// electListed is electHolders where a list says who they are. Those that are
// down are left out.
func (n *Node) electListed() holders {
	if n.cfg.Holding == HoldNone {
		return holders{self: n.self() != ""}
	}
	now := time.Now()
	var h holders
	for _, p := range n.servers() {
		switch {
		case p == n.ID():
			h.self, h.all = n.self() != "", n.self() != ""
		case !n.reach.down(now, p):
			h.remote = append(h.remote, p)
		}
	}
	return h
}
