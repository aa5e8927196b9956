package main

import (
	"sync"
	"time"
)

// A waitingRoom bounds the requests that wait for a server, has them take turns
// in looking for room, and remembers that there is nobody who starts one.
type waitingRoom struct {
	mu      sync.Mutex
	waiting int
	room    chan struct{} // closed when one of those that wait has found room
	nobody  time.Time     // when it was found out
}

func (w *waitingRoom) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting >= waitingMost {
		return false
	}
	w.waiting++
	return true
}

func (w *waitingRoom) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting--
}

func (w *waitingRoom) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting
}

// turn returns when one of those that wait is to look for room, so that all of
// them together do so once every placeAgain, and what is closed if another finds
// some before.
func (w *waitingRoom) turn() (after time.Duration, room <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.room == nil {
		w.room = make(chan struct{})
	}
	return time.Duration(max(1, w.waiting)) * placeAgain, w.room
}

// found has all that wait look at once.
func (w *waitingRoom) found() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// hopeless reports whether it was found out just now that nobody starts servers.
func (w *waitingRoom) hopeless(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.nobody.IsZero() && now.Sub(w.nobody) < nobodyFor
}

func (w *waitingRoom) foundNobody(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nobody = now
}
