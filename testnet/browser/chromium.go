// Package browser drives headless Chromium in tests of weir's pages: a process,
// its tabs, and the actions of tests on a page. Its own tests are the
// end-to-end test of weir in a browser, with real nodes.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/chromedp"
)

// ErrMissing means that there is no Chromium on this machine.
var ErrMissing = errors.New("no chromium here: install it by apt-get install chromium")

// closeTimeout bounds the normal exit of a Chromium; after that it is killed.
const closeTimeout = 10 * time.Second

// Chromium is one headless browser with an empty profile, and a fake camera and
// microphone that pages may use without a prompt. The kernel kills it if this
// process dies.
type Chromium struct {
	ctx  context.Context
	stop func()
}

// Start starts a Chromium, which must be closed. The error wraps [ErrMissing]
// if none is installed.
func Start() (*Chromium, error) {
	bin, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrMissing, err)
	}
	flags := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(bin), chromedp.NoFirstRun, chromedp.NoSandbox, chromedp.Flag("headless", "new"),
	}
	for _, name := range []string{
		"disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-dev-shm-usage", "hide-scrollbars", "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream",
	} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, stop := chromedp.NewContext(alloc)
	c := &Chromium{ctx: ctx, stop: func() { stop(); stopAlloc() }}
	if err := chromedp.Do(ctx); err != nil {
		c.stop()
		return nil, fmt.Errorf("start %s: %w", bin, err)
	}
	return c, nil
}

// Kill ends the browser without warning (SIGKILL), as a crash would: its pages
// cannot end their sessions.
func (c *Chromium) Kill() error { return chromedp.FromContext(c.ctx).Browser.Process().Kill() }

// Close ends the browser: once it has returned, no process of it is left. It
// may be called after Kill.
func (c *Chromium) Close() error {
	ctx, cancel := context.WithTimeout(c.ctx, closeTimeout)
	defer cancel()
	err := chromedp.Cancel(ctx)
	c.stop()
	if errors.Is(err, context.Canceled) { // it was killed
		err = nil
	}
	return err
}
