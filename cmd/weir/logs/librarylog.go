package logs

import (
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"sync/atomic"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// A libraryLog is the log handler for libraries: they log by globals, in
// formats of their own, and mostly about other nodes. Their warnings become
// debug lines in our format; the rest is dropped.
type libraryLog struct {
	to    *atomic.Pointer[slog.Handler] // nil inside: discarded
	attrs []slog.Attr
}

// Quiet redirects the process's library logs; the logger passed to writtenBy
// receives them from then on. With GOLOG_LOG_LEVEL set, libp2p's own logs stay
// as they are.
func Quiet() (writtenBy func(*slog.Logger)) {
	l := libraryLog{to: &atomic.Pointer[slog.Handler]{}}
	log.SetFlags(0)
	log.SetOutput(io.Discard)
	if os.Getenv("GOLOG_LOG_LEVEL") == "" {
		gologshim.SetDefaultHandler(l)
		golog.SetAllLoggers(golog.LevelFatal)
	}
	return func(to *slog.Logger) {
		h := to.Handler()
		l.to.Store(&h)
		log.SetOutput(slog.NewLogLogger(h, slog.LevelDebug).Writer())
	}
}

// Enabled implements slog.Handler.
func (l libraryLog) Enabled(ctx context.Context, level slog.Level) bool {
	h := l.to.Load()
	return h != nil && level >= slog.LevelWarn && (*h).Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (l libraryLog) Handle(ctx context.Context, r slog.Record) error {
	h := l.to.Load()
	if h == nil {
		return nil
	}
	said := slog.NewRecord(r.Time, slog.LevelDebug, r.Message, 0)
	said.AddAttrs(l.attrs...)
	r.Attrs(func(a slog.Attr) bool { said.AddAttrs(a); return true })
	return (*h).Handle(ctx, said)
}

// WithAttrs implements slog.Handler.
func (l libraryLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	l.attrs = append(l.attrs[:len(l.attrs):len(l.attrs)], attrs...)
	return l
}

// WithGroup implements slog.Handler. Groups are flattened.
func (l libraryLog) WithGroup(string) slog.Handler { return l }
