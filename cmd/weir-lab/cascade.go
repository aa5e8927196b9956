package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/testnet/bench"
)

// benchTime is several times the duration of a benchmark at its defaults.
const benchTime = 15 * time.Minute

func cascadeCommand() *cli.Command {
	return &cli.Command{
		Name: "cascade", Usage: "what finding, reserving and cascading cost",
		Description: "Starts networks of nodes on loopback, each node a process of weir,\n" +
			"publishes the built-in clip and measures: the time to a viewer's first frame over\n" +
			"a new cascade link and over an existing one, the latency that one hop adds, what\n" +
			"a selection costs and how old the records are that it uses, discovery's upkeep,\n" +
			"and whether sessions leave anything behind. All of it shares this machine: leave\n" +
			"it alone meanwhile.",
		Flags: []cli.Flag{
			&cli.IntSliceFlag{Name: "nodes", Usage: "`SIZES` of the networks", Value: cli.NewIntSlice(5, 20)},
			&cli.IntFlag{Name: "samples", Usage: "`NUMBER` of viewers and of selections measured for each figure", Value: 30},
			&cli.IntFlag{Name: "sessions", Usage: "`NUMBER` of sessions opened and closed", Value: 500},
			&cli.DurationFlag{Name: "hop", Usage: "how long packets are followed over a hop", Value: 10 * time.Second},
			&cli.DurationFlag{Name: "idle", Usage: "how long discovery's upkeep is watched", Value: 20 * time.Second},
			&cli.StringFlag{Name: "weir", Usage: "the weir to measure, a `FILE`; empty: the one beside weir-lab, or in PATH"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "do not tell on standard error what is being measured"},
		},
		Action: benchCascade,
	}
}

// weirBinary is the program named by --weir, by default the weir beside this
// one, or else the one in PATH.
func weirBinary(given string) (string, error) {
	if given == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		given = filepath.Join(filepath.Dir(self), "weir")
		if _, err := os.Stat(given); err != nil {
			given = "weir"
		}
	}
	file, err := exec.LookPath(given)
	if err != nil {
		return "", cmdline.BadInput(fmt.Errorf("the nodes to measure are processes of weir, which is neither beside weir-lab nor in PATH: --weir FILE says where it is (%w)", err))
	}
	return filepath.Abs(file)
}

func benchCascade(c *cli.Context) error {
	if c.Args().Present() {
		return cmdline.BadInput(fmt.Errorf("weir-lab bench cascade takes no arguments, but got %q; sizes go in --nodes 5,20", c.Args().First()))
	}
	cfg := bench.Config{
		Nodes: c.IntSlice("nodes"), Samples: c.Int("samples"), Sessions: c.Int("sessions"),
		Hop: c.Duration("hop"), Idle: c.Duration("idle"),
	}
	if !c.Bool("quiet") {
		line := term.NewProgress(c.App.ErrWriter)
		defer line.Close()
		line.Set("measuring, at most %v", benchTime)
		cfg.Log = slog.New(slog.NewTextHandler(line, nil))
	}
	if err := cfg.Check(); err != nil {
		return cmdline.BadInput(err)
	}
	var err error
	if cfg.Binary, err = weirBinary(c.String("weir")); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp("", "weir-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(cfg.Dir)
	ctx, cancel := context.WithTimeout(c.Context, benchTime)
	defer cancel()
	report, err := bench.Cascade(ctx, cfg)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return term.PrintJSON(c, report)
	}
	report.Print(c.App.Writer)
	return nil
}
