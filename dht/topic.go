package dht

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/dht/holder"
)

// NetworkID separates networks on the wire: it is the first 16 hex digits of
// the SHA-256 of the network's name.
func NetworkID(name string) string {
	sum := sha256.Sum256([]byte("weir-network\x00" + name))
	return hex.EncodeToString(sum[:8])
}

func protocolPrefix(networkID string) protocol.ID {
	return protocol.ID("/weir/" + networkID)
}

// A Topic is one shared key; see [holder.Topic].
type Topic = holder.Topic

// CapacityTopic is the topic of the capacity records of all nodes, near ones
// first.
func CapacityTopic() Topic { return holder.CapacityTopic() }

// ShardTopic is the topic of the nodes of region whose Kademlia ID, the SHA-256
// of the peer ID, begins with bits, a string of 0 and 1. An empty region means
// nodes without one, and empty bits the whole region.
func ShardTopic(region, bits string) Topic { return holder.ShardTopic(region, bits) }

// StreamTopic is the topic of the origin and the relays of the stream called
// name.
func StreamTopic(name string) Topic { return holder.StreamTopic(name) }

// ProvisionTopic is the topic of the nodes that start servers in region, which
// may be empty.
func ProvisionTopic(region string) Topic { return holder.ProvisionTopic(region) }

// ProvisionFeature is in the records of nodes that start servers.
const ProvisionFeature = holder.ProvisionFeature
