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

// Policy is a policy signed by the network's operator.
type Policy struct {
	Operator peer.ID
	Version  uint64           // the higher one wins; 1 or more
	Issued   time.Time        // operator's clock, ms resolution
	Text     []byte           // YAML, as written
	Compiled *policy.Compiled // Text compiled, with Version, ready for use
}

// Sum is the beginning of the SHA-256 of the text, for people to compare two.
func (s *Policy) Sum() string {
	sum := sha256.Sum256(s.Text)
	return hex.EncodeToString(sum[:6])
}

// SealPolicy checks text and signs it as the policy of that version. The error
// is that of [policy.Parse], or wraps [capacity.ErrMalformed] or
// [capacity.ErrTooLarge].
func SealPolicy(file string, text []byte, version uint64, issued time.Time, operator crypto.PrivKey) ([]byte, error) {
	if _, err := policy.Parse(file, text); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(operator)
	if err != nil {
		return nil, err
	}
	return policyKind.seal(&Policy{Operator: id, Version: version, Issued: issued, Text: text}, operator)
}

// OpenPolicy checks sealed and returns the policy inside it, of which every
// expression compiles. The error wraps [capacity.ErrTooLarge],
// [capacity.ErrMalformed], or [capacity.ErrForged] if operator did not sign it;
// or it is that of [policy.Parse].
func OpenPolicy(sealed []byte, operator peer.ID) (Policy, error) {
	p, err := policyKind.open(sealed)
	if err != nil {
		return Policy{}, err
	}
	if p.Operator != operator {
		return Policy{}, fmt.Errorf("open policy: %w: signed by %s, the operator is %s", capacity.ErrForged, p.Operator, operator)
	}
	compiled, err := policy.Parse(fmt.Sprintf("policy version %d", p.Version), p.Text)
	if err != nil {
		return Policy{}, err
	}
	p.Compiled = compiled.AsVersion(p.Version)
	return p, nil
}

func (s *Policy) check() error {
	if s.Version == 0 {
		return capacity.Malformed("version", "must not be 0")
	}
	return capacity.CheckTime("issued", s.Issued)
}

func policyToProto(p *Policy) *pb.Policy {
	return &pb.Policy{Version: p.Version, Issued: uint64(p.Issued.UnixMilli()), Text: p.Text}
}

// policyFromProto uses the signer as the operator, because the message names
// none.
func policyFromProto(m *pb.Policy, signer peer.ID) (*Policy, error) {
	return &Policy{Operator: signer, Version: m.Version, Issued: timeOf(m.Issued), Text: m.Text}, nil
}
