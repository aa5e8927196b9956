package signed

import (
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
)

// The conversions below make of a number that does not fit one that no check
// passes, so that each bound is written once, in capacity.

// quantity is n, or the most there can be.
func quantity(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// timeOf is ms, Unix milliseconds, as a time.
func timeOf(ms uint64) time.Time { return time.UnixMilli(quantity(ms)).UTC() }

// named is n as a value of a type whose values have names.
func named[T ~uint8, E ~int32](n E) T {
	if n < 0 || n > math.MaxUint8 {
		return math.MaxUint8
	}
	return T(n)
}

// peerOf is the peer ID in b, of which the check is capacity's.
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

// checkExpiry allows for clocks that differ by MaxClockSkew. life is the
// longest that something made now would last.
func checkExpiry(expires, now time.Time, life time.Duration) error {
	if past := now.Sub(expires); past > capacity.MaxClockSkew {
		return fmt.Errorf("%w %v ago", capacity.ErrExpired, past.Round(time.Millisecond))
	}
	if ahead := expires.Sub(now); ahead > life+capacity.MaxClockSkew {
		return fmt.Errorf("%w: expires in %v, at most %v makes sense", capacity.ErrFromFuture, ahead.Round(time.Millisecond), life)
	}
	return nil
}
