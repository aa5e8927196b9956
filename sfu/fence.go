package sfu

import (
	"cmp"
	"errors"
	"net"
	"sync"
)

// A fence keeps the goroutines of one resource together. pion runs its
// handlers on goroutines that GracefulClose does not wait for, so every handler
// hands its work to start.
type fence struct {
	mu     sync.Mutex
	closed bool // nothing starts once set
	wg     sync.WaitGroup
}

// start runs f on a goroutine that close waits for, or not at all if close has
// begun, and reports which.
func (f *fence) start(run func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.wg.Go(run)
	}
	return !f.closed
}

// shut lets nothing more start.
func (f *fence) shut() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}

// wait returns when all that start began has ended. Only after shut.
func (f *fence) wait() { f.wg.Wait() }

func isClosed(err error) bool { return err == nil || errors.Is(err, net.ErrClosed) }

func cmpString(a, b string) int { return cmp.Compare(a, b) }
