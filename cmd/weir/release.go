package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/cmd/weir/hook"
	"weir/dht/scale"
)

const (
	// releaseCheck is how often a node checks whether it is idle.
	releaseCheck = 250 * time.Millisecond
	// releaseAgain is the least time between two release requests to the
	// provisioner.
	releaseAgain = 2 * time.Second
	// releaseTime bounds one release request.
	releaseTime = 5 * time.Second
	// releasableFeature is in the records of nodes that are idle.
	releasableFeature = "releasable"
	// byRelease is the reason of a drain that ends with the node.
	byRelease = "idle, and released"
)

// A releaser ends its node when it has been idle for long enough, under a
// binpack policy: it asks the provisioner for permission, drains, makes sure
// that nothing came in between, runs the hook, and ends the process. A node
// that starts servers has none.
type releaser struct {
	node *node
	hook hook.Hook
	log  *slog.Logger

	// Owned by run.
	idle  scale.Idle
	again time.Time

	mu   sync.Mutex
	free bool // idle for long enough
}

func newReleaser(n *node, h hook.Hook) *releaser { return &releaser{node: n, hook: h, log: n.log} }

func (r *releaser) releasable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.free
}

// run returns errDrained once the node is to end.
func (r *releaser) run(ctx context.Context) error {
	tick := time.NewTicker(releaseCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		p := r.node.policy.Policy().Policy()
		free := r.step(time.Now(), p)
		if !free || time.Now().Before(r.again) {
			continue
		}
		if r.release(ctx, p.Provision.OrDefault()) {
			return errDrained
		}
	}
}

// step reports whether the node has been idle for long enough. Only the
// operator ends a drain that the operator requested.
func (r *releaser) step(now time.Time, p policy.Policy) bool {
	idle := r.idle.Next(now, r.node.empty(now) && !r.node.drain.status().Draining)
	free := p.Strategy == policy.BinPack && idle >= p.Provision.OrDefault().IdleTimeout
	r.mu.Lock()
	changed := r.free != free
	r.free = free
	r.mu.Unlock()
	if changed {
		r.node.dht.Publisher.Kick()
	}
	return free
}

// empty reports whether the node has no sessions or links, and no reservations.
func (n *node) empty(now time.Time) bool {
	t, c := n.ledger.Totals(now), n.sfu.Counts()
	return left(t) == 0 && t.Streams == 0 && c.Streams+c.Publishers+c.Viewers == 0
}

// release reports whether the node may end; the hook has run then.
func (r *releaser) release(ctx context.Context, p policy.Provision) bool {
	n := r.node
	asking, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	r.again = time.Now().Add(releaseAgain)
	if err := n.dht.Provisioners.AskLeave(asking, n.cfg.region); err != nil {
		var refused *capacity.Refusal
		if errors.As(err, &refused) {
			r.again = time.Now().Add(min(max(refused.RetryAfter, releaseCheck), time.Minute))
		} else if errors.Is(err, scale.ErrNoProvisioner) {
			r.again = time.Now().Add(max(releaseAgain, p.Cooldown))
		}
		r.log.Debug("stays, though idle", "err", err)
		return false
	}
	if !n.drain.beginAlone(time.Now(), byRelease) {
		return false // the operator has begun a drain first
	}
	// The node admits nothing from here on: if it is empty now, it stays empty.
	n.closeDoor(byRelease)
	if !n.empty(time.Now()) {
		r.log.Info("stays: somebody came just now")
		n.stopDrain(byRelease)
		return false
	}
	err := r.hook.Run(ctx, hook.Input{
		Action: "release", Region: n.cfg.region, Reason: "idle", Request: rand.Text(), Network: n.cfg.network, PeerID: n.dht.ID(),
	})
	if err != nil {
		n.stopDrain(byRelease)
		r.again = time.Now().Add(max(p.Cooldown, releaseAgain))
		return false
	}
	if !n.empty(time.Now()) {
		n.log.Warn("something came while the node was being released")
	}
	n.events.Add(event.Event{Kind: event.Released})
	return true
}
