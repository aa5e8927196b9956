package signed

import (
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/pb"
)

// The conversions below turn a number that does not fit into one that no check
// passes, so that each bound is defined once, in capacity.

// quantity is n, or the largest int64.
func quantity(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// timeOf is ms, Unix milliseconds, as a time.
func timeOf(ms uint64) time.Time { return time.UnixMilli(quantity(ms)).UTC() }

// named is n as a value of a type with named values.
func named[T ~uint8, E ~int32](n E) T {
	if n < 0 || n > math.MaxUint8 {
		return math.MaxUint8
	}
	return T(n)
}

// peerOf is the peer ID in b; capacity checks it.
func peerOf(field string, b []byte) (peer.ID, error) {
	if len(b) == 0 {
		return "", nil
	}
	id, err := peer.IDFromBytes(b)
	if err != nil {
		return "", capacity.Malformed(field, "%w", err)
	}
	return id, nil
}

func addrsToBytes(addrs []multiaddr.Multiaddr) [][]byte {
	var b [][]byte
	for _, a := range addrs {
		b = append(b, a.Bytes())
	}
	return b
}

func addrsFromBytes(field string, bs [][]byte) ([]multiaddr.Multiaddr, error) {
	if len(bs) > capacity.MaxAddrs {
		return nil, capacity.Malformed(field, "%d addresses, at most %d", len(bs), capacity.MaxAddrs)
	}
	var addrs []multiaddr.Multiaddr
	for _, b := range bs {
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return nil, capacity.Malformed(field, "%w", err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// CoordinateToWire encodes c, in float32; nil if c is nil.
func CoordinateToWire(c *coordinate.Coordinate) *pb.Coordinate {
	if c == nil {
		return nil
	}
	m := &pb.Coordinate{
		Vec:        make([]float32, len(c.Vec)),
		Error:      float32(c.Error),
		Adjustment: float32(c.Adjustment),
		Height:     float32(c.Height),
	}
	for i, x := range c.Vec {
		m.Vec[i] = float32(x)
	}
	return m
}

// CoordinateFromWire decodes m without checking its values; nil if m is nil.
func CoordinateFromWire(m *pb.Coordinate) *coordinate.Coordinate {
	if m == nil {
		return nil
	}
	c := &coordinate.Coordinate{
		Vec:        make([]float64, len(m.Vec)),
		Error:      float64(m.Error),
		Adjustment: float64(m.Adjustment),
		Height:     float64(m.Height),
	}
	for i, x := range m.Vec {
		c.Vec[i] = float64(x)
	}
	return c
}

// NeedToWire encodes n.
func NeedToWire(n capacity.Need) *pb.Need {
	return &pb.Need{
		Purpose: pb.Purpose(n.Purpose),
		Stream:  n.Stream,
		Uplink:  uint64(n.Uplink),
		Packets: uint64(n.Packets),
		Region:  n.Region,
	}
}

// NeedFromWire decodes m; the caller checks the values by
// [capacity.Need.Check].
func NeedFromWire(m *pb.Need) capacity.Need {
	return capacity.Need{
		Purpose: named[capacity.Purpose](m.GetPurpose()),
		Stream:  m.GetStream(),
		Uplink:  quantity(m.GetUplink()),
		Packets: quantity(m.GetPackets()),
		Region:  m.GetRegion(),
	}
}

// checkExpiry allows for clocks that differ by MaxClockSkew. life is the
// longest life of something made now.
func checkExpiry(expires, now time.Time, life time.Duration) error {
	if past := now.Sub(expires); past > capacity.MaxClockSkew {
		return fmt.Errorf("%w %v ago", capacity.ErrExpired, past.Round(time.Millisecond))
	}
	if ahead := expires.Sub(now); ahead > life+capacity.MaxClockSkew {
		return fmt.Errorf("%w: expires in %v, at most %v makes sense", capacity.ErrFromFuture, ahead.Round(time.Millisecond), life)
	}
	return nil
}
