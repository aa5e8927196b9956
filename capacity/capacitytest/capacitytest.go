// Package capacitytest provides realistic records, leases and tickets, and keys
// to sign them, for tests.
package capacitytest

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
)

// Epoch is the tests' current time.
var Epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Key returns the same Ed25519 key for the same name every time.
func Key(tb testing.TB, name string) crypto.PrivKey {
	tb.Helper()
	seed := sha256.Sum256([]byte(name))
	key, _, err := crypto.GenerateEd25519Key(strings.NewReader(string(seed[:])))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// ID is the peer ID of the key that [Key] returns for name.
func ID(tb testing.TB, name string) peer.ID {
	tb.Helper()
	id, err := peer.IDFromPrivateKey(Key(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// Record returns a realistic record of a node called name.
func Record(tb testing.TB, name string) capacity.Record {
	tb.Helper()
	return capacity.Record{
		Node:   ID(tb, name),
		Name:   "sfu7",
		Seq:    uint64(Epoch.UnixMilli()) + 7,
		Issued: Epoch,
		TTL:    capacity.DefaultTTL,
		Addrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/ip4/203.0.113.7/udp/4001/quic-v1"),
			multiaddr.StringCast("/ip4/203.0.113.7/tcp/4001"),
		},
		URL:    "https://sfu7.eu.example.net",
		Media:  "203.0.113.7:4002",
		Region: "eu",
		Zone:   "eu-1a",
		Coordinate: &coordinate.Coordinate{
			Vec:   []float64{0.0125, -0.03125, 0.5, 0, 0.25, -0.125, 0.0625, 0.015625},
			Error: 0.25, Adjustment: -0.0078125, Height: 0.001953125,
		},
		Uplink:   capacity.Usage{Used: 312_000_000, Limit: 1_000_000_000},
		Downlink: capacity.Usage{Used: 48_000_000, Limit: 1_000_000_000},
		Packets:  capacity.Usage{Used: 39_000, Limit: 400_000},
		Sessions: capacity.Usage{Used: 61, Limit: 500},
		Streams:  capacity.Usage{Used: 12, Limit: 0},
		Reserved: 10_000_000,
		Cores:    8,
		CPU:      0.3127,
		CPULimit: 0.85,
		Release:  "v0.1.0",
		Features: []string{"cascade/1"},
		Policy:   3,
	}
}

// StreamInfo returns that of a relay two cascade links from the origin, at node.
func StreamInfo(tb testing.TB, node peer.ID) *capacity.StreamInfo {
	tb.Helper()
	return &capacity.StreamInfo{
		Stream:    "conference/main-stage",
		Depth:     2,
		Parent:    ID(tb, "relay"),
		ParentRTT: 12345 * time.Microsecond,
		Path:      []peer.ID{ID(tb, "origin"), ID(tb, "relay"), node},
		Viewers:   40,
		Children:  3,
		Fanout:    16,
		Tracks:    []string{"video/VP8", "audio/opus"},
	}
}

// RequestID is an ID of 128 random bits.
const RequestID = "5f9c4ab08cac7457e9111a30e4664920"

// Lease returns a lease of "target" to "from" for a cascade.
func Lease(tb testing.TB) capacity.Lease {
	tb.Helper()
	return capacity.Lease{
		ID:      RequestID,
		Target:  ID(tb, "target"),
		From:    ID(tb, "from"),
		Need:    capacity.Need{Purpose: capacity.Cascade, Stream: "conference/main-stage", Uplink: 5_000_000, Packets: 600, Region: "eu"},
		Expires: Epoch.Add(capacity.LeaseTime),
	}
}

// Ticket returns a ticket with which "from" redirects a viewer to "target".
func Ticket(tb testing.TB) capacity.Ticket {
	tb.Helper()
	return capacity.Ticket{
		Lease:   RequestID,
		Stream:  "conference/main-stage",
		Purpose: capacity.View,
		Target:  ID(tb, "target"),
		From:    ID(tb, "from"),
		Source:  ID(tb, "source"),
		SourceAddrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/ip4/203.0.113.7/udp/4001/quic-v1"),
			multiaddr.StringCast("/ip4/203.0.113.7/tcp/4001"),
		},
		Expires: Epoch.Add(capacity.LeaseTime),
	}
}
