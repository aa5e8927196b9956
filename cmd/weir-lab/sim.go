package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/testnet/sim"
)

func simCommand() *cli.Command {
	return &cli.Command{
		Name: "sim", Usage: "simulate placement in large networks, and compare it with others' rules",
		Description: "Runs the policy, the ledgers and the holders' code on virtual time, in networks of\n" +
			"up to 100,000 nodes, and others' rules for the same viewers. Starts no node. Says\n" +
			"which aims are met. All scenarios take about half an hour, steady two thirds of it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "scenario", Usage: "`NAMES`, by comma: all, " + strings.Join(sim.Scenarios, ", "), Value: "all"},
			&cli.IntFlag{Name: "nodes", Usage: "simulate so many `NODES` instead of each scenario's own number; burst always has 10"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the map, the arrivals and the choices", Value: 1},
			&cli.StringFlag{Name: "out", Usage: "`DIR` to write sim.json, sim.md and the plots to; empty: only print the table"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "do not tell on standard error what is being simulated"},
		},
		Action: runSim,
	}
}

// simulate runs cfg until ctx is done. A simulation cannot be interrupted: if
// ctx ends first, its goroutine runs until the process ends.
func simulate(ctx context.Context, cfg sim.Config) (*sim.Report, error) {
	type result struct {
		report *sim.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		report, err := sim.Run(cfg)
		done <- result{report, err}
	}()
	select {
	case r := <-done:
		return r.report, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func runSim(c *cli.Context) error {
	if c.Args().Present() {
		return cmdline.BadInput(fmt.Errorf("weir-lab sim takes no arguments, but got %q; scenarios go in --scenario burst,steady", c.Args().First()))
	}
	cfg := sim.Config{Nodes: c.Int("nodes"), Seed: c.Uint64("seed")}
	if names := c.String("scenario"); names != "all" {
		for _, name := range strings.Split(names, ",") {
			cfg.Scenarios = append(cfg.Scenarios, strings.TrimSpace(name))
		}
	}
	if c.IsSet("seed") && cfg.Seed == 0 {
		return cmdline.BadInput(errors.New("--seed 0: want 1 or more"))
	}
	if c.IsSet("nodes") && cfg.Nodes == 0 {
		return cmdline.BadInput(errors.New("--nodes 0: want 10 or more"))
	}
	if !c.Bool("quiet") {
		line := term.NewProgress(c.App.ErrWriter)
		defer line.Close()
		cfg.Progress = func(scenario, who string) {
			_, _ = fmt.Fprintf(line, "%s: %s\n", scenario, who) // a failed write to the terminal is ignored
			line.Set("simulating %s: %s", scenario, who)
		}
	}
	report, err := simulate(c.Context, cfg)
	if c.Context.Err() != nil {
		return cli.Exit("interrupted", cmdline.ExitFailure)
	}
	if errors.Is(err, sim.ErrInput) {
		return cmdline.BadInput(err)
	}
	if err != nil {
		return err
	}
	if dir := c.String("out"); dir != "" {
		err = report.Write(dir)
	}
	if c.Bool("json") {
		return errors.Join(err, term.PrintJSON(c, report))
	}
	return errors.Join(err, report.Markdown(c.App.Writer))
}
