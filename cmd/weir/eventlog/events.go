package eventlog

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/event"
	"weir/cmd/weir/cmdline"
)

const (
	eventsKept  = 1024 // for late subscribers
	eventsAhead = 256  // buffered for a slow subscriber before it loses some
)

// A Hub numbers events, stores the last ones, logs them, and passes each on to
// its subscribers. Adding one never blocks.
type Hub struct {
	log  *slog.Logger
	Name func(peer.ID) string // of a peer; nil: no peer has a name

	mu     sync.Mutex
	closed bool
	seq    uint64
	last   []event.Event
	subs   map[chan event.Event]subscription
	limit  lineLimit
}

// A subscription is to all events, or to those of some kinds; in the latter
// case lost events are counted.
type subscription struct {
	kinds map[event.Kind]bool // nil: all
	lost  *atomic.Int64       // nil: gaps in the event numbers show it
}

// NewHub returns a hub that logs to log.
func NewHub(log *slog.Logger) *Hub {
	return &Hub{log: log, subs: map[chan event.Event]subscription{}}
}

// Add numbers e, passes it on and logs it. An event without a time gets the
// current one.
func (h *Hub) Add(e event.Event) {
	if h.Name != nil && e.Peer != "" && e.Name == "" {
		e.Name = h.Name(e.Peer)
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if h.keep(&e) {
		h.write(lineOf(e)) // without the lock: writing the log may be slow
	}
}

// keep numbers e and passes it on, and reports whether to log it.
func (h *Hub) keep(e *event.Event) (logged bool) {
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
	for sub, s := range h.subs {
		if s.kinds != nil && !s.kinds[e.Kind] {
			continue
		}
		select {
		case sub <- *e:
		default:
			if s.lost != nil {
				s.lost.Add(1)
			}
		}
	}
	return logged
}

func (h *Hub) write(l line) { write(h.log, l) }

func write(log *slog.Logger, l line) {
	log.LogAttrs(context.Background(), l.Level, l.Msg, l.Attrs...)
}

// Run periodically logs how many lines were suppressed, until ctx is done.
func (h *Hub) Run(ctx context.Context) error {
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

func (h *Hub) flush(now time.Time) {
	h.mu.Lock()
	due := h.limit.due(now)
	h.mu.Unlock()
	for _, l := range due {
		h.write(l)
	}
}

// Subscribe returns the last events and a channel of later ones, which is
// closed when the hub closes or cancel is called.
func (h *Hub) Subscribe() (last []event.Event, next <-chan event.Event, cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := make(chan event.Event, eventsAhead)
	if h.closed {
		close(sub)
		return slices.Clone(h.last), sub, func() {}
	}
	h.subs[sub] = subscription{}
	return slices.Clone(h.last), sub, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.subs[sub]; ok {
			delete(h.subs, sub)
			close(sub)
		}
	}
}

// DeliverTo returns a channel of the events of kinds, from now until the hub
// closes, and the number of events lost because it was full.
func (h *Hub) DeliverTo(kinds map[event.Kind]bool) (next <-chan event.Event, lost *atomic.Int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := make(chan event.Event, eventsAhead)
	lost = &atomic.Int64{}
	if h.closed {
		close(sub)
		return sub, lost
	}
	h.subs[sub] = subscription{kinds, lost}
	return sub, lost
}

// Kept returns the stored events.
func (h *Hub) Kept() []event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.last)
}

// Close closes the channels of all subscribers.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for sub := range h.subs {
		delete(h.subs, sub)
		close(sub)
	}
}

const (
	// limitWindow is the time over which lines of one sort are counted together…
	limitWindow = 10 * time.Second
	// …in which redirected or refused clients get one line for each reason,
	limitClients = 1
	// sessions, with two lines each and bounded by --session-limit, this many,
	limitSessions = 1000
	// and everything else this many, which a healthy network never reaches.
	limitOthers = 100
	// limitKeys bounds the sorts that are counted separately: reasons may come
	// from peers.
	limitKeys = 256
)

// A lineSort is the key by which lines are counted.
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
	left    int // suppressed
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

// due returns a line for each sort whose window is over and that had lines
// suppressed, and resets those sorts.
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
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.Msg, b.Msg) })
	return lines
}

// KindsOf parses a flag's list of kinds, or of their first halves; an empty
// list is all kinds.
func KindsOf(flag, s string) (func(event.Kind) bool, error) {
	if s == "" {
		return func(event.Kind) bool { return true }, nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	fits := func(word string, k event.Kind) bool {
		return string(k) == word || strings.HasPrefix(string(k), word+".")
	}
	for _, word := range list {
		if !slices.ContainsFunc(event.List(), func(d event.Described) bool { return fits(word, d.Kind) }) {
			var all []string
			for _, d := range event.List() {
				noun, _, _ := strings.Cut(string(d.Kind), ".")
				all = append(all, noun, string(d.Kind))
			}
			return nil, fmt.Errorf("%s %s: there are no such events%s; weir events --help lists the kinds", flag, word, cmdline.DidYouMean(word, all))
		}
	}
	return func(k event.Kind) bool {
		return slices.ContainsFunc(list, func(word string) bool { return fits(word, k) })
	}, nil
}
