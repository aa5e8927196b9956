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

// forwardText has recipes that a test takes apart.
const forwardText = "Publishes one stream to a server and watches it with many viewers: H264 of 2.5 Mbit/s\n" +
	"and 30 frames/s with Opus of 50 packets/s, AES-128-GCM, with NACKs and reports.\n" +
	"Measures CPU seconds a million packets, packets a second, loss of packets and of\n" +
	"frames, delay one way, memory a viewer and the time to a first frame, and in the\n" +
	"same run the floor: header, AES-128-GCM and sendmmsg with UDP_SEGMENT to as many\n" +
	"addresses. The server has one CPU, the viewers another; what they used of it and\n" +
	"what the kernel dropped is told, and which side limited. On loopback, Linux only,\n" +
	"best as root: the viewers' receive buffer is bounded by net.core.rmem_max otherwise.\n" +
	"Figures of different runs differ by the machine's other work: compare within one.\n\n" +
	"Two versions of weir, each measured three times in turn:\n\n" +
	"  weir-lab bench forward --weir old=/usr/bin/weir --weir new=bin/weir --rounds 3 --viewers 1,10,100,200,500,700,1000\n\n" +
	"Other servers of WHIP and WHEP go by \"NAME WHIP WHEP PID\", or with variables and a\n" +
	"command instead of the PID; a password in a URL is sent as the token. MediaMTX:\n\n" +
	"  weir-lab bench forward --weir bin/weir --server 'mediamtx http://127.0.0.1:8889/load/whip http://127.0.0.1:8889/load/whep MTX_PATHS_ALL_OTHERS_SOURCE=publisher MTX_WEBRTCADDITIONALHOSTS=127.0.0.1 MTX_RTSP=no MTX_RTMP=no MTX_HLS=no MTX_SRT=no mediamtx'\n\n" +
	"Broadcast Box, in the directory of its source, where its settings are:\n\n" +
	"  weir-lab bench forward --server 'broadcast-box http://:load@127.0.0.1:8086/api/whip http://:load@127.0.0.1:8086/api/whep APP_ENV=production HTTP_ADDRESS=127.0.0.1:8086 INCLUDE_LOOPBACK_CANDIDATE=true UDP_MUX_PORT=8087 DISABLE_FRONTEND=true ./broadcast-box'\n\n" +
	"go2rtc:\n\n" +
	`  weir-lab bench forward --server 'go2rtc http://127.0.0.1:1984/api/webrtc?dst=load http://127.0.0.1:1984/api/webrtc?src=load go2rtc -config {"streams":{"load":""},"rtsp":{"listen":""},"webrtc":{"candidates":["127.0.0.1:8555"]}}'`

func forwardCommand() *cli.Command {
	return &cli.Command{
		Name: "forward", Usage: "what forwarding a stream to many viewers costs, beside the floor of the machine",
		Description: forwardText,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "weir", Usage: "a weir to start and measure, `[NAME=]FILE`, repeatable; without --server too: the one beside weir-lab, or in PATH"},
			&cli.GenericFlag{Name: "server", Value: &commands{}, Usage: "another server, `\"NAME WHIP WHEP PID\"`: name, both URLs, and the PID, or the command that starts it for each measurement; repeatable"},
			&cli.IntSliceFlag{Name: "viewers", Usage: "`NUMBERS` of viewers", Value: cli.NewIntSlice(1, 10, 100, 200)},
			&cli.IntFlag{Name: "rounds", Usage: "`NUMBER` of measurements of each server with each number of viewers, the servers in turn", Value: 1},
			&cli.DurationFlag{Name: "duration", Usage: "of each measurement", Value: 10 * time.Second},
			&cli.DurationFlag{Name: "settle", Usage: "how long the viewers are left alone before it", Value: 2 * time.Second},
			&cli.Float64Flag{Name: "join", Usage: "viewers that join per second", Value: 50},
			&cli.BoolFlag{Name: "no-floor", Usage: "do not measure the floor"},
			&cli.IntFlag{Name: "server-cpu", Usage: "`CPU` of the server", Value: 0},
			&cli.IntFlag{Name: "generator-cpu", Usage: "`CPU` of the publisher and the viewers; the server's: nothing is pinned", Value: 1},
			&cli.StringFlag{Name: "profiles", Usage: "`DIR` for a CPU profile of each weir with each number of viewers, NAME-VIEWERS.pprof, taken after the measurement; it must exist"},
			&cli.StringFlag{Name: "from", Usage: "do not measure: take what was measured from `FILE`, a forward.json"},
			&cli.StringFlag{Name: "out", Usage: "`DIR` to write forward.json, forward.md and the plot to; empty: only print the table"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "do not tell on standard error what is being measured"},
		},
		Action: benchForward,
	}
}

// commands is a repeatable flag whose values may contain commas.
type commands []string

// Set implements [cli.Generic].
func (c *commands) Set(s string) error {
	*c = append(*c, s)
	return nil
}

// String implements [cli.Generic].
func (c *commands) String() string { return strings.Join(*c, "; ") }

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
	return show(c, report, err)
}

func forwardReport(c *cli.Context) (*forward.Report, error) {
	if file := c.String("from"); file != "" {
		return forward.Read(file)
	}
	cfg, err := forwardConfig(c)
	if err != nil {
		return nil, err
	}
	if !c.Bool("quiet") {
		line := term.NewProgress(c.App.ErrWriter)
		defer line.Close()
		line.Set("measuring, at most %v", benchForwardTime)
		cfg.Log = slog.New(slog.NewTextHandler(line, nil))
	}
	if cfg.Dir, err = os.MkdirTemp("", "weir-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(cfg.Dir)
	ctx, cancel := context.WithTimeout(c.Context, benchForwardTime)
	defer cancel()
	return forward.Run(ctx, cfg)
}

// forwardConfig reads the flags.
func forwardConfig(c *cli.Context) (forward.Config, error) {
	cfg := forward.Config{
		Viewers: c.IntSlice("viewers"), Rounds: c.Int("rounds"), Duration: c.Duration("duration"), Settle: c.Duration("settle"),
		Join: c.Float64("join"), NoFloor: c.Bool("no-floor"), ServerCPU: c.Int("server-cpu"), GeneratorCPU: c.Int("generator-cpu"),
		Profiles: c.String("profiles"),
	}
	if err := forwardServers(c, &cfg); err != nil {
		return cfg, err
	}
	return cfg, cfg.Check()
}

func forwardServers(c *cli.Context, cfg *forward.Config) error {
	binaries := c.StringSlice("weir")
	if len(binaries)+len(*c.Generic("server").(*commands)) == 0 {
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
	for _, given := range *c.Generic("server").(*commands) {
		s, err := forward.ParseServer(strings.TrimSpace(given))
		if err != nil {
			return err
		}
		cfg.Servers = append(cfg.Servers, s)
	}
	return nil
}
