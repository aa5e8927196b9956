package dht

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
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

// A Topic is one shared key. "capacity/<region>/<shard>" holds one record per
// node of the region whose Kademlia ID begins with the shard's bits, and
// "stream/<name>" one per node that carries the stream. "regions" holds a few
// nodes of each region, by which seekers elsewhere find the region.
// "provision/<region>" holds those that start servers in the region.
//
// "capacity" is no key but all capacity topics together: what a holder of
// everything is asked for, and what a seeker means that wants a node anywhere.
type Topic string

const (
	streamPrefix    = "stream/"
	capacityPrefix  = "capacity/"
	provisionPrefix = "provision/"
	// regionsTopic is the index of regions.
	regionsTopic = Topic("regions")
	// unlabelled stands for the lack of a region, or of bits, in a topic. It
	// is no label, where it would be escaped.
	unlabelled = "*"
	// maxShardBits bounds how often a region is split.
	maxShardBits = 16
)

// CapacityTopic means the capacity records of all nodes, near ones first.
func CapacityTopic() Topic { return "capacity" }

// ShardTopic is the topic of the nodes of region whose Kademlia ID, the SHA-256
// of the peer ID, begins with bits, a string of 0 and 1. Both may be empty:
// nodes without a region, and the whole region.
func ShardTopic(region, bits string) Topic {
	return Topic(capacityPrefix + cmp.Or(escapeLabel(region), unlabelled) + "/" + cmp.Or(bits, unlabelled))
}

// escapeLabel makes a label fit for a topic, where / and * mean something.
func escapeLabel(s string) string { return strings.ReplaceAll(url.PathEscape(s), "*", "%2A") }

// StreamTopic is the topic of the carriers of the stream called name.
func StreamTopic(name string) Topic { return Topic(streamPrefix + name) }

// ProvisionTopic is the topic of the nodes that start servers in region, which
// may be empty.
func ProvisionTopic(region string) Topic {
	return Topic(provisionPrefix + cmp.Or(escapeLabel(region), unlabelled))
}

// provisions reports whether t is a [ProvisionTopic].
func (t Topic) provisions() bool {
	label, ok := strings.CutPrefix(string(t), provisionPrefix)
	if !ok || label == unlabelled {
		return ok
	}
	region, err := url.PathUnescape(label)
	return err == nil && region != "" && len(region) <= capacity.MaxLabel && ProvisionTopic(region) == t
}

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

// shard returns the region and the bits of a capacity topic.
func (t Topic) shard() (region, bits string, ok bool) {
	rest, ok := strings.CutPrefix(string(t), capacityPrefix)
	if !ok {
		return "", "", false
	}
	label, bits, ok := strings.Cut(rest, "/")
	if !ok || len(bits) > maxShardBits || bits != unlabelled && strings.Trim(bits, "01") != "" {
		return "", "", false
	}
	if label != unlabelled {
		var err error
		if region, err = url.PathUnescape(label); err != nil || region == "" || len(region) > capacity.MaxLabel {
			return "", "", false
		}
	}
	if bits == unlabelled {
		bits = ""
	}
	// One name each: another spelling would be another key.
	return region, bits, ShardTopic(region, bits) == t
}

// check reports why t is not a topic that records are held in.
func (t Topic) check() error {
	if _, _, ok := t.shard(); ok || t == regionsTopic || t.provisions() {
		return nil
	}
	name, ok := strings.CutPrefix(string(t), streamPrefix)
	if !ok {
		return fmt.Errorf("unknown topic %.40q", string(t))
	}
	return capacity.ValidStreamName(name)
}

// checkAsked is check for topics that may be asked for.
func (t Topic) checkAsked() error {
	if t == CapacityTopic() {
		return nil
	}
	return t.check()
}

var errWrongTopic = errors.New("record of another topic")

// fits reports whether r belongs in t: a stream's topic holds records that
// carry that stream, a shard's those of its nodes, which carry none. In a
// provision topic are those that say that they start servers, wherever they are.
func (t Topic) fits(r *capacity.Record) error {
	stream := t.Stream()
	if (stream == "") != (r.Carries == nil) || stream != "" && r.Carries.Stream != stream {
		return errWrongTopic
	}
	if t.provisions() && !slices.Contains(r.Features, ProvisionFeature) {
		return errWrongTopic
	}
	if region, bits, ok := t.shard(); ok && (r.Region != region || !strings.HasPrefix(idBits(r.Node), bits)) {
		return errWrongTopic
	}
	return nil
}

// idBits are the first maxShardBits bits of p's Kademlia ID.
func idBits(p peer.ID) string {
	id := kb.ConvertPeerID(p)
	return fmt.Sprintf("%016b", binary.BigEndian.Uint16(id))
}

// covers reports whether t means u and others.
func (t Topic) covers(u Topic) bool {
	_, _, ok := u.shard()
	return ok && t == CapacityTopic()
}
