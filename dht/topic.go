package dht

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
)

// NetworkID is what keeps networks apart on the wire: the first 16 hex digits
// of the SHA-256 of the network's name.
func NetworkID(name string) string {
	sum := sha256.Sum256([]byte("weir-network\x00" + name))
	return hex.EncodeToString(sum[:8])
}

func protocolPrefix(networkID string) protocol.ID {
	return protocol.ID("/weir/" + networkID)
}

// A Topic is one shared key: "capacity/<region>/<shard>" holds one record per
// node, "stream/<name>" one per node that carries the stream.
type Topic string

const streamPrefix = "stream/"

// CapacityTopic is the topic of all nodes' capacity records: one region level
// and one shard.
func CapacityTopic() Topic { return "capacity/all/0" }

// StreamTopic is the topic of the carriers of the stream called name.
func StreamTopic(name string) Topic { return Topic(streamPrefix + name) }

// Key is the topic's Kademlia key in the network networkID: the SHA-256 of
// both.
func (t Topic) Key(networkID string) string {
	sum := sha256.Sum256([]byte(networkID + "\x00" + string(t)))
	return string(sum[:])
}

// Stream returns the name of the stream whose topic t is, or "".
func (t Topic) Stream() string {
	name, ok := strings.CutPrefix(string(t), streamPrefix)
	if !ok {
		return ""
	}
	return name
}

// check reports why t is not a topic.
func (t Topic) check() error {
	if t == CapacityTopic() {
		return nil
	}
	name, ok := strings.CutPrefix(string(t), streamPrefix)
	if !ok {
		return fmt.Errorf("unknown topic %.40q", string(t))
	}
	return capacity.ValidStreamName(name)
}

var errWrongTopic = errors.New("record of another topic")

// fits reports whether r belongs in t: a stream's topic holds records that
// carry that stream, the capacity topic records that carry none.
func (t Topic) fits(r *capacity.Record) error {
	stream := t.Stream()
	if (stream == "") != (r.Carries == nil) || stream != "" && r.Carries.Stream != stream {
		return errWrongTopic
	}
	return nil
}
