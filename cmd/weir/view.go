package main

import (
	"context"
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
		ArgsUsage: "URL",
		Description: `Receives the stream at URL, such as http://127.0.0.1:8080/whep/demo, and
prints statistics. Nothing is decoded or shown; --save keeps the video for a
player. Latency is one-way, from the publisher's capture time stamps: on another
machine's clock it is off by what the clocks differ.

Exit codes: 0 a frame came, 1 none did, or the connection was lost, 2 no
connection, 3 bad input, 4 refused by the server.`,
		Flags: mediaFlags(
			&cli.StringFlag{Name: "tracks", Value: "audio,video", Usage: "ask for `KINDS`: audio, video or both", EnvVars: env("TRACKS")},
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
	if len(args) > 1 {
		return badInput(fmt.Errorf("view: one URL is expected, not %s", strings.Join(args, " ")))
	}
	report := newReporter(c)
	cfg := client.ViewConfig{URL: args[0], Wait: c.Duration("wait"), Log: report.log}
	if err := wantedTracks(&cfg, c.String("tracks")); err != nil {
		return badInput(fmt.Errorf("view: --tracks: %w", err))
	}
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
		save = recorder.Close
	}
	final, lost, err := receive(c, cfg, report)
	// By now the viewer is closed, and nobody writes to the recorder.
	if saveErr := save(); saveErr != nil && err == nil {
		err = saveErr
	}
	if err != nil {
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

// receive views until it is interrupted, its time is up, or the connection is
// lost, and returns the statistics of it all.
func receive(c *cli.Context, cfg client.ViewConfig, report *reporter) (final client.Stats, lost bool, err error) {
	connecting, cancel := context.WithTimeout(c.Context, connectTime+c.Duration("wait"))
	defer cancel()
	v, err := client.View(connecting, cfg)
	if err != nil {
		return client.Stats{}, false, err
	}
	report.connected("viewing", v.Stats())

	running, cancel := withDuration(c.Context, c.Duration("duration"))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		select {
		case <-running.Done():
		case <-v.Done():
			lost = true
		}
		ended <- nil
	}()
	_ = report.until(ended, v.Stats)
	final = v.Stats()
	if closeErr := v.Close(); closeErr != nil {
		report.log.Warn("session not ended", "err", closeErr)
	}
	return final, lost, nil
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
