package media

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/sfu/client"
)

func ViewCommand() *cli.Command {
	return &cli.Command{
		Name:      "view",
		Usage:     "receive a stream from a WHEP endpoint and measure it",
		ArgsUsage: "URL…",
		Description: `Receives the stream at URL, such as http://127.0.0.1:8080/whep/demo, and
prints statistics. When the connection is lost it gets another one, at the other
URLs given, there, or where it was redirected to. Nothing is decoded or shown; --save and --save-audio keep it for
a player. Latency is one-way, from the publisher's capture time stamps: on another
machine's clock it is off by what the clocks differ.

Exit codes: 0 a frame came, 1 none did, or the connection was lost, 2 no
connection, 3 bad input, 4 refused by the server.`,
		Flags: mediaFlags(
			&cli.StringFlag{Name: "tracks", Value: "audio,video", Usage: "ask for `KINDS`: audio, video or both", EnvVars: cmdline.Env("TRACKS")},
			reconnectFlag(time.Minute),
			&cli.StringFlag{Name: "save", Usage: "write the video to `FILE` (IVF)", EnvVars: cmdline.Env("SAVE")},
			&cli.StringFlag{Name: "save-audio", Usage: "write the audio to `FILE` (Ogg, Opus only); with --save from the video's first frame on", EnvVars: cmdline.Env("SAVE_AUDIO")},
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
		return cmdline.BadInput(fmt.Errorf("view: %w", err))
	}
	trusting, err := TrustingClient(c.String("ca"))
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("view: %w", err))
	}
	report := newReporter(c)
	cfg := client.ViewConfig{Token: c.String("token"), TCP: c.Bool("tcp"), Silence: silence, HTTP: trusting, Log: report.log}
	if err := wantedTracks(&cfg, c.String("tracks")); err != nil {
		return cmdline.BadInput(fmt.Errorf("view: --tracks: %w", err))
	}
	way := &course{what: "view", doing: "viewing", urls: urls, report: report}
	saved, err := newSaved(c.String("save"), c.String("save-audio"))
	if err != nil {
		return mediaExit(c, "view", err)
	}
	if saved.any() {
		cfg.OnRTP, way.resume = saved.write, saved.resume
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
	// All viewers are closed by now, and no goroutine writes to the recorders.
	if saveErr := saved.close(); saveErr != nil && (err == nil || lost) {
		err, lost = saveErr, false
	}
	if err != nil && !lost {
		return mediaExit(c, "view", err)
	}
	report.final(final)
	switch {
	case final.FirstFrame == 0:
		return cli.Exit(fmt.Sprintf("view: connected to %s, but no frame came", withoutTicket(final.URL)), cmdline.ExitFailure)
	case lost:
		return cli.Exit("view: connection lost", cmdline.ExitFailure)
	}
	return nil
}

// saved are the files of --save and --save-audio.
type saved struct {
	mu    sync.Mutex // each track has a goroutine
	video *client.Recorder
	audio *client.AudioRecorder

	moving bool // video has come
	heard  int  // packets of audio that came before
}

// soundAlone is how many packets of audio, usually of 20 ms, come without any
// video before the stream is taken to have none.
const soundAlone = 100

func newSaved(video, audio string) (*saved, error) {
	s := &saved{}
	var err error
	if video != "" {
		if s.video, err = client.NewRecorder(video); err != nil {
			return nil, err
		}
	}
	if audio != "" {
		if s.audio, err = client.NewAudioRecorder(audio); err != nil {
			_ = s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *saved) any() bool { return s.video != nil || s.audio != nil }

func (s *saved) write(track client.TrackInfo, packet *rtp.Packet, _ time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.video != nil {
		s.video.Write(track, packet)
	}
	if track.Kind == "video" {
		s.moving = true
		return
	}
	s.heard++
	// Neither file has a start time: both have to begin together.
	if s.audio != nil && (s.video == nil || s.video.Frames() > 0 || !s.moving && s.heard > soundAlone) {
		s.audio.Write(track, packet)
	}
}

func (s *saved) resume(gap time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.video != nil {
		s.video.Resume(gap)
	}
	if s.audio != nil {
		s.audio.Resume(gap)
	}
}

func (s *saved) close() error {
	var video, audio error
	if s.video != nil {
		video = s.video.Close()
	}
	if s.audio != nil {
		audio = s.audio.Close()
	}
	return errors.Join(video, audio)
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
