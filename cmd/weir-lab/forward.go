package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/testnet/bench/forward"
)

// benchForwardTime bounds the comparison of several servers at several rounds.
const benchForwardTime = 3 * time.Hour

func forwardCommand() *cli.Command {
	return &cli.Command{
		Name: "forward", Usage: "what forwarding a stream to many viewers costs, beside the floor of the machine",
		Description: "Publishes one stream to a server and watches it with many viewers: H264 of 2.5 Mbit/s\n" +
			"and 30 frames/s with Opus of 50 packets/s, AES-128-GCM, with NACKs and reports.\n" +
			"Measures CPU seconds a million packets, packets a second, loss of packets and of\n" +
			"frames, delay one way, memory a viewer and the time to a first frame, and in the\n" +
			"same run the floor: header, AES-128-GCM and sendmmsg with UDP_SEGMENT to as many\n" +
			"addresses. The server has one CPU, the viewers another; what they used of it and\n" +
			"what the kernel dropped is told, and which side limited. On loopback, Linux only,\n" +
			"best as root: the viewers' receive buffer is bounded by net.core.rmem_max otherwise.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "weir", Usage: "a weir to start and measure, `[NAME=]FILE`, repeatable; without --server too: the one beside weir-lab, or in PATH"},
			&cli.StringSliceFlag{Name: "server", Usage: "another server, `\"NAME WHIP WHEP PID\"`: name, both URLs, and the PID, or the command that starts it for each measurement; repeatable"},
			&cli.IntSliceFlag{Name: "viewers", Usage: "`NUMBERS` of viewers", Value: cli.NewIntSlice(1, 10, 100, 200)},
			&cli.IntFlag{Name: "rounds", Usage: "`NUMBER` of measurements of each server with each number of viewers, the servers in turn", Value: 1},
			&cli.DurationFlag{Name: "duration", Usage: "of each measurement", Value: 10 * time.Second},
			&cli.DurationFlag{Name: "settle", Usage: "how long the viewers are left alone before it", Value: 2 * time.Second},
			&cli.Float64Flag{Name: "join", Usage: "viewers that join per second", Value: 50},
			&cli.BoolFlag{Name: "no-floor", Usage: "do not measure the floor"},
			&cli.IntFlag{Name: "server-cpu", Usage: "`CPU` of the server", Value: 0},
			&cli.IntFlag{Name: "generator-cpu", Usage: "`CPU` of the publisher and the viewers; the server's: nothing is pinned", Value: 1},
			&cli.StringFlag{Name: "from", Usage: "do not measure: take what was measured from `FILE`, a forward.json"},
			&cli.StringFlag{Name: "out", Usage: "`DIR` to write forward.json, forward.md and the plot to; empty: only print the table"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "do not tell on standard error what is being measured"},
		},
		Action: benchForward,
	}
}

func benchForward(c *cli.Context) error {
	if c.Args().Present() {
		return cmdline.BadInput(fmt.Errorf("weir-lab bench forward takes no arguments, but got %q; numbers of viewers go in --viewers 100,200", c.Args().First()))
	}
	report, err := forwardReport(c)
	if errors.Is(err, forward.ErrInput) {
		return cmdline.BadInput(err)
	}
	if report == nil || len(report.Rows)+len(report.Floor) == 0 {
		return err
	}
	// The results before a failure are worth keeping.
	if dir := c.String("out"); dir != "" {
		err = errors.Join(err, report.Write(dir))
	}
	if c.Bool("json") {
		return errors.Join(err, term.PrintJSON(c, report))
	}
	return errors.Join(err, report.Markdown(c.App.Writer))
}

func forwardReport(c *cli.Context) (*forward.Report, error) {
	if file := c.String("from"); file != "" {
		return forward.Read(file)
	}
	cfg := forward.Config{
		Viewers: c.IntSlice("viewers"), Rounds: c.Int("rounds"), Duration: c.Duration("duration"), Settle: c.Duration("settle"),
		Join: c.Float64("join"), NoFloor: c.Bool("no-floor"), ServerCPU: c.Int("server-cpu"), GeneratorCPU: c.Int("generator-cpu"),
	}
	if err := forwardServers(c, &cfg); err != nil {
		return nil, err
	}
	if !c.Bool("quiet") {
		line := term.NewProgress(c.App.ErrWriter)
		defer line.Close()
		line.Set("measuring, at most %v", benchForwardTime)
		cfg.Log = slog.New(slog.NewTextHandler(line, nil))
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	var err error
	if cfg.Dir, err = os.MkdirTemp("", "weir-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(cfg.Dir)
	ctx, cancel := context.WithTimeout(c.Context, benchForwardTime)
	defer cancel()
	return forward.Run(ctx, cfg)
}

func forwardServers(c *cli.Context, cfg *forward.Config) error {
	binaries := c.StringSlice("weir")
	if len(binaries)+len(c.StringSlice("server")) == 0 {
		binaries = []string{""}
	}
	for _, given := range binaries {
		s := forward.ParseWeir(given)
		if given == "" {
			s = forward.Server{Name: "weir"}
		}
		file, err := weirBinary(s.Weir)
		if err != nil {
			return err
		}
		s.Weir = file
		cfg.Servers = append(cfg.Servers, s)
	}
	for _, given := range c.StringSlice("server") {
		s, err := forward.ParseServer(strings.TrimSpace(given))
		if err != nil {
			return err
		}
		cfg.Servers = append(cfg.Servers, s)
	}
	return nil
}
