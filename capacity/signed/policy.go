package signed

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
	"weir/capacity/policy"
)

// MaxPolicySize bounds a signed policy, in bytes.
const MaxPolicySize = policy.MaxText + 1024

// Policy is a policy as the network's operator signed it.
type Policy struct {
	Operator peer.ID
	Version  uint64           // the higher one wins; 1 or more
	Issued   time.Time        // operator's clock, ms resolution
	Text     []byte           // YAML, as written
	Judge    *policy.Compiled // what Text says, under Version, ready for use
}

// Sum is the beginning of the SHA-256 of the text, by which people can compare
// two.
func (s *Policy) Sum() string {
	sum := sha256.Sum256(s.Text)
	return hex.EncodeToString(sum[:6])
}

// SealPolicy signs text, which it checks, as the policy of that version. The
// error is that of [policy.Parse], or wraps [capacity.ErrMalformed] or [capacity.ErrTooLarge].
func SealPolicy(file string, text []byte, version uint64, issued time.Time, operator crypto.PrivKey) ([]byte, error) {
	if _, err := policy.Parse(file, text); err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, capacity.Malformed("version", "must not be 0")
	}
	if err := capacity.CheckTime("issued", issued); err != nil {
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
// expression compiles. The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed], or
// [capacity.ErrForged] if another than operator signed it; or it is that of
// [policy.Parse].
func OpenPolicy(sealed []byte, operator peer.ID) (Policy, error) {
	var m pb.Policy
	signer, err := open(policyKind, sealed, &m, MaxPolicySize)
	if err != nil {
		return Policy{}, fmt.Errorf("open policy: %w", err)
	}
	if signer != operator {
		return Policy{}, fmt.Errorf("open policy: %w: signed by %s, the operator is %s", capacity.ErrForged, signer, operator)
	}
	if m.Version == 0 {
		return Policy{}, fmt.Errorf("open policy: %w", capacity.Malformed("version", "must not be 0"))
	}
	s := Policy{Operator: signer, Version: m.Version, Text: m.Text}
	if s.Issued, err = timeFromProto("issued", m.Issued); err != nil {
		return Policy{}, fmt.Errorf("open policy: %w", err)
	}
	judge, err := policy.Parse(fmt.Sprintf("policy version %d", m.Version), m.Text)
	if err != nil {
		return Policy{}, err
	}
	s.Judge = judge.AsVersion(m.Version)
	return s, nil
}
