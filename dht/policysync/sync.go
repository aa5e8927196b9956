package dht

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"weir/capacity/signed"
	"weir/dht/pb"
)

const (
	maxPolicyFrame = signed.MaxPolicySize + 1024
	policyAtOnce   = 32               // peers told at the same time
	policyEvery    = 20 * time.Second // how often versions are compared with a peer drawn at random
	policyTime     = 3 * time.Second  // for one exchange
	policyLookUp   = 5 * time.Second  // to store it in the DHT, or read it there
	// policyStored is how often it is stored there again, by those closest to
	// its key: kad-dht forgets a value after 48 hours, and nodes come and go.
	policyStored = time.Hour
)

// ErrOldPolicy means that a policy is not newer than the one held.
var ErrOldPolicy = errors.New("not newer than the policy held")

var errNoOperator = errors.New("this node has no operator: start it with --operator, and the ID that weir policy key prints")

// policyHold is the signed policy that a node holds.
type policyHold struct {
	apply sync.Mutex // one at a time

	mu       sync.Mutex
	version  uint64
	sealed   []byte
	compared time.Time // when a peer last said which it holds; zero: never
}

// heard notes that a peer has said which policy it holds.
func (h *policyHold) heard(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compared = now
}

// since is the version held, and when a peer last said which it holds.
func (h *policyHold) since() (version uint64, compared time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version, h.compared
}

func (h *policyHold) get() (uint64, []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version, h.sealed
}

// PushPolicy applies the policy in sealed here, which the operator has signed,
// and tells every peer, who do the same: within some round trips the whole
// network has it. The error says why it is not applied, ErrOldPolicy among
// others.
func (n *Node) PushPolicy(sealed []byte) (signed.Policy, error) {
	return n.takePolicy(sealed, "")
}

// takePolicy applies a policy that came from a peer, or from the operator if
// that is "".
func (n *Node) takePolicy(sealed []byte, from peer.ID) (signed.Policy, error) {
	if n.cfg.Operator == "" || n.cfg.Apply == nil {
		return signed.Policy{}, errNoOperator
	}
	p, err := signed.OpenPolicy(sealed, n.cfg.Operator)
	if err != nil {
		return p, err
	}
	h := &n.policies
	h.apply.Lock()
	defer h.apply.Unlock()
	if held, _ := h.get(); p.Version <= held {
		return p, fmt.Errorf("policy version %d: %w, which is version %d", p.Version, ErrOldPolicy, held)
	}
	if err := n.cfg.Apply(p, sealed); err != nil {
		return p, err
	}
	h.mu.Lock()
	h.version, h.sealed = p.Version, sealed
	h.mu.Unlock()
	n.start(func() { n.spreadPolicy(from) })
	if from == "" {
		n.start(n.storePolicy)
	}
	return p, nil
}

// spreadPolicy tells every peer but from of the policy held.
func (n *Node) spreadPolicy(from peer.ID) {
	var g errgroup.Group
	g.SetLimit(policyAtOnce)
	for _, ai := range n.members() {
		if ai.ID == from || n.ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			n.exchangePolicy(ai.ID)
			return nil
		})
	}
	_ = g.Wait()
}

// exchangePolicy compares versions with p, and whoever has the newer one gives
// it to the other. Most peers have it already when they are told, so the text
// goes only to those that turn out to lack it.
func (n *Node) exchangePolicy(p peer.ID) {
	ctx, cancel := context.WithTimeout(n.ctx, policyTime)
	defer cancel()
	for push := false; ; push = true {
		version, sealed := n.policies.get()
		req := &pb.PolicyExchange{Version: version}
		if push {
			req.Sealed = sealed
		}
		var resp pb.PolicyExchange
		if _, _, err := n.call(ctx, p, n.policyID, req, &resp, maxPolicyFrame); err != nil {
			n.log.Debug("policies not compared", "peer", p, "err", err)
			return
		}
		n.policies.heard(time.Now())
		if len(resp.Sealed) > 0 {
			if _, err := n.takePolicy(resp.Sealed, p); err != nil && !errors.Is(err, ErrOldPolicy) {
				n.log.Warn("policy of a peer not applied", "peer", p, "err", err)
			}
			return
		}
		if push || resp.Version >= version {
			return
		}
	}
}

// comparePolicies keeps up with the network's policy, also after a time away,
// until ctx is done.
func (n *Node) comparePolicies(ctx context.Context) error {
	if n.cfg.Operator == "" {
		return nil
	}
	select {
	case <-n.ready:
		n.start(n.fetchPolicy)
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(policyEvery)
	defer tick.Stop()
	stored := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(stored) > policyStored {
			stored = time.Now()
			n.start(n.keepPolicy)
		}
		if members := n.members(); len(members) > 0 {
			p := members[rand.IntN(len(members))].ID
			n.start(func() { n.exchangePolicy(p) })
		}
	}
}

// meetPolicy compares policies with a peer that has just come.
func (n *Node) meetPolicy(p peer.ID) {
	if n.cfg.Operator != "" {
		n.start(func() { n.exchangePolicy(p) })
	}
}

// servePolicy answers one exchange.
func (n *Node) servePolicy(s network.Stream) {
	var req pb.PolicyExchange
	n.serveOne(s, maxPolicyFrame, &req, &pb.PolicyExchange{Error: errBusy.Error()}, func(from peer.ID) proto.Message { return n.answerPolicy(from, &req) })
}

func (n *Node) answerPolicy(from peer.ID, req *pb.PolicyExchange) *pb.PolicyExchange {
	resp := &pb.PolicyExchange{}
	if held, _ := n.policies.get(); len(req.Sealed) > 0 && req.Version > held {
		if _, err := n.takePolicy(req.Sealed, from); err != nil && !errors.Is(err, ErrOldPolicy) {
			resp.Error = clip(err.Error(), maxReason)
			n.log.Warn("policy of a peer not applied", "peer", from, "err", err)
		}
	}
	version, sealed := n.policies.get()
	resp.Version = version
	if version > req.Version {
		resp.Sealed = sealed
	}
	return resp
}
