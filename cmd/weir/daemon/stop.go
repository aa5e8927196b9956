package daemon

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"weir/cmd/weir/drain"
	"weir/cmd/weir/httpd"
)

// defaultStopTimeout is how long a node that is asked to end waits for its
// sessions. Service managers kill after longer than that: systemd after 90 s,
// Kubernetes after 30 s, Docker after 10 s.
const defaultStopTimeout = 10 * time.Second

// signalTime is how long a signal may take from its first receiver to the next.
const signalTime = 100 * time.Millisecond

// runUntilStopped runs n until it fails or ends by itself, parent is done, or
// this process gets a signal to end. At the first signal the node stops
// admitting and waits until it is empty, --stop-timeout at most; at the second
// it ends.
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
			// A signal ends parent too: the runtime delivers it to one channel
			// after the other.
			select {
			case <-signals:
			case <-time.After(signalTime):
				cancel() // parent ended without a signal
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
	if errors.Is(err, context.Canceled) || errors.Is(err, drain.ErrDrained) {
		return nil
	}
	return err
}

// awaitSessions starts a drain that ends the node, and reports whether there is
// anything to wait for.
func (n *node) awaitSessions(timeout time.Duration) bool {
	n.notify.Stopping(timeout + 2*httpd.Shutdown)
	if n.drain.Left() == 0 || timeout == 0 {
		return false
	}
	c := n.sfu.Counts()
	n.log.Info("told to end: waiting for sessions; a second signal ends the node now",
		"publishers", c.Publishers, "viewers", c.Viewers, "links", c.Links, "at_most", timeout)
	n.drain.Start(timeout, true, drain.ByStop)
	return true
}
