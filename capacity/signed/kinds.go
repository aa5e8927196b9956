package signed

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/pb"
)

// kind is one sort of signed payload. Domain and codec are part of what is
// signed, so one sort cannot pass for another.
type kind struct {
	domain string
	codec  string // multicodec varint from the private use range 0x300000–0x3fffff
}

var (
	recordKind = kind{"weir-capacity", "\x81\x80\xc0\x01"}
	leaseKind  = kind{"weir-lease", "\x82\x80\xc0\x01"}
	ticketKind = kind{"weir-ticket", "\x83\x80\xc0\x01"}
	policyKind = kind{"weir-policy", "\x84\x80\xc0\x01"}
)

// payload is the core/record.Record that carries msg.
type payload struct {
	kind
	msg proto.Message
}

func (p payload) Domain() string { return p.domain }
func (p payload) Codec() []byte  { return []byte(p.codec) }

func (p payload) MarshalRecord() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(p.msg)
}

func (p payload) UnmarshalRecord(b []byte) error { return proto.Unmarshal(b, p.msg) }

// seal signs msg. signer is the node that msg names as its signer.
func seal(k kind, msg proto.Message, signer peer.ID, key crypto.PrivKey, limit int) ([]byte, error) {
	if !signer.MatchesPrivateKey(key) {
		return nil, fmt.Errorf("%w: the key is not that of %s", capacity.ErrForged, signer)
	}
	envelope, err := record.Seal(payload{k, msg}, key)
	if err != nil {
		return nil, err
	}
	sealed, err := envelope.Marshal()
	if err != nil {
		return nil, err
	}
	if len(sealed) > limit {
		return nil, fmt.Errorf("%w: %d bytes sealed, at most %d", capacity.ErrTooLarge, len(sealed), limit)
	}
	return sealed, nil
}

// open checks the signature, decodes the payload into msg and returns the
// signer.
func open(k kind, sealed []byte, msg proto.Message, limit int) (peer.ID, error) {
	if len(sealed) > limit {
		return "", fmt.Errorf("%w: %d bytes, at most %d", capacity.ErrTooLarge, len(sealed), limit)
	}
	// ConsumeTypedEnvelope also returns envelopes that it found bad: err first.
	envelope, err := record.ConsumeTypedEnvelope(sealed, payload{k, msg})
	switch {
	case errors.Is(err, record.ErrInvalidSignature):
		return "", fmt.Errorf("%w: the signature does not match", capacity.ErrForged)
	case err != nil:
		return "", fmt.Errorf("%w: %w", capacity.ErrMalformed, err)
	case string(envelope.PayloadType) != k.codec:
		return "", fmt.Errorf("%w: payload type %x, want %x", capacity.ErrMalformed, envelope.PayloadType, k.codec)
	case envelope.PublicKey.Type() != crypto.Ed25519:
		return "", fmt.Errorf("%w: signed with an %s key, want Ed25519", capacity.ErrMalformed, envelope.PublicKey.Type())
	}
	signer, err := peer.IDFromPublicKey(envelope.PublicKey)
	if err != nil {
		return "", fmt.Errorf("%w: signer: %w", capacity.ErrMalformed, err)
	}
	return signer, nil
}

func idFromBytes(field string, b []byte) (peer.ID, error) {
	id, err := peer.IDFromBytes(b)
	if err != nil {
		return "", capacity.Malformed(field, "%w", err)
	}
	return id, capacity.CheckID(field, id)
}

func addrsToBytes(addrs []multiaddr.Multiaddr) [][]byte {
	var b [][]byte
	for _, a := range addrs {
		b = append(b, a.Bytes())
	}
	return b
}

func addrsFromBytes(field string, bs [][]byte) ([]multiaddr.Multiaddr, error) {
	var addrs []multiaddr.Multiaddr
	for _, b := range bs {
		if len(b) > capacity.MaxAddr {
			return nil, capacity.Malformed(field, "an address of %d bytes, at most %d", len(b), capacity.MaxAddr)
		}
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return nil, capacity.Malformed(field, "%w", err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}
func purposeFromProto(p pb.Purpose) (capacity.Purpose, error) {
	if p < 0 || p > pb.Purpose(capacity.Cascade) {
		return 0, capacity.Malformed("purpose", "%d is unknown", p)
	}
	return capacity.Purpose(p), nil
}

func timeFromProto(field string, ms uint64) (time.Time, error) {
	if ms > capacity.MaxUnixMilli {
		return time.Time{}, capacity.Malformed(field, "%d ms is past the year 9999", ms)
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
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
