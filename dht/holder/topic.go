package holder

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// A Topic is one shared key. "capacity/<region>/<shard>" holds one record per
// node of the region whose Kademlia ID begins with the shard's bits, and
// "stream/<name>" one per node that carries the stream. "regions" holds a few
// nodes of each region, through which seekers elsewhere find the region.
// "provision/<region>" holds the nodes that start servers in the region.
//
// "capacity" is no key but stands for all capacity topics: it is used to ask a
// node that holds everything, and by a seeker that wants any node.
type Topic string

const (
	streamPrefix    = "stream/"
	capacityPrefix  = "capacity/"
	provisionPrefix = "provision/"
	// ProvisionFeature is in the records of nodes that start servers.
	ProvisionFeature = "provision/1"
	// RegionsTopic is the index of regions.
	RegionsTopic = Topic("regions")
	// unlabelled stands for a missing region, or missing bits, in a topic. It
	// is no valid label, because there it would be escaped.
	unlabelled = "*"
	// MaxShardBits bounds how often a region is split.
	MaxShardBits = 16
)

// CapacityTopic stands for the capacity records of all nodes, near ones first.
func CapacityTopic() Topic { return "capacity" }

// ShardTopic is the topic of the nodes of region whose Kademlia ID, the SHA-256
// of the peer ID, begins with bits, a string of 0 and 1. An empty region means
// nodes without one, and empty bits the whole region.
func ShardTopic(region, bits string) Topic {
	return Topic(capacityPrefix + cmp.Or(escapeLabel(region), unlabelled) + "/" + cmp.Or(bits, unlabelled))
}

// escapeLabel escapes / and *, which have a meaning in topics.
func escapeLabel(s string) string { return strings.ReplaceAll(url.PathEscape(s), "*", "%2A") }

// StreamTopic is the topic of the origin and the relays of the stream called
// name.
func StreamTopic(name string) Topic { return Topic(streamPrefix + name) }

// ProvisionTopic is the topic of the nodes that start servers in region, which
// may be empty.
func ProvisionTopic(region string) Topic {
	return Topic(provisionPrefix + cmp.Or(escapeLabel(region), unlabelled))
}

// Provisions reports whether t is a [ProvisionTopic].
func (t Topic) Provisions() bool {
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

// Shard returns the region and the bits of a capacity topic.
func (t Topic) Shard() (region, bits string, ok bool) {
	rest, ok := strings.CutPrefix(string(t), capacityPrefix)
	if !ok {
		return "", "", false
	}
	label, bits, ok := strings.Cut(rest, "/")
	if !ok || len(bits) > MaxShardBits || bits != unlabelled && strings.Trim(bits, "01") != "" {
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
	// One spelling each: another one would be another key.
	return region, bits, ShardTopic(region, bits) == t
}

// Check returns an error if no records are held in t.
func (t Topic) Check() error {
	if _, _, ok := t.Shard(); ok || t == RegionsTopic || t.Provisions() {
		return nil
	}
	name, ok := strings.CutPrefix(string(t), streamPrefix)
	if !ok {
		return fmt.Errorf("unknown topic %.40q", string(t))
	}
	return capacity.ValidStreamName(name)
}

// CheckAsked returns an error if t may not be queried.
func (t Topic) CheckAsked() error {
	if t == CapacityTopic() {
		return nil
	}
	return t.Check()
}

// ErrWrongTopic means that a record does not belong in a topic.
var ErrWrongTopic = errors.New("record of another topic")

// Fits returns an error unless r belongs in t: a stream's topic holds records
// that carry that stream, and a shard's those of its nodes, which carry none. A
// provision topic holds the records with [ProvisionFeature], of any region.
func (t Topic) Fits(r *capacity.Record) error {
	stream := t.Stream()
	if (stream == "") != (r.Carries == nil) || stream != "" && r.Carries.Stream != stream {
		return ErrWrongTopic
	}
	if t.Provisions() && !slices.Contains(r.Features, ProvisionFeature) {
		return ErrWrongTopic
	}
	if region, bits, ok := t.Shard(); ok && (r.Region != region || !strings.HasPrefix(IDBits(r.Node), bits)) {
		return ErrWrongTopic
	}
	return nil
}

// IDBits are the first MaxShardBits bits of p's Kademlia ID.
func IDBits(p peer.ID) string {
	id := kb.ConvertPeerID(p)
	return fmt.Sprintf("%016b", binary.BigEndian.Uint16(id))
}

// Covers reports whether t includes the records of u, beside others.
func (t Topic) Covers(u Topic) bool {
	_, _, ok := u.Shard()
	return ok && t == CapacityTopic()
}
