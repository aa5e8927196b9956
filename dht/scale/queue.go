package scale

import (
	"sync"
	"time"
)

const (
	// MaxWaiting bounds the requests that wait for a server at one node.
	MaxWaiting = 64
	// attemptEvery is how often those that wait look for room, one after another.
	attemptEvery = 300 * time.Millisecond
	// nobodyFor is for how long it is remembered that nobody starts servers.
	nobodyFor = 5 * time.Second
)

// A Queue bounds the requests of one node that wait for a server, spaces out
// their attempts to find room, and remembers that nobody starts servers. It is
// safe for concurrent use; the zero Queue is empty.
type Queue struct {
	mu      sync.Mutex
	waiting int
	room    chan struct{} // closed when one of those that wait has found room
	nobody  time.Time     // when it was found out that nobody starts servers
}

// Enter takes one in, which is to call Leave, or reports false: MaxWaiting wait.
func (q *Queue) Enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting >= MaxWaiting {
		return false
	}
	q.waiting++
	return true
}

// Leave ends what Enter began.
func (q *Queue) Leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting--
}

// Len is how many wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// NextAttempt returns after which time one of those that wait is to look for
// room, so that all of them together do so once every 300 ms, and a channel that
// is closed if another finds some before.
func (q *Queue) NextAttempt() (after time.Duration, room <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return time.Duration(max(1, q.waiting)) * attemptEvery, q.room
}

// FoundRoom has all that wait look at once.
func (q *Queue) FoundRoom() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// NoProvisioner reports whether it was found out just now that nobody starts
// servers.
func (q *Queue) NoProvisioner(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.nobody.IsZero() && now.Sub(q.nobody) < nobodyFor
}

// FoundNobody remembers that nobody starts servers.
func (q *Queue) FoundNobody(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nobody = now
}
