package signed

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"weir/capacity"
	"weir/capacity/pb"
)

const maxLeaseSize = 1024

// SealLease signs l with key, the target's, and returns a libp2p signed
// envelope. The error wraps [capacity.ErrMalformed], [capacity.ErrForged] or [capacity.ErrTooLarge] as
// that of [SealRecord] does.
func SealLease(l capacity.Lease, key crypto.PrivKey) ([]byte, error) {
	if err := l.Check(); err != nil {
		return nil, fmt.Errorf("seal lease: %w", err)
	}
	sealed, err := seal(leaseKind, &pb.Lease{
		Id:     l.ID,
		Target: []byte(l.Target),
		From:   []byte(l.From),
		Need: &pb.Need{
			Purpose: pb.Purpose(l.Need.Purpose),
			Stream:  l.Need.Stream,
			Uplink:  uint64(l.Need.Uplink),
			Packets: uint64(l.Need.Packets),
			Region:  l.Need.Region,
		},
		Expires: uint64(l.Expires.UnixMilli()),
	}, l.Target, key, maxLeaseSize)
	if err != nil {
		return nil, fmt.Errorf("seal lease: %w", err)
	}
	return sealed, nil
}

// OpenLease checks sealed and returns the lease inside it. Whether it answers
// our request (Target, From, ID, Need) is for the caller to compare.
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed], [capacity.ErrForged] if the target did
// not sign it, [capacity.ErrExpired] if it ran out more than MaxClockSkew before now, or
// [capacity.ErrFromFuture] if it ends later than a lease given now could.
func OpenLease(sealed []byte, now time.Time) (capacity.Lease, error) {
	l, err := openLease(sealed, now)
	if err != nil {
		return capacity.Lease{}, fmt.Errorf("open lease: %w", err)
	}
	return l, nil
}

func openLease(sealed []byte, now time.Time) (capacity.Lease, error) {
	var m pb.Lease
	signer, err := open(leaseKind, sealed, &m, maxLeaseSize)
	if err != nil {
		return capacity.Lease{}, err
	}
	l := capacity.Lease{ID: m.Id}
	if l.Target, err = idFromBytes("target", m.Target); err != nil {
		return capacity.Lease{}, err
	}
	if l.From, err = idFromBytes("from", m.From); err != nil {
		return capacity.Lease{}, err
	}
	if l.Need.Purpose, err = purposeFromProto(m.Need.GetPurpose()); err != nil {
		return capacity.Lease{}, err
	}
	if m.Need.GetUplink() > capacity.MaxNeed || m.Need.GetPackets() > capacity.MaxNeed {
		return capacity.Lease{}, capacity.Malformed("need", "more than %d", int64(capacity.MaxNeed))
	}
	if l.Expires, err = timeFromProto("expires", m.Expires); err != nil {
		return capacity.Lease{}, err
	}
	l.Need.Stream = m.Need.GetStream()
	l.Need.Uplink = int64(m.Need.GetUplink())
	l.Need.Packets = int64(m.Need.GetPackets())
	l.Need.Region = m.Need.GetRegion()
	if err := l.Check(); err != nil {
		return capacity.Lease{}, err
	}
	if signer != l.Target {
		return capacity.Lease{}, fmt.Errorf("%w: names target %s, signed by %s", capacity.ErrForged, l.Target, signer)
	}
	return l, checkExpiry(l.Expires, now, capacity.LeaseTime)
}
