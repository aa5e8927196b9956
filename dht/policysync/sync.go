// Package policysync spreads the policy signed by a network's operator: it is
// pushed along connections at once, compared with one peer after the other, and
// stored in the DHT for nodes that meet no peer that has it.
//
// The input is a sealed policy (from the operator, a peer or the DHT), requests
// of peers and connections; the output is exchanges with peers, values of the
// DHT, and calls of Config.Apply, one at a time, each with a newer policy than
// the one before. [Sync.Run] compares until its context ends; exchanges run on
// goroutines of the node, by Config.Go.
package policysync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/pb"
)

const (
	// MaxFrame bounds a message of the exchange, in bytes.
	MaxFrame = signed.MaxPolicySize + 1024
	// CompareEvery is how often versions are compared with a peer drawn at
	// random.
	CompareEvery = 20 * time.Second
)

const (
	maxReason    = 256             // bytes of a reason given
	pushAtOnce   = 32              // peers told concurrently
	exchangeTime = 3 * time.Second // for one exchange
	valueTime    = 5 * time.Second // to store it in the DHT, or read it there
	// storeEvery is how often the nodes closest to its key store it again:
	// kad-dht forgets a value after 48 hours, and nodes come and go.
	storeEvery = time.Hour
)

var (
	// ErrOld means that a policy is not newer than the one held.
	ErrOld = errors.New("not newer than the policy held")
	// ErrNoOperator means that this node applies no operator's policies.
	ErrNoOperator = errors.New("this node has no operator whose policies it would apply")
)

// Config names the operator, and the functions that reach peers and the DHT.
type Config struct {
	// Operator is the peer whose policies are applied; "": none. Apply puts one
	// in force, or returns why not.
	Operator peer.ID
	Apply    func(p signed.Policy, sealed []byte) error

	// Peers are the peers to compare with. Exchange sends a request to one of
	// them and returns its answer.
	Peers    func() []peer.ID
	Exchange func(ctx context.Context, p peer.ID, req *pb.PolicyExchange) (*pb.PolicyExchange, error)

	// Joined reports whether there is a DHT to use, Put and Get access its
	// values, and Closest reports whether this node is among the closest to a
	// key.
	Joined  func() bool
	Put     func(ctx context.Context, key string, value []byte) error
	Get     func(ctx context.Context, key string) ([]byte, error)
	Closest func(key string) bool

	// Go runs f on a goroutine of the node, with a context that ends with it,
	// or returns false if the node is closed.
	Go  func(f func(ctx context.Context)) bool
	Log *slog.Logger
}

// A Sync holds the newest signed policy and keeps it in step with the network.
type Sync struct {
	cfg   Config
	apply sync.Mutex // one at a time

	mu       sync.Mutex
	version  uint64
	sealed   []byte
	compared time.Time // last report of a peer's version; zero: none
}

// New returns a Sync that holds no policy yet.
func New(cfg Config) *Sync { return &Sync{cfg: cfg} }

// Compared is the version held, and the time of the last report of a peer's
// version; zero: none.
func (s *Sync) Compared() (version uint64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.compared
}

func (s *Sync) held() (uint64, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.sealed
}

// Push applies the operator's policy in sealed here, and tells every peer, and
// they do the same: within some round trips the whole network has it. The error
// says why it is not applied: it wraps [ErrOld] if the one held is not older,
// and is [ErrNoOperator] if this node has no operator.
func (s *Sync) Push(sealed []byte) (signed.Policy, error) {
	p, err := s.take(sealed, "")
	if err == nil {
		s.cfg.Go(s.store)
	}
	return p, err
}

// take applies a policy from a peer, or from the operator if from is "", and
// tells all others.
func (s *Sync) take(sealed []byte, from peer.ID) (signed.Policy, error) {
	if s.cfg.Operator == "" || s.cfg.Apply == nil {
		return signed.Policy{}, ErrNoOperator
	}
	p, err := signed.OpenPolicy(sealed, s.cfg.Operator)
	if err != nil {
		return p, err
	}
	s.apply.Lock()
	defer s.apply.Unlock()
	if held, _ := s.held(); p.Version <= held {
		return p, fmt.Errorf("policy version %d: %w, which is version %d", p.Version, ErrOld, held)
	}
	if err := s.cfg.Apply(p, sealed); err != nil {
		return p, err
	}
	s.mu.Lock()
	s.version, s.sealed = p.Version, sealed
	s.mu.Unlock()
	s.cfg.Go(func(ctx context.Context) { s.spread(ctx, from) })
	return p, nil
}

// spread tells every peer but from of the current policy.
func (s *Sync) spread(ctx context.Context, from peer.ID) {
	var g errgroup.Group
	g.SetLimit(pushAtOnce)
	for _, p := range s.cfg.Peers() {
		if p == from || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			s.exchange(ctx, p)
			return nil
		})
	}
	_ = g.Wait()
}

// exchange compares versions with p, and the one with the newer policy sends it
// to the other. Most peers have it already when they are told, so the text goes
// only to peers that lack it.
func (s *Sync) exchange(ctx context.Context, p peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	for push := false; ; push = true {
		version, sealed := s.held()
		req := &pb.PolicyExchange{Version: version}
		if push {
			req.Sealed = sealed
		}
		resp, err := s.cfg.Exchange(ctx, p, req)
		if err != nil {
			s.cfg.Log.Debug("policies not compared", "peer", p, "err", err)
			return
		}
		s.mu.Lock()
		s.compared = time.Now()
		s.mu.Unlock()
		if len(resp.Sealed) > 0 {
			if _, err := s.take(resp.Sealed, p); err != nil && !errors.Is(err, ErrOld) {
				s.cfg.Log.Warn("policy of a peer not applied", "peer", p, "err", err)
			}
			return
		}
		if push || resp.Version >= version {
			return
		}
	}
}

// Run follows the network's policy, also after a time away, until ctx is done,
// once ready is closed.
func (s *Sync) Run(ctx context.Context, ready <-chan struct{}) error {
	if s.cfg.Operator == "" {
		return nil
	}
	select {
	case <-ready:
		s.cfg.Go(s.fetch)
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(CompareEvery)
	defer tick.Stop()
	stored := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(stored) > storeEvery {
			stored = time.Now()
			if s.cfg.Closest(Key(s.cfg.Operator)) {
				s.cfg.Go(s.store)
			}
		}
		if peers := s.cfg.Peers(); len(peers) > 0 {
			p := peers[rand.IntN(len(peers))]
			s.cfg.Go(func(ctx context.Context) { s.exchange(ctx, p) })
		}
	}
}

// Connected compares policies with a newly connected peer. It does not block.
func (s *Sync) Connected(p peer.ID) {
	if s.cfg.Operator != "" {
		s.cfg.Go(func(ctx context.Context) { s.exchange(ctx, p) })
	}
}

// Answer takes in a peer's message, and returns this node's version or policy.
func (s *Sync) Answer(from peer.ID, req *pb.PolicyExchange) *pb.PolicyExchange {
	resp := &pb.PolicyExchange{}
	if held, _ := s.held(); len(req.Sealed) > 0 && req.Version > held {
		if _, err := s.take(req.Sealed, from); err != nil && !errors.Is(err, ErrOld) {
			resp.Error = capacity.Printable(err.Error(), maxReason)
			s.cfg.Log.Warn("policy of a peer not applied", "peer", from, "err", err)
		}
	}
	version, sealed := s.held()
	resp.Version = version
	if version > req.Version {
		resp.Sealed = sealed
	}
	return resp
}

// store puts the current policy into the DHT. Peers are told directly; see
// spread.
func (s *Sync) store(ctx context.Context) {
	version, sealed := s.held()
	if sealed == nil || !s.cfg.Joined() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, valueTime)
	defer cancel()
	if err := s.cfg.Put(ctx, Key(s.cfg.Operator), sealed); err != nil {
		s.cfg.Log.Debug("policy not stored in the DHT", "version", version, "err", err)
	}
}

// fetch applies the policy in the DHT, if it is newer.
func (s *Sync) fetch(ctx context.Context) {
	if !s.cfg.Joined() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, valueTime)
	defer cancel()
	start := time.Now()
	sealed, err := s.cfg.Get(ctx, Key(s.cfg.Operator))
	if err == nil {
		_, err = s.take(sealed, "")
	}
	if err != nil && !errors.Is(err, ErrOld) {
		s.cfg.Log.Debug("no policy read from the DHT", "err", fmt.Errorf("after %v: %w", time.Since(start).Round(time.Millisecond), err))
	}
}
