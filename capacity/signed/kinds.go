package signed

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/pb"
)

// The table of kinds: everything that nodes and operators sign, except for
// updates, which have no envelope of their own; see [SealUpdate]. A new kind is
// a message in capacity.proto, a row here, and a file with its conversions.
// Payload types are of multicodec's private use range, 0x300000–0x3fffff.
var (
	recordKind = kind[capacity.Record, pb.Record, *pb.Record]{
		"record", label{"weir-capacity", 0x300001}, MaxRecordSize,
		(*capacity.Record).Check, func(r *capacity.Record) peer.ID { return r.Node }, recordToProto, recordFromProto,
	}
	leaseKind = kind[capacity.Lease, pb.Lease, *pb.Lease]{
		"lease", label{"weir-lease", 0x300002}, 1024,
		(*capacity.Lease).Check, func(l *capacity.Lease) peer.ID { return l.Target }, leaseToProto, leaseFromProto,
	}
	ticketKind = kind[capacity.Ticket, pb.Ticket, *pb.Ticket]{
		"ticket", label{"weir-ticket", 0x300003}, maxTicketBytes,
		(*capacity.Ticket).Check, func(t *capacity.Ticket) peer.ID { return t.From }, ticketToProto, ticketFromProto,
	}
	policyKind = kind[Policy, pb.Policy, *pb.Policy]{
		"policy", label{"weir-policy", 0x300004}, MaxPolicySize,
		(*Policy).check, func(p *Policy) peer.ID { return p.Operator }, policyToProto, policyFromProto,
	}
)

// label is part of the signed bytes, so that one kind cannot be taken for
// another.
type label struct {
	domain string
	codec  uint64 // payload type
}

func (l label) Domain() string { return l.domain }
func (l label) Codec() []byte  { return binary.AppendUvarint(nil, l.codec) }

// A kind is one sort of signed value: of type T in the program, and a message M
// in a libp2p signed envelope (RFC 0002) on the wire.
type kind[T, M any, P interface {
	*M
	proto.Message
}] struct {
	name   string // in errors
	label  label
	limit  int                          // bytes, sealed
	check  func(*T) error               // of every field; the error wraps ErrMalformed
	signer func(*T) peer.ID             // the required signer
	encode func(*T) P                   // of a value that check has passed
	decode func(P, peer.ID) (*T, error) // of a message that the node signed; a value that does not fit is decoded so that check refuses it
}

// seal checks and signs v. The error wraps [capacity.ErrMalformed],
// [capacity.ErrForged] if key is not the signer's, or [capacity.ErrTooLarge].
func (k *kind[T, M, P]) seal(v *T, key crypto.PrivKey) ([]byte, error) {
	sealed, err := k.sealed(v, key)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", k.name, err)
	}
	return sealed, nil
}

func (k *kind[T, M, P]) sealed(v *T, key crypto.PrivKey) ([]byte, error) {
	if err := k.check(v); err != nil {
		return nil, err
	}
	if signer := k.signer(v); !signer.MatchesPrivateKey(key) {
		return nil, fmt.Errorf("%w: the key is not that of %s", capacity.ErrForged, signer)
	}
	envelope, err := record.Seal(payload{k.label, k.encode(v)}, key)
	if err != nil {
		return nil, err
	}
	sealed, err := envelope.Marshal()
	if err != nil {
		return nil, err
	}
	if len(sealed) > k.limit {
		return nil, fmt.Errorf("%w: %d bytes sealed, at most %d", capacity.ErrTooLarge, len(sealed), k.limit)
	}
	return sealed, nil
}

// open returns the value that its signer sealed, after check has passed. The
// error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed] or
// [capacity.ErrForged].
func (k *kind[T, M, P]) open(sealed []byte) (T, error) {
	v, err := k.opened(sealed)
	if err != nil {
		var none T
		return none, fmt.Errorf("open %s: %w", k.name, err)
	}
	return *v, nil
}

func (k *kind[T, M, P]) opened(sealed []byte) (*T, error) {
	if len(sealed) > k.limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", capacity.ErrTooLarge, len(sealed), k.limit)
	}
	msg := P(new(M))
	signer, err := openEnvelope(k.label, sealed, msg)
	if err != nil {
		return nil, err
	}
	v, err := k.decode(msg, signer)
	if err != nil {
		return nil, err
	}
	if err := k.check(v); err != nil {
		return nil, err
	}
	if want := k.signer(v); signer != want {
		return nil, fmt.Errorf("%w: names %s, signed by %s", capacity.ErrForged, want, signer)
	}
	return v, nil
}

// openEnvelope checks the signature, decodes the payload into msg and returns
// the signer.
func openEnvelope(l label, sealed []byte, msg proto.Message) (peer.ID, error) {
	// ConsumeTypedEnvelope also returns invalid envelopes: check err first.
	envelope, err := record.ConsumeTypedEnvelope(sealed, payload{l, msg})
	switch {
	case errors.Is(err, record.ErrInvalidSignature):
		return "", fmt.Errorf("%w: the signature does not match", capacity.ErrForged)
	case err != nil:
		return "", fmt.Errorf("%w: %w", capacity.ErrMalformed, err)
	case string(envelope.PayloadType) != string(l.Codec()):
		return "", fmt.Errorf("%w: payload type %x, want %x", capacity.ErrMalformed, envelope.PayloadType, l.Codec())
	case envelope.PublicKey.Type() != crypto.Ed25519:
		return "", fmt.Errorf("%w: signed with an %s key, want Ed25519", capacity.ErrMalformed, envelope.PublicKey.Type())
	}
	signer, err := peer.IDFromPublicKey(envelope.PublicKey)
	if err != nil {
		return "", fmt.Errorf("%w: signer: %w", capacity.ErrMalformed, err)
	}
	return signer, nil
}

// payload is the core/record.Record that carries msg.
type payload struct {
	label
	msg proto.Message
}

func (p payload) MarshalRecord() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(p.msg)
}

func (p payload) UnmarshalRecord(b []byte) error { return proto.Unmarshal(b, p.msg) }
