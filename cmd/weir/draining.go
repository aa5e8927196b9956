package main

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
	// drainCheck is how often a draining node checks whether it is empty.
	drainCheck = 200 * time.Millisecond
	// drainLinger is how long an empty node goes on: holders, and commands that
	// wait for the drain, learn of it in that time.
	drainLinger = 600 * time.Millisecond
	// maxDrain bounds the deadline of a drain.
	maxDrain = 24 * time.Hour
)

// errDrained is the error of a node that ended as planned, after a drain.
var errDrained = errors.New("drained")

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
	return d.on && d.exit && (empty >= drainLinger || !d.until.IsZero() && !now.Before(d.until))
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

// left counts what would be lost if the node ended now.
func left(t ledger.Totals) int { return t.Sessions + t.Cascades + (t.Leases - t.Leased) }

// A drainer drains a node: it has the ledger refuse what is new, and tells the
// holders and the operator.
type drainer struct {
	ledger *ledger.Ledger
	kick   func() // publishes the node's record at once
	event  func(event.Event)
	log    *slog.Logger

	state state
}

func (d *drainer) status() api.Drain {
	s := d.state.status()
	s.Left = d.left()
	return s
}

func (d *drainer) left() int { return left(d.ledger.Totals(time.Now())) }

// start makes the node stop admitting. Clients are redirected as by a full
// node; sessions stay, and other nodes can still pull streams.
func (d *drainer) start(deadline time.Duration, exit bool, reason string) {
	if d.state.begin(time.Now(), deadline, exit, reason) {
		d.stopAdmitting(reason)
	}
}

// stopAdmitting publishes that the node has stopped admitting; a drain has begun.
func (d *drainer) stopAdmitting(reason string) {
	d.ledger.SetDraining(true)
	d.kick()
	d.event(event.Event{Kind: event.DrainStarted, Detail: reason})
}

// startAlone starts draining without a deadline, unless a drain is under way.
func (d *drainer) startAlone(reason string) bool {
	if !d.state.beginAlone(time.Now(), reason) {
		return false
	}
	d.stopAdmitting(reason)
	return true
}

// stop ends the drain, unless the node drains for another reason.
func (d *drainer) stop(reason string) {
	if !d.state.end(reason) {
		return
	}
	d.ledger.SetDraining(false)
	d.kick()
	d.event(event.Event{Kind: event.DrainEnded})
}

// run returns errDrained once the process is to end.
func (d *drainer) run(ctx context.Context) error {
	tick := time.NewTicker(drainCheck)
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
		case left(d.ledger.Totals(now)) > 0:
			emptySince = time.Time{}
		case emptySince.IsZero():
			emptySince = now
		}
		var empty time.Duration
		if !emptySince.IsZero() {
			empty = now.Sub(emptySince)
		}
		if d.state.due(now, empty) {
			d.log.Info("drained: the node ends", "left", left(d.ledger.Totals(now)))
			return errDrained
		}
	}
}

// byOperator is the reason of a drain that the operator requested.
const byOperator = "by the operator"
