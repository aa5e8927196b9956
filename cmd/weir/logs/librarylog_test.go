package logs

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Logs of libraries are hidden from operators by default, and are in our format
// at debug level.
func TestLibrariesAreQuiet(t *testing.T) {
	for level, want := range map[string]bool{"info": false, "debug": true} {
		var b bytes.Buffer
		to, err := New(&b, new(slog.LevelVar), level, "text")
		if err != nil {
			t.Fatal(err)
		}
		h := to.Handler()
		l := libraryLog{to: &atomic.Pointer[slog.Handler]{}}
		log := slog.New(l).With("logger", "swarm2").WithGroup("g")
		log.Error("before there is a log") // must not panic
		l.to.Store(&h)
		log.Error("dial failed", "at", "http://x/?ticket=SECRET")
		log.Info("chatter")
		said := b.String()
		if got := strings.Contains(said, "dial failed"); got != want {
			t.Errorf("at %s it says %q", level, said)
		}
		if strings.Contains(said, "SECRET") || strings.Contains(said, "chatter") || strings.Contains(said, "ERROR") {
			t.Errorf("at %s it says %q", level, said)
		}
		if want && !strings.Contains(said, "logger=swarm2") {
			t.Errorf("it does not say which library: %q", said)
		}
		if err := l.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelError, "x", 0)); err != nil {
			t.Error(err)
		}
	}
}
