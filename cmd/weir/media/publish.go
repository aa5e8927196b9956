package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/sfu/client"
)

// ConnectTime is what publish and view give a server to answer and to connect,
// on top of --wait.
const ConnectTime = 15 * time.Second

// mediaFlags are the common flags of publish and view.
func mediaFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		&cli.DurationFlag{Name: "duration", Usage: "stop after `D`, such as 30s (0: when interrupted)", EnvVars: cmdline.Env("DURATION")},
		&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "print statistics every `D`", EnvVars: cmdline.Env("INTERVAL")},
		&cli.DurationFlag{Name: "wait", Usage: "ask a server that answers 409 or 503 again for `D`", EnvVars: cmdline.Env("WAIT")},
		&cli.StringFlag{Name: "token", Usage: "`TOKEN` that lets us in, as weir token new signs; only the servers of the URLs given get it", EnvVars: cmdline.Env("TOKEN")},
		&cli.BoolFlag{Name: "tcp", Usage: "media over TCP only, where UDP is blocked", EnvVars: cmdline.Env("TCP")},
		caFlag(),
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object per interval, and a last one with \"final\":true", EnvVars: cmdline.Env("JSON")},
	)
}

func PublishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "send media to a WHIP endpoint",
		ArgsUsage: "[FILE…] URL…",
		Description: `Sends FILEs to URL, such as http://127.0.0.1:8080/whip/demo, and prints
statistics. When the connection is lost it gets another one, there, at the other
URLs given, or where it was redirected to; files then begin anew.
At most one file with video (.ivf with VP8, VP9 or AV1; .h264, Annex
B) and one with audio (.ogg, Opus); they play in a loop unless --once is given.
--pattern is a built-in test clip.

Exit codes: 0 media flowed, 1 it stopped flowing, 2 no connection, 3 bad input,
4 refused by the server.`,
		Flags: mediaFlags(
			&cli.BoolFlag{Name: "pattern", Usage: "send the built-in test clip", EnvVars: cmdline.Env("PATTERN")},
			&cli.BoolFlag{Name: "once", Usage: "play the files once and stop", EnvVars: cmdline.Env("ONCE")},
			reconnectFlag(10*time.Minute),
		),
		Action: publish,
	}
}

func publish(c *cli.Context) error {
	args, err := mediaArgs(c)
	if err != nil {
		return err
	}
	files, urls, err := urlsOf(args)
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("publish: %w", err))
	}
	var src *client.Source
	switch {
	case c.Bool("pattern") && len(files) > 0:
		return cmdline.BadInput(errors.New("publish: both --pattern and files; expected one of them"))
	case c.Bool("pattern"):
		src = client.Pattern()
	case len(files) == 0:
		return cmdline.BadInput(errors.New("publish: nothing to send: name a file before the URL, or use --pattern"))
	default:
		if src, err = client.Open(files...); err != nil {
			return mediaExit(c, "publish", err)
		}
	}
	src.Once = c.Bool("once")

	trusting, err := TrustingClient(c.String("ca"))
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("publish: %w", err))
	}
	report := newReporter(c)
	way := &course{what: "publish", doing: "publishing to", urls: urls, report: report}
	way.open = func(ctx context.Context, url string) (mediaConn, error) {
		p, err := client.Publish(ctx, client.PublishConfig{URL: url, Token: c.String("token"), Media: src, TCP: c.Bool("tcp"), Silence: silence, HTTP: trusting, Log: report.log})
		if err != nil {
			return mediaConn{}, err
		}
		return mediaConn{stats: p.Stats, run: p.Run, close: p.Close}, nil
	}
	final, err := way.run(c)
	lost := errors.Is(err, client.ErrConnectionLost)
	if err != nil && !lost {
		return mediaExit(c, "publish", err)
	}
	report.final(final)
	switch {
	case lost:
		return cli.Exit("publish: connection lost", cmdline.ExitFailure)
	case final.Packets == 0:
		return cli.Exit("publish: nothing was sent", cmdline.ExitConnection)
	}
	return nil
}

// mediaArgs returns the arguments, at least one, and checks the common flags.
func mediaArgs(c *cli.Context) ([]string, error) {
	args := c.Args().Slice()
	name := c.Command.Name
	if len(args) == 0 {
		return nil, cmdline.BadInput(fmt.Errorf("%s: a URL is expected; see weir help %s", name, name))
	}
	if c.Duration("interval") <= 0 || c.Duration("duration") < 0 || c.Duration("wait") < 0 {
		return nil, cmdline.BadInput(fmt.Errorf("%s: --interval must be positive, --duration and --wait not negative", name))
	}
	if strings.ContainsFunc(c.String("token"), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, cmdline.BadInput(fmt.Errorf("%s: --token has a character that no token has, such as a blank: give all of it, and nothing else", name))
	}
	return args, nil
}

// withDuration ends ctx after d, if that is not 0.
func withDuration(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// mediaExit returns the error for missing media, with its exit code.
func mediaExit(c *cli.Context, what string, err error) error {
	code := cmdline.ExitFailure
	var refused *client.Refused
	var path *fs.PathError
	switch {
	case errors.As(err, &refused):
		code = cmdline.ExitRefused
	case errors.Is(err, client.ErrBadURL), errors.Is(err, client.ErrBadMedia), errors.As(err, &path):
		code = cmdline.ExitInput
	case errors.Is(err, client.ErrNoConnection), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = cmdline.ExitConnection
	}
	text := strings.TrimPrefix(err.Error(), what+": ")
	if errors.Is(err, client.ErrNoMedia) && !c.Bool("tcp") {
		text += "; if a firewall drops UDP, try --tcp"
	}
	text += tlsAdvice(err)
	if c.Bool("json") {
		line, _ := json.Marshal(struct {
			Final bool   `json:"final"`
			Error string `json:"error"`
			Code  int    `json:"code"`
		}{true, text, code})
		fmt.Fprintf(c.App.Writer, "%s\n", line)
	}
	return cli.Exit(what+": "+text, code)
}

// reporter prints statistics: for people, or as JSON with --json.
type reporter struct {
	out      io.Writer
	log      *slog.Logger
	json     bool
	interval time.Duration
	before   client.Stats
}

func newReporter(c *cli.Context) *reporter {
	return &reporter{
		out:      c.App.Writer,
		log:      slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)),
		json:     c.Bool("json"),
		interval: c.Duration("interval"),
	}
}

// connected prints where the stream is served, for people.
func (r *reporter) connected(what string, s client.Stats) {
	if r.json {
		return
	}
	for _, hop := range s.Hops[1:] {
		fmt.Fprintf(r.out, "redirected to %s\n", withoutTicket(hop))
	}
	fmt.Fprintf(r.out, "%s %s: answer after %s, connected after %s\n", what, withoutTicket(s.URL), term.Elapsed(s.Answered), term.Elapsed(s.Connected))
}

// withoutTicket shortens a URL for people: the query is of no use to them.
func withoutTicket(url string) string {
	if before, _, ok := strings.Cut(url, "?"); ok {
		return before + "?…"
	}
	return url
}

// lost prints that the connection is lost, and for how long another one is tried.
func (r *reporter) lost(s client.Stats, limit time.Duration) {
	r.log.Warn("connection lost, getting another", "url", withoutTicket(s.URL), "for", limit)
}

// until prints stats every interval until done delivers, and returns that.
func (r *reporter) until(done <-chan error, stats func() client.Stats) error {
	tick := time.NewTicker(r.interval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			s := stats()
			r.line(s.Since(r.before), false)
			r.before = s
		}
	}
}

// final prints s, the whole run.
func (r *reporter) final(s client.Stats) { r.line(s, true) }

func (r *reporter) line(s client.Stats, final bool) {
	if r.json {
		b, err := json.Marshal(s)
		if err != nil {
			panic("weir: statistics do not marshal: " + err.Error())
		}
		fmt.Fprintf(r.out, "{\"final\":%t,%s\n", final, b[1:])
		return
	}
	if !final {
		fmt.Fprintln(r.out, describe(s, r.before))
		return
	}
	// Frames per second, over the time with frames.
	fmt.Fprintln(r.out, "total "+describe(s, client.Stats{Elapsed: s.FirstFrame}))
	if s.FirstFrame > 0 {
		fmt.Fprintf(r.out, "first packet after %s, first frame after %s\n", term.Elapsed(s.FirstPacket), term.Elapsed(s.FirstFrame))
	}
}

// describe is one line about s, with its frame rate since before.
func describe(s, before client.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6.1f s  %5.0f kbit/s", s.Elapsed.Seconds(), s.Bitrate/1000)
	if span := s.Elapsed - before.Elapsed; span > 0 && s.Frames > 0 {
		fmt.Fprintf(&b, "  %4.1f frames/s", float64(s.Frames-before.Frames)/span.Seconds())
	}
	fmt.Fprintf(&b, "  %d packets, %d lost, %d keyframes", s.Packets, s.Lost, s.Keyframes)
	var asked, again uint64
	var rtt time.Duration
	for _, t := range s.Tracks {
		asked += t.PLIs
		again += t.NACKs
		rtt = max(rtt, time.Duration(t.RTT))
	}
	if asked > 0 {
		fmt.Fprintf(&b, " (%d asked for)", asked)
	}
	if again > 0 {
		fmt.Fprintf(&b, ", %d sent again", again)
	}
	if rtt > 0 {
		fmt.Fprintf(&b, ", round trip %s", term.Elapsed(rtt))
	}
	if s.Latency != nil {
		fmt.Fprintf(&b, ", latency p50 %s p99 %s", term.Elapsed(time.Duration(s.Latency.P50)), term.Elapsed(time.Duration(s.Latency.P99)))
	}
	if s.Skew != nil {
		fmt.Fprintf(&b, ", video %+.1f ms after audio", float64(s.Skew.Microseconds())/1000)
	}
	if s.Gaps > 0 {
		fmt.Fprintf(&b, ", %s of %s", term.Count(int(s.Gaps), "gap", "gaps"), term.Elapsed(s.Gap))
	}
	if s.State != "connected" {
		fmt.Fprintf(&b, "  [%s]", s.State)
	}
	return b.String()
}
