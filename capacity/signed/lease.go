package signed

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
)

// SealLease signs l with key, the target's, and returns a libp2p signed
// envelope. The error wraps [capacity.ErrMalformed], [capacity.ErrForged] or
// [capacity.ErrTooLarge] as that of [SealRecord] does.
func SealLease(l capacity.Lease, key crypto.PrivKey) ([]byte, error) { return leaseKind.seal(&l, key) }

// OpenLease checks sealed and returns the lease inside it. The caller compares
// it with its request (Target, From, ID, Need).
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed],
// [capacity.ErrForged] if the target did not sign it, [capacity.ErrExpired] if
// it expired more than MaxClockSkew before now, or [capacity.ErrFromFuture] if
// it ends later than a lease given now could.
func OpenLease(sealed []byte, now time.Time) (capacity.Lease, error) {
	l, err := leaseKind.open(sealed)
	if err != nil {
		return capacity.Lease{}, err
	}
	if err := checkExpiry(l.Expires, now, capacity.LeaseTime); err != nil {
		return capacity.Lease{}, fmt.Errorf("open lease: %w", err)
	}
	return l, nil
}

func leaseToProto(l *capacity.Lease) *pb.Lease {
	return &pb.Lease{
		Id:      l.ID,
		Target:  []byte(l.Target),
		From:    []byte(l.From),
		Need:    NeedToWire(l.Need),
		Expires: uint64(l.Expires.UnixMilli()),
	}
}

func leaseFromProto(m *pb.Lease, _ peer.ID) (*capacity.Lease, error) {
	target, err := peerOf("target", m.Target)
	if err != nil {
		return nil, err
	}
	from, err := peerOf("from", m.From)
	if err != nil {
		return nil, err
	}
	return &capacity.Lease{
		ID: m.Id, Target: target, From: from,
		Need: NeedFromWire(m.Need), Expires: timeOf(m.Expires),
	}, nil
}
