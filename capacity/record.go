// Package capacity defines an SFU's claims about itself and the requests to it:
// the record and its load, needs, leases and tickets, refusals, stress; and the
// bounds of each.
//
// It is types and checks alone: no I/O, no goroutines, and no clock; time is
// passed in. The packages below it use them: signed seals and opens, policy
// chooses, ledger admits.
package capacity

import (
	"fmt"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// DefaultTTL is how long a record stays usable after it was issued.
	DefaultTTL = 15 * time.Second
	// MaxTTL bounds the TTL that a publisher may choose.
	MaxTTL = 60 * time.Second
	// MaxClockSkew is how far a publisher's clock may differ from this node's:
	// both may be five minutes wrong, in opposite directions. A record's age is
	// measured from when it came in; its own clock only bounds replays.
	MaxClockSkew = 11 * time.Minute
	// MaxAddrs bounds the libp2p addresses in a record.
	MaxAddrs = 6
	// MaxLabel bounds region and zone, in bytes.
	MaxLabel = 32
	// MaxName bounds a node's name, in bytes.
	MaxName = 32
	// MaxStreamName bounds a stream's name, in bytes.
	MaxStreamName = 128
	// MaxDepth bounds the cascade links between an origin and a carrier.
	MaxDepth = 8
)

// State is whether a node takes placements.
type State uint8

// The states of a node.
const (
	Active   State = iota // takes placements
	Draining              // takes none, and is emptying itself
	Full                  // takes none until its stress has dropped
)

// Usage is how much of one resource is used, and the limit at which it counts
// as exhausted. A zero Limit means the resource is not counted.
type Usage struct {
	Used  int64 `json:"used" expr:"used"`
	Limit int64 `json:"limit" expr:"limit"`
}

// Record is a node's claims about itself at one moment, and, in a stream's
// topic, about one stream that it carries.
//
// Seq rises with every record a node publishes, and the higher Seq wins. The
// zero Record is not valid: a node fills in its own just before
// [signed.SealRecord], and every other comes from [signed.OpenRecord].
type Record struct {
	Node   peer.ID
	Name   string        // given by its operator; several nodes may claim one; see [ValidName]
	Seq    uint64        // strictly increasing per node; starts at Unix ms
	Issued time.Time     // publisher's clock, ms resolution
	TTL    time.Duration // at most MaxTTL

	Addrs []multiaddr.Multiaddr // libp2p addresses, at most MaxAddrs, without /p2p
	URL   string                // public base URL of WHIP and WHEP
	Media string                // host:port of media, UDP

	State      State
	Region     string
	Zone       string
	Coordinate *coordinate.Coordinate // Vivaldi; nil if not known yet

	Uplink   Usage         // bit/s
	Downlink Usage         // bit/s
	Cores    float64       // CPU cores this node may use
	CPU      float64       // share of them in use, 0…1; CPULimit is the share that counts as exhausted
	CPULimit float64       // 0: CPU is not counted
	Delay    time.Duration // by which it is late in serving packets, as measured; 0: unknown
	Packets  Usage         // packets/s, forwarded
	Sessions Usage         // WHIP and WHEP sessions, leases included
	Streams  Usage
	Reserved int64 // bit/s promised in leases and not yet used

	Release  string   // version of the software
	Features []string // protocol features
	Policy   uint64   // version of the policy held

	// Carries is set in records of a stream's topic only.
	Carries *StreamInfo
}

// StreamState is whether a stream has a source where it is carried.
type StreamState uint8

// The states of a stream at one node.
const (
	Live    StreamState = iota
	Waiting             // its publisher was connected here, and has vanished
	Orphan              // this relay is cut off from the origin: nobody may pull it from here
)

// StreamInfo is a node's claim to carry one stream.
type StreamInfo struct {
	Stream    string        `json:"stream"`
	State     StreamState   `json:"state"`
	Origin    bool          `json:"origin"`           // the publisher is connected here
	Depth     int           `json:"depth"`            // cascade links to the origin; 0 there
	Parent    peer.ID       `json:"parent,omitempty"` // the node it is pulled from; empty at the origin
	ParentRTT time.Duration `json:"-"`                // as measured on the link
	Path      []peer.ID     `json:"path"`             // origin first, this node last; at most MaxDepth+1
	Viewers   int           `json:"viewers"`
	Children  int           `json:"children"` // cascade pulls served
	Fanout    int           `json:"fanout"`   // most cascade pulls of this stream; 0: unlimited
	Tracks    []string      `json:"tracks"`   // "video/VP8", "audio/opus"
}

// Expires is the record's expiry, by the publisher's clock.
func (r *Record) Expires() time.Time { return r.Issued.Add(r.TTL) }

// CheckAge returns nil if the record may be used at now, by this node's clock,
// and otherwise an error that wraps [ErrExpired] or [ErrFromFuture].
func (r *Record) CheckAge(now time.Time) error {
	if ahead := r.Issued.Sub(now); ahead > MaxClockSkew {
		return fmt.Errorf("%w: issued %v ahead of our clock", ErrFromFuture, ahead.Round(time.Millisecond))
	}
	if past := now.Sub(r.Expires()); past > MaxClockSkew {
		return fmt.Errorf("%w %v ago", ErrExpired, past.Round(time.Millisecond))
	}
	return nil
}
