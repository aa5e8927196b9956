package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// defaultStopTimeout is how long a node that is told to end waits for its
// sessions. Service managers kill after more than that: systemd after 90 s,
// Kubernetes after 30 s, Docker after 10 s.
const defaultStopTimeout = 10 * time.Second

// signalTime is how long a signal may take to come to one who waits for it, once
// it has come to another.
const signalTime = 100 * time.Millisecond

// byStop is the reason of a drain that a signal has begun.
const byStop = "told to end"

// runUntilStopped runs n until it fails or ends by itself, parent is done, or
// this process gets a signal to end. At the first signal the node takes nothing
// new and waits until it is empty, --stop-timeout at most; at the second it ends.
func (n *node) runUntilStopped(parent context.Context) error {
	signals := make(chan os.Signal, 4)
	n.hangups.endBy(signals)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	defer cancel()
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-signals:
		case <-ctx.Done():
			return
		case <-parent.Done():
			// A signal ends parent too: the runtime hands it to each in turn.
			select {
			case <-signals:
			case <-time.After(signalTime):
				cancel() // it was none
				return
			}
		}
		if !n.awaitSessions(n.tuned.Load().stopTimeout) {
			cancel()
			return
		}
		select {
		case <-signals:
			n.log.Info("told to end again: the node ends now")
			cancel()
		case <-ctx.Done():
		}
	}()
	err := n.run(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, errDrained) {
		return nil
	}
	return err
}

// awaitSessions has the node drain and then end, and reports whether there is
// anything to wait for.
func (n *node) awaitSessions(timeout time.Duration) bool {
	n.notify.stopping(timeout)
	if left(n.ledger.Totals(time.Now())) == 0 || timeout == 0 {
		return false
	}
	c := n.sfu.Counts()
	n.log.Info("told to end: waiting for sessions; a second signal ends the node now",
		"publishers", c.Publishers, "viewers", c.Viewers, "links", c.Links, "at_most", timeout)
	n.startDrain(timeout, true, byStop)
	return true
}
