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
	"weir/cmd/weir/drain"
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
	drain  *drain.Drainer
	hook   hook.Hook
	self   func() hook.Input // with the node's region, network and ID
	policy func() policy.Policy
	empty  func(now time.Time) bool        // no sessions, links or reservations
	ask    func(ctx context.Context) error // the provisioner, for permission
	kick   func()                          // publishes the node's record at once
	event  func(event.Event)
	log    *slog.Logger

	// Owned by run.
	idle  scale.Idle
	again time.Time

	mu   sync.Mutex
	free bool // idle for long enough
}

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
		p := r.policy()
		free := r.step(time.Now(), p)
		if !free || time.Now().Before(r.again) {
			continue
		}
		if r.release(ctx, p.Provision.OrDefault()) {
			return drain.ErrDrained
		}
	}
}

// step reports whether the node has been idle for long enough. Only the
// operator ends a drain that the operator requested.
func (r *releaser) step(now time.Time, p policy.Policy) bool {
	idle := r.idle.Next(now, r.empty(now) && !r.drain.Status().Draining)
	free := p.Strategy == policy.BinPack && idle >= p.Provision.OrDefault().IdleTimeout
	r.mu.Lock()
	changed := r.free != free
	r.free = free
	r.mu.Unlock()
	if changed {
		r.kick()
	}
	return free
}

// release reports whether the node may end; the hook has run then.
func (r *releaser) release(ctx context.Context, p policy.Provision) bool {
	asking, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	r.again = time.Now().Add(releaseAgain)
	if err := r.ask(asking); err != nil {
		var refused *capacity.Refusal
		if errors.As(err, &refused) {
			r.again = time.Now().Add(min(max(refused.RetryAfter, releaseCheck), time.Minute))
		} else if errors.Is(err, scale.ErrNoProvisioner) {
			r.again = time.Now().Add(max(releaseAgain, p.Cooldown))
		}
		r.log.Debug("stays, though idle", "err", err)
		return false
	}
	if !r.drain.StartAlone(byRelease) {
		return false // the operator has begun a drain first
	}
	// The node admits nothing from here on: if it is empty now, it stays empty.
	if !r.empty(time.Now()) {
		r.log.Info("stays: somebody came just now")
		r.drain.Stop(byRelease)
		return false
	}
	in := r.self()
	in.Action, in.Reason, in.Request = "release", "idle", rand.Text()
	err := r.hook.Run(ctx, in)
	if err != nil {
		r.drain.Stop(byRelease)
		r.again = time.Now().Add(max(p.Cooldown, releaseAgain))
		return false
	}
	if !r.empty(time.Now()) {
		r.log.Warn("something came while the node was being released")
	}
	r.event(event.Event{Kind: event.Released})
	return true
}
