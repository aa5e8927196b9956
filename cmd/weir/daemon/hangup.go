package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"weir/cmd/weir/term"
)

// hangups are SIGHUPs, each a request to reload the configuration. They are
// caught before the node exists: an unhandled SIGHUP ends the process.
//
// A terminal that is closed sends the same signal. A node that can no longer
// write to its terminal, and could at its start, takes it as the request to
// end.
type hangups struct {
	c        chan os.Signal
	terminal bool
	end      chan<- os.Signal // receives SIGHUP if the terminal is gone
}

func listenForHangup() *hangups {
	h := &hangups{c: make(chan os.Signal, 1), terminal: onTerminal()} // room for one: signals during a reload are merged
	signal.Notify(h.c, syscall.SIGHUP)
	return h
}

func (h *hangups) stop() { signal.Stop(h.c) }

// endBy sets the channel for signals that end the process. Call it before
// watch begins.
func (h *hangups) endBy(c chan<- os.Signal) {
	if h != nil {
		h.end = c
	}
}

func onTerminal() bool {
	return slices.ContainsFunc([]*os.File{os.Stdin, os.Stdout, os.Stderr}, func(f *os.File) bool { return term.IsTerminal(f) })
}

// watch calls reload at each SIGHUP, until ctx is done. h may be nil.
func (h *hangups) watch(ctx context.Context, log *slog.Logger, reload func()) error {
	if h == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		select {
		case <-h.c:
		case <-ctx.Done():
			return ctx.Err()
		}
		if h.terminal && !onTerminal() && h.end != nil {
			log.Info("the terminal is closed: the node ends")
			h.end <- syscall.SIGHUP // its channel has room: it is read at once, or the node ends already
			h.end, h.terminal = nil, false
			continue
		}
		reload()
	}
}
