// Package task groups the goroutines of one resource, so that closing it can
// wait for all of them.
package task

import "sync"

// A Group is the goroutines of one resource. Once [Group.Stop] has been called
// nothing starts any more, and [Group.Wait] returns when all that were started
// have ended. pion's GracefulClose does not wait for the goroutines of its
// handlers, so those pass their work to Go. The zero value is ready for use.
type Group struct {
	mu      sync.Mutex
	stopped bool // nothing starts once set
	wg      sync.WaitGroup
}

// Go runs f on a goroutine that Wait waits for, and reports false without doing
// so after Stop.
func (g *Group) Go(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopped {
		g.wg.Go(f)
	}
	return !g.stopped
}

// Do runs f on the caller's goroutine, which Wait waits for meanwhile, and
// reports false without doing so after Stop. It is for handlers that a library
// calls on goroutines of its own.
func (g *Group) Do(f func()) bool {
	g.mu.Lock()
	stopped := g.stopped
	if !stopped {
		g.wg.Add(1)
	}
	g.mu.Unlock()
	if stopped {
		return false
	}
	defer g.wg.Done()
	f()
	return true
}

// Stop prevents further starts, and reports whether this is the first call.
func (g *Group) Stop() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.stopped
	g.stopped = true
	return first
}

// Wait returns when all goroutines have ended. It is called after Stop, and not
// from within Go or Do: it would wait for itself.
func (g *Group) Wait() { g.wg.Wait() }
