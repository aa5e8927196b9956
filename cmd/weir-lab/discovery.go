package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/testnet/bench"
)

// benchDiscoveryTime bounds the comparison at several times its defaults.
const benchDiscoveryTime = 90 * time.Minute

func discoveryCommand() *cli.Command {
	var modes []string
	for _, m := range bench.Modes {
		modes = append(modes, string(m))
	}
	return &cli.Command{
		Name: "discovery", Usage: "who should hold the servers' state: compare the answers",
		Description: "Runs real nodes in this process, on a simulated network with distances, once for\n" +
			"every mode and size: the same map, load and selections each time. Measures what a\n" +
			"selection costs and takes, what upkeep costs, how old the records are that\n" +
			"selections rest on, how good the choices are, and what happens when the busiest\n" +
			"holder dies. Mode redis starts a redis-server of its own. All of it shares this\n" +
			"machine: leave it alone meanwhile, about twenty minutes.",
		Flags: []cli.Flag{
			&cli.IntSliceFlag{Name: "nodes", Usage: "`SIZES` of the networks", Value: cli.NewIntSlice(5, 20, 50, 100)},
			&cli.StringSliceFlag{Name: "modes", Usage: "`MODES` to compare", Value: cli.NewStringSlice(modes...)},
			&cli.DurationFlag{Name: "duration", Usage: "of each phase: upkeep (15 s at least), selections, and after a death", Value: 5 * time.Second},
			&cli.DurationFlag{Name: "calm", Usage: "how long a network is left alone before that; 0: 5 s, and 0.3 s for each node"},
			&cli.Float64Flag{Name: "rate", Usage: "selections per second, of all nodes together", Value: 20},
			&cli.DurationFlag{Name: "rtt", Usage: "mean round trip between two nodes", Value: 100 * time.Millisecond},
			&cli.Uint64Flag{Name: "seed", Usage: "of the map, the load and the selections", Value: 1},
			&cli.StringFlag{Name: "redis", Usage: "the redis-server to start, a `FILE`; empty: the one in PATH"},
			&cli.StringFlag{Name: "from", Usage: "do not measure: take what was measured from `FILE`, a discovery.json"},
			&cli.StringFlag{Name: "out", Usage: "`DIR` to write discovery.json, discovery.md and the plots to; empty: only print the table"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "do not tell on standard error what is being measured"},
		},
		Action: benchDiscovery,
	}
}

func benchDiscovery(c *cli.Context) error {
	if c.Args().Present() {
		return cmdline.BadInput(fmt.Errorf("weir-lab bench discovery takes no arguments, but got %q; sizes go in --nodes 5,20, modes in --modes %s", c.Args().First(), bench.ModeKademlia))
	}
	report, err := measureOrRead(c)
	if report == nil || len(report.Measured) == 0 {
		return err
	}
	return show(c, report, err)
}

// A measurement is what a bench reports.
type measurement interface {
	Write(dir string) error
	Markdown(w io.Writer) error
}

// show writes and prints what was measured before err, which it returns: the
// results before a failure are worth keeping.
func show(c *cli.Context, m measurement, err error) error {
	if dir := c.String("out"); dir != "" {
		err = errors.Join(err, m.Write(dir))
	}
	if c.Bool("json") {
		return errors.Join(err, term.PrintJSON(c, m))
	}
	return errors.Join(err, m.Markdown(c.App.Writer))
}

func measureOrRead(c *cli.Context) (*bench.DiscoveryReport, error) {
	if file := c.String("from"); file != "" {
		report, err := bench.ReadDiscovery(file)
		if err != nil {
			return nil, cmdline.BadInput(err)
		}
		return report, nil
	}
	cfg := bench.DiscoveryConfig{
		Nodes: c.IntSlice("nodes"), Seed: c.Uint64("seed"), RTT: c.Duration("rtt"),
		Duration: c.Duration("duration"), Calm: c.Duration("calm"), Rate: c.Float64("rate"), Redis: c.String("redis"),
	}
	for _, m := range c.StringSlice("modes") {
		cfg.Modes = append(cfg.Modes, bench.Mode(strings.TrimSpace(m)))
	}
	if !c.Bool("quiet") {
		line := term.NewProgress(c.App.ErrWriter)
		defer line.Close()
		line.Set("measuring, at most %v", benchDiscoveryTime)
		cfg.Log = slog.New(slog.NewTextHandler(line, nil))
	}
	if err := cfg.Check(); err != nil {
		return nil, cmdline.BadInput(err)
	}
	ctx, cancel := context.WithTimeout(c.Context, benchDiscoveryTime)
	defer cancel()
	return bench.Discovery(ctx, cfg)
}
