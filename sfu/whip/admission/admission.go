// Package admission bounds the requests of strangers for sessions: how many are
// set up at once, how many wait, and how many sessions each client has.
package admission

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"weir/sfu/problem"
)

const (
	// maxViewSetups bounds the viewers that are set up at once. Publishers have
	// a bound of their own, because viewers may be waiting for them.
	maxViewSetups    = 128
	maxPublishSetups = 32
	// Patience is how long a request that can wait for nothing else waits to be
	// set up.
	Patience = 2 * time.Second

	// Bounds on the cost of waiting requests: of all, of one client and for one
	// stream. A request costs 1, and 1 more for each waitingUnit bytes of its
	// offer.
	maxWaiting       = 1024
	maxWaitingClient = 256
	maxWaitingStream = 512
	waitingUnit      = 8 << 10

	// retryWaiting is the Retry-After of a request that found too many waiting.
	retryWaiting = 3 * time.Second
	// retrySessions is that of a client that has too many sessions.
	retrySessions = 5 * time.Second
)

// An Admission bounds the requests that are not sessions yet. A request is
// either being set up, for which there are few slots, or waiting: for such a
// slot, for a stream, or for room at another node. Any goroutine may use it.
type Admission struct {
	publish, view *semaphore.Weighted

	mostEach func() int

	mu      sync.Mutex
	setups  int
	waiting waitingCounts
	each    map[netip.Prefix]int // sessions and pending requests of each client
}

type waitingCounts struct {
	requests int
	all      int
	clients  map[netip.Prefix]int
	streams  map[string]int
}

// New makes one without requests. mostEach returns the current limit of sessions
// and pending requests per client; 0: none.
func New(mostEach func() int) *Admission {
	return &Admission{
		mostEach: mostEach, each: map[netip.Prefix]int{},
		publish: semaphore.NewWeighted(maxPublishSetups), view: semaphore.NewWeighted(maxViewSetups),
		waiting: waitingCounts{clients: map[netip.Prefix]int{}, streams: map[string]int{}},
	}
}

// Hold takes one of the sessions that a client may have, until release is
// called. A client whose address is unknown, because the redirecting node did
// not report it, has no limit. The error is a [problem.TooManyFromAddress].
func (a *Admission) Hold(client netip.Prefix) (release func(), err error) {
	if !client.IsValid() {
		return func() {}, nil
	}
	most := a.mostEach()
	a.mu.Lock()
	defer a.mu.Unlock()
	if most > 0 && a.each[client] >= most {
		return nil, problem.New(problem.TooManyFromAddress, fmt.Sprintf("your address has %d sessions here, and may have %d: end one", a.each[client], most)).Retry(retrySessions)
	}
	a.each[client]++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.each[client]--; a.each[client] == 0 {
			delete(a.each, client)
		}
	}), nil
}

// Counts returns the number of requests being set up and of those waiting.
func (a *Admission) Counts() (setups, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.setups, a.waiting.requests
}

// A Visit is one request's place in an [Admission]. Only the request's goroutine
// uses it, and calls Leave in the end.
type Visit struct {
	in      *Admission
	turns   *semaphore.Weighted
	client  netip.Prefix
	stream  string
	cost    int // while waiting
	working bool
	waiting bool
}

// Visit begins one of a publisher or a viewer, for the client's address group, see
// [weir/sfu/proxied.GroupOf], and an offer of size bytes. It holds nothing yet.
func (a *Admission) Visit(publisher bool, client netip.Prefix, stream string, size int) *Visit {
	v := &Visit{in: a, turns: a.view, client: client, stream: stream, cost: 1 + size/waitingUnit}
	if publisher {
		v.turns = a.publish
	}
	return v
}

// Work acquires a setup slot for the request and waits for it no longer than
// patience. Slots are granted in the order of the calls.
// The error is a [problem.TooManySetups], or that of ctx.
func (v *Visit) Work(ctx context.Context, patience time.Duration) error {
	if v.working {
		return nil
	}
	if !v.turns.TryAcquire(1) {
		tooMany := problem.New(problem.TooManySetups, "as many requests are being set up as this node can at once: try again").Retry(time.Second)
		if !v.waiting && v.Rest() != nil {
			return tooMany
		}
		turn, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if v.turns.Acquire(turn, 1) != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return tooMany
		}
	}
	v.stopWaiting()
	v.working = true
	v.in.mu.Lock()
	v.in.setups++
	v.in.mu.Unlock()
	return nil
}

// Rest releases the setup slot while the request waits. On an error there is no
// room to wait, and the slot, if there was one, is kept: it is
// a [problem.TooManyWaiting].
func (v *Visit) Rest() error {
	if v.waiting {
		return nil
	}
	a := v.in
	a.mu.Lock()
	w := &a.waiting
	full := ""
	switch {
	case w.clients[v.client]+v.cost > maxWaitingClient:
		full = "your address"
	case w.streams[v.stream]+v.cost > maxWaitingStream:
		full = "this stream"
	case w.all+v.cost > maxWaiting:
		full = "this node"
	default:
		w.requests++
		w.all += v.cost
		w.clients[v.client] += v.cost
		w.streams[v.stream] += v.cost
		v.waiting = true
	}
	a.mu.Unlock()
	if full != "" {
		return problem.New(problem.TooManyWaiting, "too many requests wait at "+full+" already: try again, or without wait").Retry(retryWaiting)
	}
	v.stopWorking()
	return nil
}

func (v *Visit) stopWorking() {
	if !v.working {
		return
	}
	v.working = false
	v.in.mu.Lock()
	v.in.setups--
	v.in.mu.Unlock()
	v.turns.Release(1)
}

func (v *Visit) stopWaiting() {
	if !v.waiting {
		return
	}
	v.waiting = false
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	w := &v.in.waiting
	w.requests--
	w.all -= v.cost
	if w.clients[v.client] -= v.cost; w.clients[v.client] == 0 {
		delete(w.clients, v.client)
	}
	if w.streams[v.stream] -= v.cost; w.streams[v.stream] == 0 {
		delete(w.streams, v.stream)
	}
}

// Leave releases all that the visit holds.
func (v *Visit) Leave() {
	v.stopWorking()
	v.stopWaiting()
}
