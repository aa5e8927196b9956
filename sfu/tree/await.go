package tree

import (
	"context"
	"time"

	"weir/sfu/problem"
)

const (
	// watchPause is between two looks at the network for a stream that is waited
	// for. It doubles, up to watchPauseMost.
	watchPause     = 300 * time.Millisecond
	watchPauseMost = 2 * time.Second
	// watchShare is added for each stream that is waited for: a node looks at
	// most a hundred times a second.
	watchShare = 10 * time.Millisecond
)

// A watch looks for one stream, for all requests that wait for it.
type watch struct {
	seen chan struct{}   // closed when the stream has been seen
	ctx  context.Context // ends when nobody waits any more, and at Close

	// The rest belongs to Tree.mu.
	cancel  context.CancelFunc
	waiting int
}

// Await returns nil when the stream has been seen, here or at another node, and
// the context's error if that ends before. After tries that failed although it
// had been seen, it takes its time.
func (t *Tree) Await(ctx context.Context, name string, tries int) error {
	least := time.NewTimer(min(watchPause<<min(tries, 8), watchPauseMost))
	defer least.Stop()
	t.mu.Lock()
	if st := t.streams[name]; st != nil && !st.Ended() {
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
	if t.Get(name) != nil {
		return nil
	}
	select {
	case <-least.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchFor looks for the stream at other nodes until it is there or nobody
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

// sighted wakes what waits for the stream. Called with mu held.
func (t *Tree) sighted(name string) {
	if v := t.watches[name]; v != nil {
		delete(t.watches, name)
		close(v.seen)
	}
}
