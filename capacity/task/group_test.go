package task

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Wait waits for everything started; after Stop nothing starts.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		var ended atomic.Int32
		slow := func() {
			time.Sleep(time.Second)
			ended.Add(1)
		}
		if !g.Go(slow) {
			t.Error("not started")
		}
		go g.Do(slow)
		synctest.Wait()
		if !g.Stop() || g.Stop() {
			t.Error("the first Stop is not the first, or the second one is")
		}
		if g.Go(slow) || g.Do(slow) {
			t.Error("started after Stop")
		}
		g.Wait()
		if n := ended.Load(); n != 2 {
			t.Errorf("%d have ended, want 2", n)
		}
	})
}
