package scale

import (
	"sync"
	"time"
)

const (
	// MaxWaiting bounds the requests that wait for a server at one node.
	MaxWaiting = 64
	// attemptEvery is how often one of the waiting requests looks for room.
	attemptEvery = 300 * time.Millisecond
	// nobodyFor is how long the lack of a provisioner is remembered.
	nobodyFor = 5 * time.Second
)

// A Queue bounds the requests of one node that wait for a server, spaces out
// their attempts to find room, and remembers the lack of a provisioner. It is
// safe for concurrent use; the zero Queue is empty.
type Queue struct {
	mu      sync.Mutex
	waiting int
	room    chan struct{} // closed when a waiting request has found room
	nobody  time.Time     // when the lack of a provisioner was found
}

// Enter admits one request, which calls Leave later, or reports false:
// MaxWaiting wait.
func (q *Queue) Enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting >= MaxWaiting {
		return false
	}
	q.waiting++
	return true
}

// Leave ends a wait begun by Enter.
func (q *Queue) Leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting--
}

// Len is how many requests wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// NextAttempt returns the time after which one waiting request is to look for
// room, so that all of them together do so once every 300 ms, and a channel
// that is closed if another one finds room before.
func (q *Queue) NextAttempt() (after time.Duration, room <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return time.Duration(max(1, q.waiting)) * attemptEvery, q.room
}

// FoundRoom makes all waiting requests look for room at once.
func (q *Queue) FoundRoom() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// NoProvisioner reports whether the lack of a provisioner was found less than
// nobodyFor ago.
func (q *Queue) NoProvisioner(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.nobody.IsZero() && now.Sub(q.nobody) < nobodyFor
}

// FoundNobody remembers that there is no provisioner.
func (q *Queue) FoundNobody(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nobody = now
}
