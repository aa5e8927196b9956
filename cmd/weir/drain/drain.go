package drain

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/api"
)

const (
	// Check is how often a draining node checks whether it is empty.
	Check = 200 * time.Millisecond
	// Linger is how long an empty node goes on: holders, and commands that
	// wait for the drain, learn of it in that time.
	Linger = 600 * time.Millisecond
	// Max bounds the deadline of a drain.
	Max = 24 * time.Hour
)

// ErrDrained is the error of a node that ended as planned, after a drain.
var ErrDrained = errors.New("drained")

// A state is the state of draining, requested by the operator or by the node
// itself before its release.
type state struct {
	mu     sync.Mutex
	on     bool
	exit   bool
	begun  time.Time
	until  time.Time // zero: no deadline
	reason string
}

// begin starts draining, or changes the deadline and end of a drain under way.
// It reports whether none was under way.
func (d *state) begin(now time.Time, deadline time.Duration, exit bool, reason string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.on
	d.on, d.exit, d.reason = true, exit, reason
	if first {
		d.begun = now
	}
	d.until = time.Time{}
	if deadline > 0 {
		d.until = now.Add(deadline)
	}
	return first
}

// beginAlone starts draining without a deadline, unless a drain is under way.
func (d *state) beginAlone(now time.Time, reason string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on {
		return false
	}
	d.on, d.reason, d.begun = true, reason, now
	return true
}

// end stops draining, unless the drain has another reason. An empty reason
// matches any.
func (d *state) end(reason string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on || reason != "" && reason != d.reason {
		return false
	}
	d.on, d.exit, d.until, d.reason = false, false, time.Time{}, ""
	return true
}

// due reports whether the process is to end now; empty is how long the node has
// been empty.
func (d *state) due(now time.Time, empty time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.on && d.exit && (empty >= Linger || !d.until.IsZero() && !now.Before(d.until))
}

func (d *state) status() api.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Drain{Draining: d.on, Exit: d.exit, Reason: d.reason}
	if !d.until.IsZero() {
		until := d.until
		s.Deadline = &until
	}
	return s
}

// Left counts what would be lost if the node ended now.
func Left(t ledger.Totals) int { return t.Sessions + t.Cascades + (t.Leases - t.Leased) }

// A Drainer drains a node: it has the ledger refuse what is new, and tells the
// holders and the operator.
type Drainer struct {
	Ledger *ledger.Ledger
	Kick   func()     // publishes the node's record at once
	Leave  func(bool) // has relayed streams' trees move off the node, or stops that
	Event  func(event.Event)
	Log    *slog.Logger

	state state
}

func (d *Drainer) Status() api.Drain {
	s := d.state.status()
	s.Left = d.Left()
	return s
}

func (d *Drainer) Left() int { return Left(d.Ledger.Totals(time.Now())) }

// Start makes the node stop admitting. Clients are redirected as by a full
// node; sessions stay, and nodes that pull relayed streams move to others.
func (d *Drainer) Start(deadline time.Duration, exit bool, reason string) {
	if d.state.begin(time.Now(), deadline, exit, reason) {
		d.stopAdmitting(reason)
	}
}

// stopAdmitting publishes that the node has stopped admitting; a drain has begun.
func (d *Drainer) stopAdmitting(reason string) {
	d.Ledger.SetDraining(true)
	d.Leave(true)
	d.Kick()
	d.Event(event.Event{Kind: event.DrainStarted, Detail: reason})
}

// StartAlone starts draining without a deadline, unless a drain is under way.
func (d *Drainer) StartAlone(reason string) bool {
	if !d.state.beginAlone(time.Now(), reason) {
		return false
	}
	d.stopAdmitting(reason)
	return true
}

// Stop ends the drain, unless the node drains for another reason.
func (d *Drainer) Stop(reason string) {
	if !d.state.end(reason) {
		return
	}
	d.Ledger.SetDraining(false)
	d.Leave(false)
	d.Kick()
	d.Event(event.Event{Kind: event.DrainEnded})
}

// Run returns errDrained once the process is to end.
func (d *Drainer) Run(ctx context.Context) error {
	tick := time.NewTicker(Check)
	defer tick.Stop()
	var emptySince time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		switch {
		case Left(d.Ledger.Totals(now)) > 0:
			emptySince = time.Time{}
		case emptySince.IsZero():
			emptySince = now
		}
		var empty time.Duration
		if !emptySince.IsZero() {
			empty = now.Sub(emptySince)
		}
		if d.state.due(now, empty) {
			d.Log.Info("drained: the node ends", "left", Left(d.Ledger.Totals(now)))
			return ErrDrained
		}
	}
}

const (
	// ByOperator is the reason of a drain that the operator requested.
	ByOperator = "by the operator"
	// ByStop is the reason of a drain that a signal began.
	ByStop = "told to end"
)
