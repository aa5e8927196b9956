package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"weir/cmd/weir/term"
)

// statusEvery is the interval of status texts for the service manager.
const statusEvery = 5 * time.Second

// A notifier reports the state of the node to the service manager that started
// this process, as in sd_notify(3). Without a service manager it does nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) heard() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

func (n notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not told", "state", state, "err", err)
	}
}

// stopping also requests the time that the sessions are given.
func (n notifier) stopping(timeout time.Duration) {
	n.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (timeout + 2*httpShutdown).Microseconds()))
}

// reloading reports the start of a reload of the configuration, as systemd's
// Type=notify-reload requires, and reloaded its end. Before the node is ready,
// systemd would mistake the latter for readiness.
func (n notifier) reloading() {
	if !n.heard() {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("service manager not told of the reload", "err", err)
		return
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

func (n notifier) reloaded(ready bool) {
	if ready {
		n.send(daemon.SdNotifyReady)
	}
}

// notifyManager reports the node's state to the service manager, if there is
// one, until ctx is done.
func (n *node) notifyManager(ctx context.Context) error {
	if !n.notify.heard() {
		return nil
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	told := ""
	for {
		c, totals := n.sfu.Counts(), n.ledger.Totals(time.Now())
		status := fmt.Sprintf("STATUS=%s: %s, %s, %s, stress %.2f", totals.State,
			term.Count(c.Publishers, "publisher", "publishers"), term.Count(c.Viewers, "viewer", "viewers"), term.Count(c.Links, "cascade link", "cascade links"), totals.Stress)
		if status != told {
			told = status
			n.notify.send(status)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A watchdog reports to the service manager that the node is alive, each time
// that all its parts have answered. If one is stuck, no report is sent, and the
// service manager restarts the node (WatchdogSec= of systemd.service(5)).
type watchdog struct {
	notify notifier
	alive  *liveness
	period time.Duration // the longest time between reports
	stuck  func(error)   // called for each failed check
}

// newWatchdog is n's, or has a period of 0 if the service manager has no watchdog.
func (n *node) newWatchdog() watchdog {
	d := watchdog{notify: n.notify, alive: n.alive, stuck: func(err error) {
		n.log.Error("this node is stuck: the service manager is left to start it anew", "err", err)
	}}
	if !n.notify.heard() {
		return d
	}
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog of the service manager not understood", "err", err)
	}
	d.period = period
	return d
}

// run reports until ctx is done. Three checks fit into a period, so that one
// late check does no harm.
func (d watchdog) run(ctx context.Context) error {
	if d.period <= 0 {
		return nil
	}
	tick := time.NewTicker(d.period / 3)
	defer tick.Stop()
	for {
		switch err := d.alive.check(ctx, min(aliveTime, d.period/3)); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			d.stuck(err)
		default:
			d.notify.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
