package tree

import (
	"context"
	"time"

	"weir/sfu/problem"
)

const (
	// watchPause is the time between two lookups of a stream that requests wait
	// for. It doubles, up to watchPauseMost.
	watchPause     = 300 * time.Millisecond
	watchPauseMost = 2 * time.Second
	// watchShare is added to the pause for each stream that is waited for: a
	// node makes at most a hundred lookups a second.
	watchShare = 10 * time.Millisecond
)

// A watch looks one stream up for all requests that wait for it.
type watch struct {
	seen chan struct{}   // closed when the stream has been seen
	ctx  context.Context // ends with the last waiting request, and at Close

	// Tree.mu guards the following fields.
	cancel  context.CancelFunc
	waiting int
}

// Await returns nil when the stream has been seen, here or at another node, and
// the context's error if the context ends before. Tries is the number of
// earlier tries that failed although the stream had been seen: Await takes at
// least watchPause then, doubled with each try.
func (t *Tree) Await(ctx context.Context, name string, tries int) error {
	least := time.NewTimer(min(watchPause<<min(tries, 8), watchPauseMost))
	defer least.Stop()
	t.mu.Lock()
	if st := t.streams[name]; st != nil && !st.Ended() && !st.Orphan(time.Now()) {
		t.mu.Unlock()
		return nil
	}
	if t.closed {
		t.mu.Unlock()
		return problem.ErrClosing
	}
	v := t.watches[name]
	if v == nil {
		v = &watch{seen: make(chan struct{})}
		v.ctx, v.cancel = context.WithCancel(t.ctx)
		t.watches[name] = v
		t.wg.Go(func() { t.watchFor(name, v) })
	}
	v.waiting++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if v.waiting--; v.waiting == 0 {
			v.cancel()
			if t.watches[name] == v {
				delete(t.watches, name)
			}
		}
	}()
	select {
	case <-v.seen:
	case <-ctx.Done():
		return ctx.Err()
	}
	if st := t.Get(name); st != nil && !st.Orphan(time.Now()) {
		return nil
	}
	select {
	case <-least.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchFor looks the stream up at other nodes until it is there or no request
// waits for it.
func (t *Tree) watchFor(name string, v *watch) {
	for pause := watchPause; ; pause = min(2*pause, watchPauseMost) {
		t.mu.Lock()
		others := len(t.watches)
		t.mu.Unlock()
		again := time.NewTimer(max(pause, time.Duration(others)*watchShare))
		select {
		case <-again.C:
		case <-v.seen:
			again.Stop()
			return
		case <-v.ctx.Done():
			again.Stop()
			return
		}
		if t.cfg.Live(v.ctx, name) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.sighted(name)
			return
		}
	}
}

// sighted wakes the requests that wait for the stream. Called with mu held.
func (t *Tree) sighted(name string) {
	if v := t.watches[name]; v != nil {
		delete(t.watches, name)
		close(v.seen)
	}
}
