package supervise

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A stuck part is named, is not checked again meanwhile, and is healthy once it
// answers.
func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{}, 1) // a lock of a kind that synctest recognizes as blocking
		l := NewLiveness(Part{"media", func() {}}, Part{"admission", func() { held <- struct{}{}; <-held }})
		if err := l.check(t.Context(), CheckTime); err != nil {
			t.Fatalf("all answer: %v", err)
		}

		held <- struct{}{}
		before := runtime.NumGoroutine()
		for range 5 {
			began := time.Now()
			err := l.check(t.Context(), CheckTime)
			var stuck *stuckError
			if !errors.As(err, &stuck) || !slices.Equal(stuck.parts, []string{"admission"}) {
				t.Fatalf("one is stuck: %v", err)
			}
			if took := time.Since(began); took != CheckTime {
				t.Errorf("found out after %v, want %v", took, CheckTime)
			}
		}
		synctest.Wait()
		if more := runtime.NumGoroutine() - before; more > 1 {
			t.Errorf("%d goroutines wait for one part", more)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.check(ctx, CheckTime); !errors.Is(err, context.Canceled) {
			t.Errorf("nobody wants to know any more: %v", err)
		}

		<-held
		synctest.Wait()
		if err := l.check(t.Context(), CheckTime); err != nil {
			t.Errorf("it answers again: %v", err)
		}
	})
}

// The watchdog sends nothing while a part of the node is stuck, and sends again
// once the part answers.
func TestWatchdogFallsSilent(t *testing.T) {
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	heard := make(chan string, 64)
	var listening sync.WaitGroup
	listening.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				close(heard)
				return
			}
			heard <- string(b[:n])
		}
	})
	stuck := make(chan error)
	held := make(chan struct{}, 1) // a lock
	dog := Watchdog{
		notify: Notifier{Log: slog.New(slog.NewTextHandler(io.Discard, nil))},
		alive:  NewLiveness(Part{"media", func() { held <- struct{}{}; <-held }}),
		period: 300 * time.Millisecond,
		stuck:  func(err error) { stuck <- err },
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = dog.Run(ctx) })
	beat := func() {
		t.Helper()
		select {
		case s := <-heard:
			if s != "WATCHDOG=1" {
				t.Errorf("the service manager hears %q", s)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the service manager hears nothing")
		}
	}
	beat()
	held <- struct{}{}
	if err := <-stuck; err == nil || !strings.Contains(err.Error(), "media did not answer") {
		t.Errorf("told as %v", err)
	}
	for len(heard) > 0 { // from before
		<-heard
	}
	select {
	case s := <-heard:
		t.Errorf("while it is stuck the service manager hears %q", s)
	case <-stuck: // once more
	}
	<-held
	beat()
	cancel()
	running.Wait()
	_ = manager.Close()
	listening.Wait()
}
