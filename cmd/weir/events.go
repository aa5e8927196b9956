package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/event"
)

const (
	eventsKept  = 1024 // for those who subscribe late
	eventsAhead = 256  // that a slow subscriber may fall behind before it loses some
)

// An eventHub numbers events, keeps the last ones, logs them, and passes each
// on to its subscribers. Adding one never waits.
type eventHub struct {
	log  *slog.Logger
	name func(peer.ID) string // of a peer; nil: nobody has one

	mu     sync.Mutex
	closed bool
	seq    uint64
	last   []event.Event
	subs   map[chan event.Event]bool
	limit  lineLimit
}

func newEventHub(log *slog.Logger) *eventHub {
	return &eventHub{log: log, subs: map[chan event.Event]bool{}}
}

func (h *eventHub) add(e event.Event) {
	if h.name != nil && e.Peer != "" && e.Name == "" {
		e.Name = h.name(e.Peer)
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if h.keep(&e) {
		h.write(lineOf(e)) // without the lock: whoever reads the log may be slow
	}
}

// keep numbers e and passes it on, and reports whether it is to be logged.
func (h *eventHub) keep(e *event.Event) (logged bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	logged = h.limit.pass(time.Now(), lineKey(*e))
	if h.closed {
		return logged
	}
	if len(h.last) == eventsKept {
		h.last = h.last[1:]
	}
	h.last = append(h.last, *e)
	for sub := range h.subs {
		select {
		case sub <- *e:
		default: // it has lost one; the numbers tell
		}
	}
	return logged
}

func (h *eventHub) write(l line) { h.log.LogAttrs(context.Background(), l.level, l.msg, l.attrs...) }

// run says now and then how many lines were left out, until ctx is done.
func (h *eventHub) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			h.flush(now)
		case <-ctx.Done():
			h.flush(time.Now().Add(limitWindow))
			return ctx.Err()
		}
	}
}

func (h *eventHub) flush(now time.Time) {
	h.mu.Lock()
	due := h.limit.due(now)
	h.mu.Unlock()
	for _, l := range due {
		h.write(l)
	}
}

// subscribe returns the last events and a channel of what follows, which is
// closed when the hub closes or cancel is called.
func (h *eventHub) subscribe() (last []event.Event, next <-chan event.Event, cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := make(chan event.Event, eventsAhead)
	if h.closed {
		close(sub)
		return slices.Clone(h.last), sub, func() {}
	}
	h.subs[sub] = true
	return slices.Clone(h.last), sub, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.subs[sub] {
			delete(h.subs, sub)
			close(sub)
		}
	}
}

// kept are the last events.
func (h *eventHub) kept() []event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.last)
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

const (
	// limitWindow is how long lines of one sort are counted together…
	limitWindow = 10 * time.Second
	// …of which clients that were sent on or refused get one, for each reason,
	limitClients = 1
	// sessions, which have two lines each and are bounded by --session-limit, so
	// many,
	limitSessions = 1000
	// and everything else so many, which a network in good order never reaches.
	limitOthers = 100
	// limitKeys bounds the sorts that are told apart: reasons may be peers' words.
	limitKeys = 256
)

// A lineSort is what lines are counted by.
type lineSort struct {
	kind   event.Kind
	reason string
}

func lineKey(e event.Event) lineSort {
	switch e.Kind {
	case event.Redirected, event.Refused, event.PullFailed:
		return lineSort{e.Kind, e.Reason}
	}
	return lineSort{e.Kind, ""}
}

// A lineLimit bounds the lines of each sort. Time is passed in; the zero value
// is ready.
type lineLimit struct {
	sorts map[lineSort]*lineCount
}

type lineCount struct {
	began   time.Time
	written int
	left    int // out
}

// pass reports whether a line of that sort is to be written.
func (l *lineLimit) pass(now time.Time, k lineSort) bool {
	if l.sorts == nil {
		l.sorts = map[lineSort]*lineCount{}
	}
	c := l.sorts[k]
	if c == nil && len(l.sorts) >= limitKeys {
		k.reason = ""
		c = l.sorts[k]
	}
	if c == nil {
		c = &lineCount{began: now}
		l.sorts[k] = c
	}
	most := limitOthers
	switch {
	case k.reason != "":
		most = limitClients
	case k.kind == event.SessionOpened, k.kind == event.SessionClosed:
		most = limitSessions
	}
	if c.written < most {
		c.written++
		return true
	}
	c.left++
	return false
}

// due returns a line for each sort whose window is over and of which lines were
// left out, and begins anew.
func (l *lineLimit) due(now time.Time) []line {
	var lines []line
	for k, c := range l.sorts {
		if now.Sub(c.began) < limitWindow {
			continue
		}
		delete(l.sorts, k)
		if c.left > 0 {
			lines = append(lines, moreOf(k, c.left))
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.msg, b.msg) })
	return lines
}
