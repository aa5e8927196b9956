package dht

import (
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
	"weir/dht/pb"
)

// vivaldi places this node among the others by round trips (Dabek et al.,
// "Vivaldi: A Decentralized Network Coordinate System", SIGCOMM 2004, as
// implemented in hashicorp/serf). Safe for concurrent use.
type vivaldi struct{ client *coordinate.Client }

func newVivaldi() (vivaldi, error) {
	c, err := coordinate.NewClient(coordinate.DefaultConfig())
	return vivaldi{c}, err
}

// observe takes in a round trip to p, which says it is at c. A coordinate that
// is not one, or a time out of bounds, is ignored.
func (v vivaldi) observe(p peer.ID, c *coordinate.Coordinate, rtt time.Duration) {
	if c != nil && rtt > 0 {
		_, _ = v.client.Update(string(p), c, rtt) // an error means just that
	}
}

func (v vivaldi) forget(p peer.ID) { v.client.ForgetNode(string(p)) }

func (v vivaldi) here() *coordinate.Coordinate { return v.client.GetCoordinate() }

// predict returns the round trip to be expected to a node at c, 0 if unknown.
func (v vivaldi) predict(c *coordinate.Coordinate) time.Duration {
	return holder.PredictRTT(v.here(), c)
}

func coordinateToWire(c *coordinate.Coordinate) *pb.Coordinate {
	if c == nil {
		return nil
	}
	w := &pb.Coordinate{
		Error:      float32(c.Error),
		Adjustment: float32(c.Adjustment),
		Height:     float32(c.Height),
	}
	for _, x := range c.Vec {
		w.Vec = append(w.Vec, float32(x))
	}
	return w
}

// coordinateFromWire returns nil for anything that is not a coordinate like
// our own.
func coordinateFromWire(w *pb.Coordinate) *coordinate.Coordinate {
	if w == nil || len(w.Vec) != int(coordinate.DefaultConfig().Dimensionality) {
		return nil
	}
	c := &coordinate.Coordinate{
		Error:      float64(w.Error),
		Adjustment: float64(w.Adjustment),
		Height:     float64(w.Height),
	}
	for _, x := range w.Vec {
		c.Vec = append(c.Vec, float64(x))
	}
	if !c.IsValid() {
		return nil
	}
	return c
}
