package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/sfu/problem"
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

// A drain is the state of draining, requested by the operator or by the node
// itself before its release.
type drain struct {
	mu     sync.Mutex
	on     bool
	exit   bool
	begun  time.Time
	until  time.Time // zero: no deadline
	reason string
}

// begin starts draining, or changes the deadline and end of a drain under way.
// It reports whether none was under way.
func (d *drain) begin(now time.Time, deadline time.Duration, exit bool, reason string) bool {
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
func (d *drain) beginAlone(now time.Time, reason string) bool {
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
func (d *drain) end(reason string) bool {
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
func (d *drain) due(now time.Time, empty time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.on && d.exit && (empty >= drainLinger || !d.until.IsZero() && !now.Before(d.until))
}

func (d *drain) status() api.Drain {
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

func (n *node) drainStatus() api.Drain {
	s := n.drain.status()
	s.Left = left(n.ledger.Totals(time.Now()))
	return s
}

// startDrain makes the node stop admitting. Clients are redirected as by a full
// node; sessions stay, and other nodes can still pull streams.
func (n *node) startDrain(deadline time.Duration, exit bool, reason string) {
	if n.drain.begin(time.Now(), deadline, exit, reason) {
		n.closeDoor(reason)
	}
}

// closeDoor publishes that the node has stopped admitting; a drain has begun.
func (n *node) closeDoor(reason string) {
	n.ledger.SetDraining(true)
	n.dht.Publisher.Kick()
	n.events.Add(event.Event{Kind: event.DrainStarted, Detail: reason})
}

// stopDrain ends the drain, unless the node drains for another reason.
func (n *node) stopDrain(reason string) {
	if !n.drain.end(reason) {
		return
	}
	n.ledger.SetDraining(false)
	n.dht.Publisher.Kick()
	n.events.Add(event.Event{Kind: event.DrainEnded})
}

// watchDrain returns errDrained once the process is to end.
func (n *node) watchDrain(ctx context.Context) error {
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
		case left(n.ledger.Totals(now)) > 0:
			emptySince = time.Time{}
		case emptySince.IsZero():
			emptySince = now
		}
		var empty time.Duration
		if !emptySince.IsZero() {
			empty = now.Sub(emptySince)
		}
		if n.drain.due(now, empty) {
			n.log.Info("drained: the node ends", "left", left(n.ledger.Totals(now)))
			return errDrained
		}
	}
}

// byOperator is the reason of a drain that the operator requested.
const byOperator = "by the operator"

func (n *node) serveDrain(w http.ResponseWriter, r *http.Request) {
	var req api.DrainRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil && !errors.Is(err, io.EOF) {
		problem.New(problem.BadBody, "want a JSON object with deadline_ms and exit: "+err.Error()).Write(w)
		return
	}
	if req.DeadlineMillis < 0 || req.DeadlineMillis > maxDrain.Milliseconds() {
		problem.New(problem.BadParameter, fmt.Sprintf("deadline_ms %d: want 0 for none, or up to %d", req.DeadlineMillis, maxDrain.Milliseconds())).Write(w)
		return
	}
	n.startDrain(time.Duration(req.DeadlineMillis)*time.Millisecond, req.Exit, byOperator)
	writeJSON(w, n.drainStatus())
}

func (n *node) serveUndrain(w http.ResponseWriter, _ *http.Request) {
	if n.drain.status().Reason == byStop {
		problem.New(problem.Closing, "the node was told to end: that cannot be taken back").Write(w)
		return
	}
	n.stopDrain("")
	writeJSON(w, n.drainStatus())
}

func drainCommand() *cli.Command {
	return &cli.Command{
		Name: "drain", Usage: "have a node take nothing new, and end when it is empty if asked to",
		Description: "New clients are sent to other nodes; those connected stay until they leave.\nweir undrain takes it back.",
		Flags: adminFlags(
			&cli.DurationFlag{Name: "deadline", Usage: "with --exit, end after `D` whoever is left; with --wait, wait no longer. 0: no deadline", Value: 10 * time.Minute},
			&cli.BoolFlag{Name: "exit", Usage: "the node's process ends when it is empty, or at the deadline"},
			&cli.BoolFlag{Name: "wait", Usage: "return when the node is empty or has ended"},
		),
		Action: func(c *cli.Context) error {
			deadline := c.Duration("deadline")
			if deadline < 0 || deadline > maxDrain {
				return cmdline.BadInput(fmt.Errorf("--deadline %v: want 0 for none, or up to %v", deadline, maxDrain))
			}
			body, err := json.Marshal(api.DrainRequest{DeadlineMillis: deadline.Milliseconds(), Exit: c.Bool("exit")})
			if err != nil {
				return err
			}
			var s api.Drain
			if err := post(c, "/drain", body, &s); err != nil {
				return err
			}
			if c.Bool("wait") {
				if s, err = awaitDrained(c, s, deadline); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				return term.PrintJSON(c, s)
			}
			_, err = fmt.Fprintf(c.App.Writer, "draining; %s left\n", term.Count(s.Left, "session or pull", "sessions and pulls"))
			return err
		},
	}
}

// awaitDrained polls until nothing is left or, if the process was to end, until
// it no longer answers.
func awaitDrained(c *cli.Context, s api.Drain, deadline time.Duration) (api.Drain, error) {
	ctx := c.Context
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline+drainLinger)
		defer cancel()
	}
	tick := time.NewTicker(drainCheck)
	defer tick.Stop()
	line := term.NewProgress(c.App.ErrWriter)
	defer line.Close()
	for s.Left > 0 || s.Exit {
		line.Set("draining: %s left", term.Count(s.Left, "session or pull", "sessions and pulls"))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s, cli.Exit(fmt.Sprintf("%s left after %v", term.Count(s.Left, "session or pull", "sessions and pulls"), deadline), cmdline.ExitFailure)
		}
		var now api.Status
		if err := fetch(c, "/status", &now); err != nil {
			var exit cli.ExitCoder
			if s.Exit && errors.As(err, &exit) && exit.ExitCode() == cmdline.ExitConnection {
				s.Left = 0
				return s, nil // it has ended
			}
			return s, err
		}
		if !now.Drain.Draining {
			return s, cli.Exit("the node drains no more: somebody has taken it back", cmdline.ExitFailure)
		}
		s = now.Drain
	}
	return s, nil
}

func undrainCommand() *cli.Command {
	return &cli.Command{
		Name: "undrain", Usage: "have a draining node take clients again", Flags: adminFlags(),
		Action: func(c *cli.Context) error {
			var s api.Drain
			if err := post(c, "/undrain", nil, &s); err != nil {
				return err
			}
			if c.Bool("json") {
				return term.PrintJSON(c, s)
			}
			_, err := fmt.Fprintln(c.App.Writer, "the node takes clients again")
			return err
		},
	}
}

// drainLine is the text of weir status about a drain, after the state.
func drainLine(s api.Drain) string {
	if !s.Draining {
		return ""
	}
	line := fmt.Sprintf("; %s, %d left", s.Reason, s.Left)
	if s.Exit {
		line += ", ends when empty"
	}
	if s.Exit && s.Deadline != nil {
		line += " or at " + s.Deadline.Local().Format(time.TimeOnly)
	}
	return line
}
