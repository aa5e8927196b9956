// Package vivaldi keeps this node's network coordinate, from which round trips
// are predicted, and encodes and decodes coordinates. It starts no goroutines.
package vivaldi

import (
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
	"weir/capacity/signed"
	"weir/dht/holder"
)

// A Client keeps this node's coordinate (Dabek et al., "Vivaldi: A Decentralized
// Network Coordinate System", SIGCOMM 2004, as implemented in hashicorp/serf).
// Its times are in seconds. It is safe for concurrent use; [New] makes one.
type Client struct{ client *coordinate.Client }

// New returns a client at the origin, with the least trust in its coordinate.
func New() (Client, error) {
	c, err := coordinate.NewClient(coordinate.DefaultConfig())
	return Client{c}, err
}

// Observe takes in a round trip to p, at the coordinate that p reports. An
// invalid coordinate, or a time out of bounds, is ignored.
func (c Client) Observe(p peer.ID, at *coordinate.Coordinate, rtt time.Duration) {
	if at != nil && rtt > 0 {
		_, _ = c.client.Update(string(p), at, rtt) // an error means just that
	}
}

// Forget drops the samples of p.
func (c Client) Forget(p peer.ID) { c.client.ForgetNode(string(p)) }

// Here is the coordinate of this node.
func (c Client) Here() *coordinate.Coordinate { return c.client.GetCoordinate() }

// Predict returns the predicted round trip to a node at that coordinate, 0 if
// unknown.
func (c Client) Predict(at *coordinate.Coordinate) time.Duration {
	return holder.PredictRTT(c.Here(), at)
}

// ToWire encodes c; nil if c is nil.
func ToWire(c *coordinate.Coordinate) *pb.Coordinate { return signed.CoordinateToWire(c) }

// FromWire decodes w, and returns nil unless it is a coordinate compatible with
// this node's.
func FromWire(w *pb.Coordinate) *coordinate.Coordinate {
	if w == nil || len(w.Vec) != capacity.Dimensions {
		return nil
	}
	if c := signed.CoordinateFromWire(w); c.IsValid() {
		return c
	}
	return nil
}
