package api

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
)

// A Stream is one stream, network wide.
type Stream struct {
	Stream   string    `json:"stream"`
	Tracks   []string  `json:"tracks"`
	Viewers  int       `json:"viewers"`
	Carriers []Carrier `json:"carriers"` // origin first, then by depth
}

// A Carrier is a node that carries a stream, as the origin or as a relay.
type Carrier struct {
	Node      peer.ID              `json:"node"`
	Name      string               `json:"name"`
	URL       string               `json:"url"`
	Region    string               `json:"region"`
	State     capacity.StreamState `json:"state"`
	Origin    bool                 `json:"origin"`
	Depth     int                  `json:"depth"`
	Parent    peer.ID              `json:"parent,omitempty"`
	ParentRTT float64              `json:"parent_rtt_ms"`
	Viewers   int                  `json:"viewers"`
	Children  int                  `json:"children"`
	Fanout    int                  `json:"fanout"`
	Path      []peer.ID            `json:"path"`
}

// A Streams is the streams of the network as reported by their carriers.
type Streams struct {
	Streams []Stream `json:"streams"`
	// Hearing says which holders of the nodes' records have not answered, and
	// Silent which carriers have not said which streams they carry.
	Hearing dht.Hearing   `json:"hearing"`
	Silent  []dht.Silence `json:"silent,omitempty"`
}

// Whole reports whether a stream missing from the list does not exist.
func (l Streams) Whole() bool { return l.Hearing.Enough() && len(l.Silent) == 0 }

// NetworkState is the state that the console shows.
type NetworkState struct {
	Self    peer.ID    `json:"self"`
	Network string     `json:"network"`
	Nodes   []Record   `json:"nodes"`
	Streams []Stream   `json:"streams"`
	Gone    []GoneNode `json:"gone"`
	// Hearing and Silent are as in Streams: the entries that may be missing.
	Hearing dht.Hearing   `json:"hearing"`
	Silent  []dht.Silence `json:"silent,omitempty"`
	Time    time.Time     `json:"time"`
}

// A GoneNode is a node that published until recently.
type GoneNode struct {
	Node   peer.ID `json:"node"`
	Name   string  `json:"name,omitempty"`
	Region string  `json:"region,omitempty"`
	For    float64 `json:"gone_ms"`
	// Unsure means that not all holders answered; one of them may have its record.
	Unsure bool `json:"unsure,omitempty"`
}
