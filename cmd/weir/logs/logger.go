package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"weir/capacity/tracing"
	"weir/cmd/weir/term"
)

// New returns a logger to w in format, and sets at to level; the logger follows
// at.
func New(w io.Writer, at *slog.LevelVar, level, format string) (*slog.Logger, error) {
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %s: want debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: at, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value; v.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(term.WithoutSecrets(v.String()))
		case slog.KindAny:
			if err, ok := v.Any().(error); ok {
				a.Value = slog.StringValue(term.WithoutSecrets(err.Error()))
			}
		}
		return a
	}}
	switch format {
	case "text":
		return slog.New(tracedLog{slog.NewTextHandler(w, options)}), nil
	case "json":
		return slog.New(tracedLog{slog.NewJSONHandler(w, options)}), nil
	}
	return nil, fmt.Errorf("--log-format %s: want text or json", format)
}

// tracedLog adds the trace ID of a request to its log lines.
type tracedLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (l tracedLog) Handle(ctx context.Context, r slog.Record) error {
	if id := tracing.ID(ctx); id != "" {
		r.AddAttrs(slog.String("trace_id", id))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l tracedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tracedLog{l.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (l tracedLog) WithGroup(name string) slog.Handler { return tracedLog{l.Handler.WithGroup(name)} }
