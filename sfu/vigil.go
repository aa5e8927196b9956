package sfu

import (
	"context"
	"time"

	"weir/sfu/problem"
)

const (
	// vigilPause is between two looks at the network for a stream that is waited
	// for. It doubles, up to vigilPauseMost.
	vigilPause     = 300 * time.Millisecond
	vigilPauseMost = 2 * time.Second
	// vigilShare is added for each stream that is waited for: a node looks at
	// most a hundred times a second.
	vigilShare = 10 * time.Millisecond
)

// A vigil looks for one stream, for all requests that wait for it.
type vigil struct {
	seen chan struct{}   // closed when the stream has been seen
	ctx  context.Context // ends when nobody waits any more, and at Close

	// The rest belongs to SFU.mu.
	cancel  context.CancelFunc
	waiting int
}

// await returns nil when the stream has been seen, here or at another node, and
// the context's error if that ends before. After tries that failed although it
// had been seen, it takes its time.
func (s *SFU) await(ctx context.Context, name string, tries int) error {
	least := time.NewTimer(min(vigilPause<<min(tries, 8), vigilPauseMost))
	defer least.Stop()
	s.mu.Lock()
	if st := s.streams[name]; st != nil && !st.Ended() {
		s.mu.Unlock()
		return nil
	}
	if s.closed {
		s.mu.Unlock()
		return problem.ErrClosing
	}
	v := s.vigils[name]
	if v == nil {
		v = &vigil{seen: make(chan struct{})}
		v.ctx, v.cancel = context.WithCancel(s.ctx)
		s.vigils[name] = v
		s.wg.Go(func() { s.keepVigil(name, v) })
	}
	v.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v.waiting--; v.waiting == 0 {
			v.cancel()
			if s.vigils[name] == v {
				delete(s.vigils, name)
			}
		}
	}()
	select {
	case <-v.seen:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.stream(name) != nil {
		return nil
	}
	select {
	case <-least.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keepVigil looks for the stream at other nodes until it is there or nobody
// waits for it.
func (s *SFU) keepVigil(name string, v *vigil) {
	for pause := vigilPause; ; pause = min(2*pause, vigilPauseMost) {
		s.mu.Lock()
		others := len(s.vigils)
		s.mu.Unlock()
		again := time.NewTimer(max(pause, time.Duration(others)*vigilShare))
		select {
		case <-again.C:
		case <-v.seen:
			again.Stop()
			return
		case <-v.ctx.Done():
			again.Stop()
			return
		}
		if s.cfg.Live(v.ctx, name) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sighted(name)
			return
		}
	}
}

// sighted wakes what waits for the stream. Called with mu held.
func (s *SFU) sighted(name string) {
	if v := s.vigils[name]; v != nil {
		delete(s.vigils, name)
		close(v.seen)
	}
}
