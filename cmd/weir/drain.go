package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/term"
)

func drainCommand() *cli.Command {
	return &cli.Command{
		Name: "drain", Usage: "have a node take nothing new, and end when it is empty if asked to",
		Description: "New clients are sent to other nodes, and nodes that pull relayed streams from it move\nto others without a gap; clients connected stay until they leave. weir undrain takes it\nback.",
		Flags: ask.Flags(
			&cli.DurationFlag{Name: "deadline", Usage: "with --exit, end the remaining sessions after `D`; with --wait, wait no longer. 0: no deadline", Value: 10 * time.Minute},
			&cli.BoolFlag{Name: "exit", Usage: "the node's process ends when it is empty, or at the deadline"},
			&cli.BoolFlag{Name: "wait", Usage: "return when the node is empty or has ended"},
		),
		Action: func(c *cli.Context) error {
			deadline := c.Duration("deadline")
			if deadline < 0 || deadline > drain.Max {
				return cmdline.BadInput(fmt.Errorf("--deadline %v: want 0 for none, or up to %v", deadline, drain.Max))
			}
			body, err := json.Marshal(api.DrainRequest{DeadlineMillis: deadline.Milliseconds(), Exit: c.Bool("exit")})
			if err != nil {
				return err
			}
			var s api.Drain
			if err := ask.Post(c, "/drain", body, &s); err != nil {
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
		ctx, cancel = context.WithTimeout(ctx, deadline+drain.Linger)
		defer cancel()
	}
	tick := time.NewTicker(drain.Check)
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
		if err := ask.Fetch(c, "/status", &now); err != nil {
			var exit cli.ExitCoder
			if s.Exit && errors.As(err, &exit) && exit.ExitCode() == cmdline.ExitConnection {
				s.Left = 0
				return s, nil // it has ended
			}
			return s, err
		}
		if !now.Drain.Draining {
			return s, cli.Exit("the node no longer drains: weir undrain ended it", cmdline.ExitFailure)
		}
		s = now.Drain
	}
	return s, nil
}

func undrainCommand() *cli.Command {
	return &cli.Command{
		Name: "undrain", Usage: "have a draining node take clients again", Flags: ask.Flags(),
		Action: func(c *cli.Context) error {
			var s api.Drain
			if err := ask.Post(c, "/undrain", nil, &s); err != nil {
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
