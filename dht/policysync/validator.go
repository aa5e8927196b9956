package policysync

import (
	"errors"
	"weir/capacity/signed"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Key is the key in the DHT under which the policy of operator is kept.
func Key(operator peer.ID) string { return "/weir-policy/" + operator.String() }

// A Validator decides which values the DHT stores: the policies of one
// operator, under its key. So a peer can make a node store one value, of at
// most signed.MaxPolicySize, and only one that the operator has signed. It
// implements kad-dht's record.Validator.
type Validator struct{ Operator peer.ID }

// Validate implements record.Validator. kad-dht does not recover from panics in
// it, so the functions it calls are fuzzed with arbitrary input.
func (v Validator) Validate(key string, value []byte) error {
	if key != Key(v.Operator) {
		return errors.New("only the operator's policy may be stored")
	}
	_, err := signed.OpenPolicy(value, v.Operator)
	return err
}

// Select implements record.Validator: the highest version wins, and of equal
// ones the first, so that storing it again counts as new.
func (v Validator) Select(key string, values [][]byte) (int, error) {
	best, version := -1, uint64(0)
	for i, value := range values {
		if p, err := signed.OpenPolicy(value, v.Operator); err == nil && p.Version > version {
			best, version = i, p.Version
		}
	}
	if best < 0 {
		return 0, errors.New("none is a policy of the operator")
	}
	return best, nil
}
