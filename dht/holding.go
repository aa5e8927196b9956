package dht

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Discovery is who holds the records of all nodes. One protocol, one record and
// one policy serve all four.
type Discovery string

const (
	// Kademlia: the nodes closest to a topic's key in Kademlia's metric.
	Kademlia Discovery = "kademlia"
	// Broker: the listed brokers.
	Broker Discovery = "broker"
	// Pull: nobody; a seeker asks every listed node for its own record.
	Pull Discovery = "pull"
	// Push: every listed node; each node pushes its record to all.
	Push Discovery = "push"
)

// ParseDiscovery reads a Discovery; "" is Kademlia.
func ParseDiscovery(s string) (Discovery, error) {
	switch h := Discovery(s); h {
	case "":
		return Kademlia, nil
	case Kademlia, Broker, Pull, Push:
		return h, nil
	}
	return "", fmt.Errorf("discovery %q: want kademlia, broker, pull or push", s)
}

// listed reports whether the holders are configured, not elected.
func (h Discovery) listed() bool { return h != Kademlia }

// errNotHolder tells a publisher that it has come to the wrong place.
var errNotHolder = errors.New("this node holds no records of others: look at --discovery and at the list of servers on both nodes")

// holds reports why this node does not hold others' records.
func (n *Node) holds() error {
	switch n.cfg.Discovery {
	case Pull:
		return errNotHolder
	case Broker:
		if !slices.Contains(n.servers(), n.ID()) {
			return errNotHolder
		}
	}
	return nil
}

// servers are the listed servers, this node perhaps among them, in the order of
// their IDs. It sees to it that they can be dialled.
func (n *Node) servers() []peer.ID {
	if !n.cfg.Discovery.listed() {
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
	if n.cfg.Discovery == Pull {
		return holders{self: n.self() != ""}
	}
	now := time.Now()
	var h holders
	for _, p := range n.servers() {
		switch {
		case p == n.ID():
			h.self, h.all = n.self() != "", n.self() != ""
		case !n.reach.Down(now, p):
			h.remote = append(h.remote, p)
		}
	}
	return h
}
