package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
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

// stopping also requests the time that ending may take.
func (n notifier) stopping(timeout time.Duration) {
	n.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, timeout.Microseconds()))
}

func (n notifier) ready() { n.send(daemon.SdNotifyReady) }

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
		n.ready()
	}
}

// run reports the node's state in words to the service manager, if there is
// one, until ctx is done.
func (n notifier) run(ctx context.Context, status func() string) error {
	if !n.heard() {
		return nil
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	told := ""
	for {
		if now := status(); now != told {
			told = now
			n.send("STATUS=" + now)
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

// newWatchdog has a period of 0 if the service manager has no watchdog.
func newWatchdog(notify notifier, alive *liveness) watchdog {
	d := watchdog{notify: notify, alive: alive, stuck: func(err error) {
		notify.log.Error("this node is stuck: the service manager is left to start it anew", "err", err)
	}}
	if !notify.heard() {
		return d
	}
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		notify.log.Warn("watchdog of the service manager not understood", "err", err)
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
