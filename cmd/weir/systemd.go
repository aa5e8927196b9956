package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often the service manager is told what the node has.
const statusEvery = 5 * time.Second

// A notifier tells the service manager that started this process what becomes
// of it, as sd_notify(3) has it. Where there is none it says nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) heard() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

func (n notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not told", "state", state, "err", err)
	}
}

// stopping also asks for the time that the sessions are given.
func (n notifier) stopping(timeout time.Duration) {
	n.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (timeout + 2*httpShutdown).Microseconds()))
}

// notifyManager tells the service manager, if there is one, what the node has
// and, if it wants to know, that the node is alive, until ctx is done.
func (n *node) notifyManager(ctx context.Context) error {
	if !n.notify.heard() {
		return nil
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog of the service manager not understood", "err", err)
	}
	var beat <-chan time.Time
	if watchdog > 0 {
		t := time.NewTicker(watchdog / 2)
		defer t.Stop()
		beat = t.C
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	told := ""
	for {
		// Both take the locks that all else does: a node that is stuck does not
		// get past here, and is started anew.
		c, totals := n.sfu.Counts(), n.ledger.Totals(time.Now())
		status := fmt.Sprintf("STATUS=%s: %s, %s, %s, stress %.2f", totals.State,
			count(c.Publishers, "publisher", "publishers"), count(c.Viewers, "viewer", "viewers"), count(c.Links, "cascade link", "cascade links"), totals.Stress)
		if status != told {
			told = status
			n.notify.send(status)
		}
		if watchdog > 0 {
			n.notify.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-beat:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
