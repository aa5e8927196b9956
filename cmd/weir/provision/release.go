package provision

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
	// ReleasableFeature is in the records of nodes that are idle.
	ReleasableFeature = "releasable"
	// byRelease is the reason of a drain that ends with the node.
	byRelease = "idle, and released"
)

// A Releaser ends its node when it has been idle for long enough, under a
// binpack policy: it asks the provisioner for permission, drains, makes sure
// that nothing came in between, runs the hook, and ends the process. A node
// that starts servers has none.
type Releaser struct {
	Drain  *drain.Drainer
	Hook   hook.Hook
	Self   func() hook.Input // with the node's region, network and ID
	Policy func() policy.Policy
	Empty  func(now time.Time) bool        // no sessions, links or reservations
	Ask    func(ctx context.Context) error // the provisioner, for permission
	Kick   func()                          // publishes the node's record at once
	Event  func(event.Event)
	Log    *slog.Logger

	// Owned by run.
	idle  scale.Idle
	again time.Time

	mu   sync.Mutex
	free bool // idle for long enough
}

func (r *Releaser) Releasable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.free
}

// Run returns errDrained once the node is to end.
func (r *Releaser) Run(ctx context.Context) error {
	tick := time.NewTicker(releaseCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		p := r.Policy()
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
func (r *Releaser) step(now time.Time, p policy.Policy) bool {
	idle := r.idle.Next(now, r.Empty(now) && !r.Drain.Status().Draining)
	free := p.Strategy == policy.BinPack && idle >= p.Provision.OrDefault().IdleTimeout
	r.mu.Lock()
	changed := r.free != free
	r.free = free
	r.mu.Unlock()
	if changed {
		r.Kick()
	}
	return free
}

// release reports whether the node may end; the hook has run then.
func (r *Releaser) release(ctx context.Context, p policy.Provision) bool {
	asking, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	r.again = time.Now().Add(releaseAgain)
	if err := r.Ask(asking); err != nil {
		var refused *capacity.Refusal
		if errors.As(err, &refused) {
			r.again = time.Now().Add(min(max(refused.RetryAfter, releaseCheck), time.Minute))
		} else if errors.Is(err, scale.ErrNoProvisioner) {
			r.again = time.Now().Add(max(releaseAgain, p.Cooldown))
		}
		r.Log.Debug("stays, though idle", "err", err)
		return false
	}
	if !r.Drain.StartAlone(byRelease) {
		return false // the operator has begun a drain first
	}
	// The node admits nothing from here on: if it is empty now, it stays empty.
	if !r.Empty(time.Now()) {
		r.Log.Info("release cancelled: a session has just begun")
		r.Drain.Stop(byRelease)
		return false
	}
	in := r.Self()
	in.Action, in.Reason, in.Request = "release", "idle", rand.Text()
	err := r.Hook.Run(ctx, in)
	if err != nil {
		r.Drain.Stop(byRelease)
		r.again = time.Now().Add(max(p.Cooldown, releaseAgain))
		return false
	}
	if !r.Empty(time.Now()) {
		r.Log.Warn("something came while the node was being released")
	}
	r.Event(event.Event{Kind: event.Released})
	return true
}
