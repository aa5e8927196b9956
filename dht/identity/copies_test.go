package identity

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity"
	"weir/capacity/event"
)

// A suspicion leads to a search until a record of the copy is found and
// reported; a record of this process is no copy.
func TestCopyIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks, events := 0, 0
		c := NewCopies(CopiesConfig{
			Held: func(context.Context) []capacity.Record {
				if looks++; looks == 3 {
					return []capacity.Record{{Seq: 7, URL: "http://copy.example"}, {Seq: 9}}
				}
				return []capacity.Record{{Seq: 9}}
			},
			Foreign: func(seq uint64) bool { return seq == 7 },
			Due:     func(time.Time) bool { return true },
			Event: func(e event.Event) {
				if events++; e.Kind != event.NodeCopied || e.Detail != "http://copy.example at no address" {
					t.Errorf("event %+v", e)
				}
			},
			Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(copyEvery)
		synctest.Wait()
		if _, seen := c.Seen(); seen || looks > 0 {
			t.Fatalf("without a sign: %v after %d looks", seen, looks)
		}
		c.Suspect()
		time.Sleep(copyTries * copyPause)
		synctest.Wait()
		if r, seen := c.Seen(); !seen || r.Seq != 7 || looks != 3 || events != 1 {
			t.Errorf("%v, %v after %d looks and %d events", r.Seq, seen, looks, events)
		}
		time.Sleep(copyFresh)
		synctest.Wait()
		if _, seen := c.Seen(); seen {
			t.Error("a copy of old is still told of")
		}
		cancel()
		<-done
	})
}

// A copy without a record at any holder is reported all the same.
func TestUnknownCopyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		c := NewCopies(CopiesConfig{
			Held:    func(context.Context) []capacity.Record { return nil },
			Foreign: func(uint64) bool { return true },
			Due:     func(time.Time) bool { return events == 0 },
			Event:   func(event.Event) { events++ },
			Log:     slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		for range 2 {
			c.Suspect()
			time.Sleep(copyTries*copyPause + copyEvery + time.Second)
			synctest.Wait()
		}
		if r, seen := c.Seen(); !seen || r.Seq != 0 || events != 1 {
			t.Errorf("%v, %v after %d events", r.Seq, seen, events)
		}
		cancel()
		<-done
	})
}
