package capacity

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// epoch is the tests' now.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keyOf returns the same Ed25519 key for the same name every time.
func keyOf(tb testing.TB, name string) crypto.PrivKey {
	tb.Helper()
	seed := sha256.Sum256([]byte(name))
	key, _, err := crypto.GenerateEd25519Key(strings.NewReader(string(seed[:])))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func idOf(tb testing.TB, name string) peer.ID {
	tb.Helper()
	id, err := peer.IDFromPrivateKey(keyOf(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// typicalRecord is that of a node called name, as it would be in production.
func typicalRecord(tb testing.TB, name string) Record {
	tb.Helper()
	return Record{
		Node:   idOf(tb, name),
		Name:   "sfu7",
		Seq:    uint64(epoch.UnixMilli()) + 7,
		Issued: epoch,
		TTL:    DefaultTTL,
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
		Uplink:   Usage{312_000_000, 1_000_000_000},
		Downlink: Usage{48_000_000, 1_000_000_000},
		Packets:  Usage{39_000, 400_000},
		Sessions: Usage{61, 500},
		Streams:  Usage{12, 0},
		Reserved: 10_000_000,
		Cores:    8,
		CPU:      0.3127,
		CPULimit: 0.85,
		Release:  "v0.1.0",
		Features: []string{"cascade/1"},
		Policy:   3,
	}
}

// typicalCarriage is that of a relay of a relay.
func typicalCarriage(tb testing.TB, node peer.ID) *Carriage {
	tb.Helper()
	return &Carriage{
		Stream:    "conference/main-stage",
		Depth:     2,
		Parent:    idOf(tb, "relay"),
		ParentRTT: 12345 * time.Microsecond,
		Path:      []peer.ID{idOf(tb, "origin"), idOf(tb, "relay"), node},
		Viewers:   40,
		Children:  3,
		Fanout:    16,
		Tracks:    []string{"video/VP8", "audio/opus"},
	}
}

const requestID = "5f9c4ab08cac7457e9111a30e4664920"

func typicalLease(tb testing.TB) Lease {
	tb.Helper()
	return Lease{
		ID:      requestID,
		Target:  idOf(tb, "target"),
		From:    idOf(tb, "from"),
		Need:    Need{Purpose: Cascade, Stream: "conference/main-stage", Uplink: 5_000_000, Packets: 600, Region: "eu"},
		Expires: epoch.Add(LeaseTime),
	}
}

func typicalTicket(tb testing.TB) Ticket {
	tb.Helper()
	return Ticket{
		Lease:   requestID,
		Stream:  "conference/main-stage",
		Purpose: View,
		Target:  idOf(tb, "target"),
		From:    idOf(tb, "from"),
		Source:  idOf(tb, "source"),
		SourceAddrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/ip4/203.0.113.7/udp/4001/quic-v1"),
			multiaddr.StringCast("/ip4/203.0.113.7/tcp/4001"),
		},
		Expires: epoch.Add(LeaseTime),
	}
}
