// Package tasks keeps the goroutines of one resource together.
package tasks

import "sync"

// A Group is the goroutines of one resource. pion runs its handlers on
// goroutines that GracefulClose does not wait for, so every handler hands its
// work to Start. The zero value is ready.
type Group struct {
	mu     sync.Mutex
	closed bool // nothing starts once set
	wg     sync.WaitGroup
}

// Start runs run on a goroutine that Wait waits for, or not at all after Shut,
// and reports which.
func (g *Group) Start(run func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Go(run)
	}
	return !g.closed
}

// Shut lets nothing more start.
func (g *Group) Shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Wait returns when all that Start began has ended. Only after Shut.
func (g *Group) Wait() { g.wg.Wait() }
