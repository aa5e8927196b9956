package tree

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One watch asks the network for any number of waiting requests, at growing
// intervals, and all of them wake when the stream is seen.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, nil)
		start := time.Now()
		var looks []time.Duration
		l.cfg.Live = func(context.Context, string) bool {
			looks = append(looks, time.Since(start))
			return time.Since(start) >= 10*time.Second
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if err := l.Await(ctx, "demo", i%4); err != nil || time.Since(start) > 13*time.Second {
					t.Errorf("woken after %v: %v", time.Since(start), err)
				}
			})
		}
		wg.Wait()
		if n := len(looks); n < 5 || n > 10 {
			t.Errorf("the network was asked %d times, at %v", n, looks)
		}

		// The stream does not come, and lookups end with the last waiting
		// request.
		looks = nil
		l.cfg.Live = func(context.Context, string) bool { looks = append(looks, 0); return false }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Await(ctx, "demo", 0); err == nil {
			t.Error("a stream that is nowhere was seen")
		}
		n := len(looks)
		time.Sleep(time.Minute)
		if len(looks) != n || len(l.watches) != 0 {
			t.Errorf("it is looked for still: %d times more, %d watches", len(looks)-n, len(l.watches))
		}
	})
}
