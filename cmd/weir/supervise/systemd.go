package supervise

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

// A Notifier reports the state of the node to the service manager that started
// this process, as in sd_notify(3). Without a service manager it does nothing.
type Notifier struct{ Log *slog.Logger }

func (n Notifier) heard() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

func (n Notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.Log.Warn("service manager not told", "state", state, "err", err)
	}
}

// Stopping also requests the time that ending may take.
func (n Notifier) Stopping(timeout time.Duration) {
	n.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, timeout.Microseconds()))
}

func (n Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Reloading reports the start of a reload of the configuration, as systemd's
// Type=notify-reload requires, and reloaded its end. Before the node is ready,
// systemd would mistake the latter for readiness.
func (n Notifier) Reloading() {
	if !n.heard() {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.Log.Warn("service manager not told of the reload", "err", err)
		return
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

func (n Notifier) Reloaded(ready bool) {
	if ready {
		n.Ready()
	}
}

// Run reports the node's state in words to the service manager, if there is
// one, until ctx is done.
func (n Notifier) Run(ctx context.Context, status func() string) error {
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

// A Watchdog reports to the service manager that the node is alive, each time
// that all its parts have answered. If one is stuck, no report is sent, and the
// service manager restarts the node (WatchdogSec= of systemd.service(5)).
type Watchdog struct {
	notify Notifier
	alive  *Liveness
	period time.Duration // the longest time between reports
	stuck  func(error)   // called for each failed check
}

// NewWatchdog has a period of 0 if the service manager has no watchdog.
func NewWatchdog(notify Notifier, alive *Liveness) Watchdog {
	d := Watchdog{notify: notify, alive: alive, stuck: func(err error) {
		notify.Log.Error("this node is stuck: the service manager is left to start it anew", "err", err)
	}}
	if !notify.heard() {
		return d
	}
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		notify.Log.Warn("watchdog of the service manager not understood", "err", err)
	}
	d.period = period
	return d
}

// Run reports until ctx is done. Three checks fit into a period, so that one
// late check does no harm.
func (d Watchdog) Run(ctx context.Context) error {
	if d.period <= 0 {
		return nil
	}
	tick := time.NewTicker(d.period / 3)
	defer tick.Stop()
	for {
		switch err := d.alive.check(ctx, min(CheckTime, d.period/3)); {
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
