package capacity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/pb"
)

// MaxPolicySize bounds a signed policy, in bytes.
const MaxPolicySize = maxPolicyText + 1024

// SignedPolicy is a policy as the network's operator signed it.
type SignedPolicy struct {
	Operator peer.ID
	Version  uint64    // the higher one wins; 1 or more
	Issued   time.Time // operator's clock, ms resolution
	Text     []byte    // YAML, as written
	Judge    *Judge    // what Text says, under Version, ready for use
}

// Sum is the beginning of the SHA-256 of the text, by which people can compare
// two.
func (s *SignedPolicy) Sum() string {
	sum := sha256.Sum256(s.Text)
	return hex.EncodeToString(sum[:6])
}

// SealPolicy signs text, which it checks, as the policy of that version. The
// error is that of [ParsePolicy], or wraps [ErrMalformed] or [ErrTooLarge].
func SealPolicy(file string, text []byte, version uint64, issued time.Time, operator crypto.PrivKey) ([]byte, error) {
	if _, err := ParsePolicy(file, text); err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, malformed("version", "must not be 0")
	}
	if err := checkTime("issued", issued); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(operator)
	if err != nil {
		return nil, err
	}
	sealed, err := seal(policyKind, &pb.Policy{Version: version, Issued: uint64(issued.UnixMilli()), Text: text}, id, operator, MaxPolicySize)
	if err != nil {
		return nil, fmt.Errorf("seal policy: %w", err)
	}
	return sealed, nil
}

// OpenPolicy checks sealed and returns the policy inside it, of which every
// expression compiles. The error wraps [ErrTooLarge], [ErrMalformed], or
// [ErrForged] if another than operator signed it; or it is that of
// [ParsePolicy].
func OpenPolicy(sealed []byte, operator peer.ID) (SignedPolicy, error) {
	var m pb.Policy
	signer, err := open(policyKind, sealed, &m, MaxPolicySize)
	if err != nil {
		return SignedPolicy{}, fmt.Errorf("open policy: %w", err)
	}
	if signer != operator {
		return SignedPolicy{}, fmt.Errorf("open policy: %w: signed by %s, the operator is %s", ErrForged, signer, operator)
	}
	if m.Version == 0 {
		return SignedPolicy{}, fmt.Errorf("open policy: %w", malformed("version", "must not be 0"))
	}
	s := SignedPolicy{Operator: signer, Version: m.Version, Text: m.Text}
	if s.Issued, err = timeFromProto("issued", m.Issued); err != nil {
		return SignedPolicy{}, fmt.Errorf("open policy: %w", err)
	}
	judge, err := ParsePolicy(fmt.Sprintf("policy version %d", m.Version), m.Text)
	if err != nil {
		return SignedPolicy{}, err
	}
	s.Judge = judge.AsVersion(m.Version)
	return s, nil
}
