package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/urfave/cli/v2"

	"weir/sfu/client"
)

func viewCommand() *cli.Command {
	return &cli.Command{
		Name:      "view",
		Usage:     "receive a stream from a WHEP endpoint and measure it",
		ArgsUsage: "URL…",
		Description: `Receives the stream at URL, such as http://127.0.0.1:8080/whep/demo, and
prints statistics. When the connection is lost it gets another one, at the other
URLs given, there, or where it was redirected to. Nothing is decoded or shown; --save keeps the video for a
player. Latency is one-way, from the publisher's capture time stamps: on another
machine's clock it is off by what the clocks differ.

Exit codes: 0 a frame came, 1 none did, or the connection was lost, 2 no
connection, 3 bad input, 4 refused by the server.`,
		Flags: mediaFlags(
			&cli.StringFlag{Name: "tracks", Value: "audio,video", Usage: "ask for `KINDS`: audio, video or both", EnvVars: env("TRACKS")},
			reconnectFlag(time.Minute),
			&cli.StringFlag{Name: "save", Usage: "write the video to `FILE` (IVF)", EnvVars: env("SAVE")},
		),
		Action: view,
	}
}

func view(c *cli.Context) error {
	args, err := mediaArgs(c)
	if err != nil {
		return err
	}
	rest, urls, err := urlsOf(args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("URLs are expected, not %s; expected something like http://127.0.0.1:8080/whep/demo", strings.Join(rest, " "))
	}
	if err != nil {
		return badInput(fmt.Errorf("view: %w", err))
	}
	trusting, err := trustingClient(c.String("ca"))
	if err != nil {
		return badInput(fmt.Errorf("view: %w", err))
	}
	report := newReporter(c)
	cfg := client.ViewConfig{Token: c.String("token"), TCP: c.Bool("tcp"), Silence: silence, HTTP: trusting, Log: report.log}
	if err := wantedTracks(&cfg, c.String("tracks")); err != nil {
		return badInput(fmt.Errorf("view: --tracks: %w", err))
	}
	way := &course{what: "view", doing: "viewing", urls: urls, report: report}
	save := func() error { return nil }
	if path := c.String("save"); path != "" {
		recorder, err := client.NewRecorder(path)
		if err != nil {
			return mediaExit(c, "view", err)
		}
		var mu sync.Mutex // tracks come from a goroutine each
		cfg.OnRTP = func(track client.TrackInfo, packet *rtp.Packet, _ time.Time) {
			mu.Lock()
			defer mu.Unlock()
			recorder.Write(track, packet)
		}
		way.resume = func(gap time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			recorder.Resume(gap)
		}
		save = recorder.Close
	}
	way.open = func(ctx context.Context, url string) (mediaConn, error) {
		cfg := cfg
		cfg.URL = url
		v, err := client.View(ctx, cfg)
		if err != nil {
			return mediaConn{}, err
		}
		run := func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-v.Done():
				return client.ErrConnectionLost
			}
		}
		return mediaConn{stats: v.Stats, run: run, close: v.Close}, nil
	}
	final, err := way.run(c)
	lost := errors.Is(err, client.ErrConnectionLost)
	// By now all viewers are closed, and nobody writes to the recorder.
	if saveErr := save(); saveErr != nil && (err == nil || lost) {
		err, lost = saveErr, false
	}
	if err != nil && !lost {
		return mediaExit(c, "view", err)
	}
	report.final(final)
	switch {
	case final.FirstFrame == 0:
		return cli.Exit(fmt.Sprintf("view: connected to %s, but no frame came", withoutTicket(final.URL)), exitFailure)
	case lost:
		return cli.Exit("view: connection lost", exitFailure)
	}
	return nil
}

// wantedTracks parses a list such as "audio,video".
func wantedTracks(cfg *client.ViewConfig, list string) error {
	cfg.NoAudio, cfg.NoVideo = true, true
	for kind := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(kind) {
		case "audio":
			cfg.NoAudio = false
		case "video":
			cfg.NoVideo = false
		default:
			return fmt.Errorf("%q; expected audio, video or audio,video", kind)
		}
	}
	return nil
}
