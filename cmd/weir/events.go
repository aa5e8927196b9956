package main

import (
	"log/slog"
	"sync"

	"weir/sfu"
)

const (
	eventsKept  = 256 // for who subscribes late
	eventsAhead = 128 // that a slow subscriber may fall behind before it loses some
)

// An eventHub keeps the last events and passes each on to who listens. It never
// makes the one who adds wait.
type eventHub struct {
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	last   []sfu.Event
	subs   map[chan sfu.Event]bool
}

func newEventHub(log *slog.Logger) *eventHub {
	return &eventHub{log: log, subs: map[chan sfu.Event]bool{}}
}

func (h *eventHub) add(e sfu.Event) {
	h.log.Debug("event", "kind", e.Kind, "stream", e.Stream, "peer", e.Peer, "session", e.Session, "detail", e.Detail, "elapsed_ms", e.Elapsed)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if len(h.last) == eventsKept {
		h.last = h.last[1:]
	}
	h.last = append(h.last, e)
	for sub := range h.subs {
		select {
		case sub <- e:
		default: // it has lost one; the next will tell it more than waiting would
		}
	}
}

// subscribe returns the last events and a channel of what follows, which is
// closed when the hub closes or cancel is called.
func (h *eventHub) subscribe() (last []sfu.Event, next <-chan sfu.Event, cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := make(chan sfu.Event, eventsAhead)
	if h.closed {
		close(sub)
		return h.last, sub, func() {}
	}
	h.subs[sub] = true
	return append([]sfu.Event(nil), h.last...), sub, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.subs[sub] {
			delete(h.subs, sub)
			close(sub)
		}
	}
}

func (h *eventHub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for sub := range h.subs {
		delete(h.subs, sub)
		close(sub)
	}
}
