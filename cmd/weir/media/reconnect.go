package media

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/sfu/client"
)

const (
	// attemptTime is how long one of several servers may take to answer and to
	// connect.
	attemptTime = 5 * time.Second
	// silence is how long a server may be silent before publish and view treat
	// it as lost.
	silence = 3 * time.Second
	// retryPause is the time until all servers are tried again. It doubles with
	// each try, up to retryPauseMost, which also bounds a server's Retry-After.
	retryPause     = 250 * time.Millisecond
	retryPauseMost = 5 * time.Second
)

// reconnectFlag is the flag --reconnect of publish and view.
func reconnectFlag(value time.Duration) cli.Flag {
	return &cli.DurationFlag{Name: "reconnect", Value: value, Usage: "when the connection is lost try for `D` to get another, also at the other URLs; 0: end at once", EnvVars: cmdline.Env("RECONNECT")}
}

// A mediaConn is a Publisher or a Viewer in use.
type mediaConn struct {
	stats func() client.Stats
	run   func(context.Context) error // until ctx ends, or the connection is lost
	close func() error
}

// A course keeps media flowing at one of several servers: when the connection is
// lost it opens another one.
type course struct {
	what   string   // "publish" or "view"
	doing  string   // "publishing to" or "viewing"
	urls   []string // as given
	last   string   // the URL that served it last
	open   func(ctx context.Context, url string) (mediaConn, error)
	resume func(gap time.Duration) // before media of another connection; may be nil
	report *reporter
}

// run connects, and reconnects until ctx or the time is over. It returns the
// statistics of all connections. The error is client.ErrConnectionLost if the
// last connection was lost, or says why there was none at all.
func (f *course) run(c *cli.Context) (total client.Stats, err error) {
	var closing sync.WaitGroup
	defer closing.Wait()
	wait := c.Duration("wait")
	conn, err := f.connect(c.Context, wait, func(err error) bool {
		var refused *client.Refused
		return errors.As(err, &refused) && (refused.Status == http.StatusConflict || refused.Status == http.StatusServiceUnavailable)
	})
	if err != nil {
		return client.Stats{}, err
	}
	running, cancel := withDuration(c.Context, c.Duration("duration"))
	defer cancel()
	merge := func(s client.Stats) client.Stats { return s }
	for {
		f.report.connected(f.doing, conn.stats())
		ran := make(chan error, 1)
		go func() { ran <- conn.run(running) }()
		err = f.report.until(ran, func() client.Stats { return merge(conn.stats()) })
		lostAt, lastMedia := time.Now(), time.Duration(0)
		now := conn.stats()
		if lastMedia = now.Elapsed; now.LastPacket > 0 {
			lastMedia = now.LastPacket
		}
		total = merge(now)
		f.last = now.URL
		over := conn
		closing.Go(func() {
			if err := over.close(); err != nil {
				f.report.log.Debug("session not ended", "err", err)
			}
		})
		if !errors.Is(err, client.ErrConnectionLost) {
			return total, nil
		}
		limit := c.Duration("reconnect")
		if limit == 0 || running.Err() != nil {
			return total, client.ErrConnectionLost
		}
		f.report.lost(now, limit)
		conn, err = f.connect(running, limit, worthRetrying)
		if err != nil {
			f.report.log.Warn("not reconnected", "err", err)
			return total, client.ErrConnectionLost
		}
		gap := time.Since(lostAt) + now.Elapsed - lastMedia
		f.report.log.Info("connected again", "url", withoutTicket(conn.stats().URL), "without media for", gap.Round(time.Millisecond))
		if f.resume != nil {
			f.resume(gap)
		}
		before, between := total, time.Since(lostAt)-conn.stats().Elapsed
		merge = func(s client.Stats) client.Stats {
			sum := before.Plus(s, max(between, 0))
			sum.Gap = before.Gap + gap
			return sum
		}
	}
}

// connect tries all URLs in turn, repeatedly, until limit is over or no error
// of theirs is worth a retry. The error is the most informative one.
func (f *course) connect(ctx context.Context, limit time.Duration, worth func(error) bool) (mediaConn, error) {
	start := time.Now()
	urls := f.candidates()
	for tries := 0; ; tries++ {
		var failed error
		again := retryPause << min(tries, 8)
		again = min(again, retryPauseMost)
		again = again/2 + time.Duration(rand.Float64()*float64(again))
		hopeful := false
		for _, u := range urls {
			patience := ConnectTime
			if len(urls) > 1 {
				patience = attemptTime
			}
			attempt, cancel := context.WithTimeout(ctx, patience)
			conn, err := f.open(attempt, u)
			cancel()
			if err == nil {
				return conn, nil
			}
			if ctx.Err() != nil {
				return mediaConn{}, cmp.Or(failed, err)
			}
			var refused *client.Refused
			if failed == nil || errors.As(err, &refused) {
				failed = err
			}
			if refused != nil {
				again = max(again, min(refused.RetryAfter, retryPauseMost))
			}
			hopeful = hopeful || worth(err)
		}
		left := limit - time.Since(start)
		if !hopeful || left <= 0 {
			return mediaConn{}, failed
		}
		again = min(again, left) // one last try at the end of limit
		f.report.log.Info("trying again", "in", again.Round(time.Millisecond), "reason", strings.TrimPrefix(failed.Error(), f.what+": "))
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return mediaConn{}, failed
		}
	}
}

// candidates are the URLs to try: those given, and the target of the last
// redirect. The server whose connection was lost comes last.
func (f *course) candidates() []string {
	list := slices.Clone(f.urls)
	if f.last == "" {
		return list
	}
	at, _, _ := strings.Cut(f.last, "?") // its ticket has been used
	for i, u := range list {
		if given, _, _ := strings.Cut(u, "?"); given == at {
			return append(slices.Delete(list, i, i+1), u) // with its token
		}
	}
	return append(list, at)
}

// worthRetrying reports whether a server that failed may work later: all errors
// but a final refusal.
func worthRetrying(err error) bool {
	var refused *client.Refused
	if errors.As(err, &refused) {
		switch refused.Status {
		case http.StatusConflict, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			return true
		}
		return refused.Status >= 500
	}
	return !errors.Is(err, client.ErrBadURL) && !errors.Is(err, client.ErrBadMedia)
}

// hostAndPath matches a URL without a scheme.
var hostAndPath = regexp.MustCompile(`^(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?/`)

// mediaURL completes a URL without a scheme: HOST:PORT/… becomes http, or https
// for port 443.
func mediaURL(given string) (string, bool) {
	if strings.Contains(given, "://") {
		return given, true
	}
	m := hostAndPath.FindStringSubmatch(given)
	if m == nil || m[2] == "" && m[1] != "localhost" && !strings.Contains(m[1], ".") || strings.HasPrefix(m[1], ".") {
		return given, false
	}
	if _, err := url.Parse("http://" + given); err != nil {
		return given, false
	}
	if m[2] == ":443" {
		return "https://" + given, true
	}
	return "http://" + given, true
}

// urlsOf are the last arguments, as far as they are URLs; the last one is taken
// as a URL in any case. files are the arguments before.
func urlsOf(args []string) (files, urls []string, err error) {
	for i, arg := range slices.Backward(args) {
		u, ok := mediaURL(arg)
		if !ok && i < len(args)-1 {
			files = args[:i+1]
			break
		}
		if !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	slices.Reverse(urls)
	if len(urls) > maxURLs {
		return nil, nil, fmt.Errorf("%d URLs; at most %d are tried", len(urls), maxURLs)
	}
	return files, urls, nil
}

const maxURLs = 16
