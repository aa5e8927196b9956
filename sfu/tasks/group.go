// Package tasks groups the goroutines of one resource, to wait for all of them.
package tasks

import "sync"

// A Group is the goroutines of one resource. GracefulClose does not wait for
// the goroutines of pion's handlers, so every handler passes its work to Start.
// The zero value is ready.
type Group struct {
	mu     sync.Mutex
	closed bool // Start does nothing once set
	wg     sync.WaitGroup
}

// Start runs run on a goroutine that Wait waits for, or not at all after Shut,
// and reports whether it runs.
func (g *Group) Start(run func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Go(run)
	}
	return !g.closed
}

// Shut prevents further starts.
func (g *Group) Shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Wait returns when all goroutines of Start have ended. Call it only after
// Shut.
func (g *Group) Wait() { g.wg.Wait() }
