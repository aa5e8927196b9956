package main

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht"
)

// A streamEntry is one stream, network wide.
type streamEntry struct {
	Stream   string         `json:"stream"`
	Tracks   []string       `json:"tracks"`
	Viewers  int            `json:"viewers"`
	Carriers []carrierEntry `json:"carriers"` // origin first, then by depth
}

type carrierEntry struct {
	Node      peer.ID   `json:"node"`
	Name      string    `json:"name"`
	URL       string    `json:"url"`
	Region    string    `json:"region"`
	Origin    bool      `json:"origin"`
	Depth     int       `json:"depth"`
	Parent    peer.ID   `json:"parent,omitempty"`
	ParentRTT float64   `json:"parent_rtt_ms"`
	Viewers   int       `json:"viewers"`
	Children  int       `json:"children"`
	Fanout    int       `json:"fanout"`
	Path      []peer.ID `json:"path"`
}

// A streamList is the streams of the network as their carriers tell of them.
type streamList struct {
	Streams []streamEntry `json:"streams"`
	// Hearing says which holders of the nodes' records have not answered, and
	// Silent which nodes carry streams and have not said which.
	Hearing dht.Hearing   `json:"hearing"`
	Silent  []dht.Silence `json:"silent,omitempty"`
}

// whole reports whether a stream that is not in the list is nowhere.
func (l streamList) whole() bool { return l.Hearing.Enough() && len(l.Silent) == 0 }

// networkState is what the console shows.
type networkState struct {
	Self    peer.ID       `json:"self"`
	Network string        `json:"network"`
	Nodes   []recordEntry `json:"nodes"`
	Streams []streamEntry `json:"streams"`
	Gone    []goneEntry   `json:"gone"`
	// Hearing and Silent are as in streamList: what may be missing.
	Hearing dht.Hearing   `json:"hearing"`
	Silent  []dht.Silence `json:"silent,omitempty"`
	Time    time.Time     `json:"time"`
}

// A goneEntry is a node that published until lately.
type goneEntry struct {
	Node   peer.ID `json:"node"`
	Name   string  `json:"name,omitempty"`
	Region string  `json:"region,omitempty"`
	For    float64 `json:"gone_ms"`
	// Unsure: not all holders answered, one of which may have its record.
	Unsure bool `json:"unsure,omitempty"`
}
