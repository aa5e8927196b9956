package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/signed"
)

// policyKey is the key in the DHT under which the policy of operator is kept.
func policyKey(operator peer.ID) string { return "/weir-policy/" + operator.String() }

// A policyValidator decides which values the DHT takes: the policies of one
// operator, under its key. So a peer can make a node keep one value, of at most
// signed.MaxPolicySize, and only one that the operator has signed.
type policyValidator struct{ operator peer.ID }

// Validate implements record.Validator. kad-dht does not recover from panics in
// it, so what it calls is fuzzed with whatever peers may send.
func (v policyValidator) Validate(key string, value []byte) error {
	if key != policyKey(v.operator) {
		return errors.New("only the operator's policy may be stored")
	}
	_, err := signed.OpenPolicy(value, v.operator)
	return err
}

// Select implements record.Validator: the highest version wins, and of equal
// ones the first, so that storing it again counts as new.
func (v policyValidator) Select(key string, values [][]byte) (int, error) {
	best, version := -1, uint64(0)
	for i, value := range values {
		if p, err := signed.OpenPolicy(value, v.operator); err == nil && p.Version > version {
			best, version = i, p.Version
		}
	}
	if best < 0 {
		return 0, errors.New("none is a policy of the operator")
	}
	return best, nil
}

// storePolicy puts the policy held into the DHT, for nodes that come when none
// of those they meet has it. Peers are told directly; see spreadPolicy.
func (n *Node) storePolicy() {
	version, sealed := n.policies.get()
	if sealed == nil || n.kad.RoutingTable().Size() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, policyLookUp)
	defer cancel()
	if err := n.kad.PutValue(ctx, policyKey(n.cfg.Operator), sealed); err != nil {
		n.log.Debug("policy not stored in the DHT", "version", version, "err", err)
	}
}

// keepPolicy is storePolicy at the nodes closest to the policy's key.
func (n *Node) keepPolicy() {
	key := kb.ConvertKey(policyKey(n.cfg.Operator))
	if electHolders(key, n.self(), n.kad.RoutingTable().NearestPeers(key, replicas)).self {
		n.storePolicy()
	}
}

// fetchPolicy applies the policy that the DHT has, if it is newer.
func (n *Node) fetchPolicy() {
	if n.kad.RoutingTable().Size() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, policyLookUp)
	defer cancel()
	start := time.Now()
	sealed, err := n.kad.GetValue(ctx, policyKey(n.cfg.Operator))
	if err == nil {
		_, err = n.takePolicy(sealed, n.ID())
	}
	if err != nil && !errors.Is(err, ErrOldPolicy) {
		n.log.Debug("no policy read from the DHT", "err", fmt.Errorf("after %v: %w", time.Since(start).Round(time.Millisecond), err))
	}
}
