package hook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity/event"
	"weir/cmd/weir/eventlog"
	"weir/sfu/problem"
)

const (
	// eventQueue bounds the events that wait for delivery, and eventQueueEach
	// those of one stream: a stream with failing deliveries leaves room for
	// others.
	eventQueue     = 1024
	eventQueueEach = 256
	// eventsAtOnce bounds concurrent deliveries, each of another stream.
	eventsAtOnce = 4
	// eventTries is the maximum number of tries of one event. The pauses
	// between them start at eventPause and double, up to eventPauseMost; half
	// of each is random, so that nodes do not all come back at once to a
	// receiver that was down.
	eventTries     = 6
	eventPause     = 500 * time.Millisecond
	eventPauseMost = 30 * time.Second
	// eventFlush bounds the delivery of waiting events when the node ends.
	eventFlush = 3 * time.Second
	// failuresEvery is the least time between two log lines on failures.
	failuresEvery = time.Minute
	// maxHookHeader bounds the header of a receiver's answer, in bytes. The
	// body is not read.
	maxHookHeader = 16 << 10
)

// An Events delivers events to a command or a URL of the operator's: those of
// one stream one after the other, each until it is accepted or has been tried
// often enough.
//
// Delivery is at least once: an event whose answer was lost is sent again, with
// the same ID. All state belongs to Run.
type Events struct {
	hook   Hook
	kinds  map[event.Kind]bool
	keys   *SigningKeys // nil: nothing is signed
	origin Origin
	counts *EventCounts
	client *http.Client
	// try delivers e once; the number of the first try is 0. It is called on
	// goroutines of its own.
	try func(ctx context.Context, e event.Event, try int) error
	log *slog.Logger

	next <-chan event.Event
	lost *atomic.Int64 // events dropped because next was full

	lanes    map[string]*eventLane // by stream
	queued   int
	running  int
	dropping bool // events have been dropped since the queue was last empty
	dropped  int64
	warned   time.Time // when a failure was last logged
	silent   int       // failures since then
}

// An eventLane is the queue of one stream's events.
type eventLane struct {
	events []event.Event // the first is the one being tried
	tries  int           // of the first
	due    time.Time     // time of the next try
	busy   bool          // it is being tried
}

// Origin identifies the node of the events.
type Origin struct {
	Node    peer.ID `json:"node"`
	Name    string  `json:"node_name"`
	URL     string  `json:"node_url"` // its URL for clients
	Network string  `json:"network"`
}

// eventInput is the JSON sent to a receiver.
type eventInput struct {
	ID string `json:"id"` // of the delivery: the same on a retry
	Origin
	event.Event
}

// DefaultEventKinds are the kinds of events of streams and sessions.
var DefaultEventKinds = []event.Kind{
	event.StreamStarted, event.StreamEnded, event.SessionOpened, event.SessionClosed,
	event.MediaStalled, event.MediaResumed, event.PublisherReplaced,
}

// ParseEventKinds reads --event-kinds: kinds, or their first halves, or all.
func ParseEventKinds(list string) (map[event.Kind]bool, error) {
	wanted := func(k event.Kind) bool { return slices.Contains(DefaultEventKinds, k) }
	if list == "all" {
		list = ""
		wanted = func(event.Kind) bool { return true }
	}
	if list != "" {
		var err error
		if wanted, err = eventlog.KindsOf("--event-kinds", list); err != nil {
			return nil, err
		}
	}
	kinds := map[event.Kind]bool{}
	for _, d := range event.List() {
		if wanted(d.Kind) {
			kinds[d.Kind] = true
		}
	}
	return kinds, nil
}

// EventCounts are the metrics of event hooks.
type EventCounts struct {
	outcomes *prometheus.CounterVec
	retries  prometheus.Counter
	queued   prometheus.Gauge
}

// NewEventCounts returns counts that are 0.
func NewEventCounts() *EventCounts {
	c := &EventCounts{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "weir", Name: "event_deliveries_total", Help: "Events for --event-command or --event-url, by outcome: delivered, failed after all retries, or dropped from a full queue."}, []string{"outcome"}),
		retries:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: "weir", Name: "event_delivery_retries_total", Help: "Retried deliveries of events."}),
		queued:   prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "weir", Name: "event_queue_length", Help: "Events waiting for delivery to --event-command or --event-url, including those under way."}),
	}
	for _, outcome := range []string{"delivered", "failed", "dropped"} {
		c.outcomes.WithLabelValues(outcome)
	}
	return c
}

// Collectors are the metrics, for registration.
func (c *EventCounts) Collectors() []prometheus.Collector {
	return []prometheus.Collector{c.outcomes, c.retries, c.queued}
}

// NewEvents subscribes to the events of kinds of hub, from now on.
func NewEvents(h Hook, kinds map[event.Kind]bool, keys *SigningKeys, origin Origin, counts *EventCounts, hub *eventlog.Hub) *Events {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxHookHeader
	transport.MaxIdleConnsPerHost = eventsAtOnce
	e := &Events{
		hook: h, kinds: kinds, keys: keys, origin: origin, counts: counts, log: h.log,
		// A redirect would send the event, and its signature, elsewhere.
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		lanes:  map[string]*eventLane{},
	}
	e.try = e.deliver
	e.next, e.lost = hub.DeliverTo(kinds)
	return e
}

// Run delivers until the hub closes, and then the waiting events, for
// eventFlush at most.
func (h *Events) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer h.client.CloseIdleConnections()
	var (
		wg      sync.WaitGroup // deliveries
		results = make(chan eventResult)
		wake    = time.NewTimer(0)
		flush   <-chan time.Time
		ending  bool
		next    = h.next
	)
	defer wake.Stop()
	for {
		now := time.Now()
		for _, lane := range h.due(now, ending) {
			lane.busy = true
			h.running++
			e, tries := lane.events[0], lane.tries
			wg.Go(func() {
				results <- eventResult{lane, h.try(ctx, e, tries)}
			})
		}
		if ending && h.queued == 0 {
			break
		}
		wake.Reset(h.pause(now))
		select {
		case e, open := <-next:
			if !open {
				next, ending = nil, true
				timer := time.NewTimer(eventFlush)
				defer timer.Stop()
				flush = timer.C
				break
			}
			h.queue(e)
		case r := <-results:
			h.done(r, time.Now(), ending)
		case <-wake.C:
		case <-flush:
			// Deliveries under way end with ctx.
			cancel()
			left := h.queued
			for h.running > 0 {
				h.running--
				<-results
			}
			wg.Wait()
			h.counts.outcomes.WithLabelValues("dropped").Add(float64(left))
			h.counts.queued.Set(0)
			h.log.Warn("events not delivered: the node ends", "events", left)
			return
		}
		if lost := h.lost.Swap(0); lost > 0 {
			h.drop(lost)
		}
		h.counts.queued.Set(float64(h.queued))
	}
	wg.Wait()
}

type eventResult struct {
	lane *eventLane
	err  error
}

// queue adds e if there is room.
func (h *Events) queue(e event.Event) {
	lane := h.lanes[e.Stream]
	if h.queued >= eventQueue || lane != nil && len(lane.events) >= eventQueueEach {
		h.drop(1)
		return
	}
	if lane == nil {
		lane = &eventLane{}
		h.lanes[e.Stream] = lane
	}
	lane.events = append(lane.events, e)
	h.queued++
}

func (h *Events) drop(n int64) {
	h.counts.outcomes.WithLabelValues("dropped").Add(float64(n))
	h.dropped += n
	if !h.dropping {
		h.dropping = true
		h.log.Warn("events dropped: they come faster than their receiver takes them", "waiting", h.queued)
	}
}

// due are the lanes whose first event is due now, those that have waited
// longest first, as many as may run.
func (h *Events) due(now time.Time, ending bool) []*eventLane {
	room := eventsAtOnce - h.running
	if room <= 0 || h.queued == h.running {
		return nil
	}
	var due []*eventLane
	for _, lane := range h.lanes {
		if !lane.busy && (ending || !now.Before(lane.due)) {
			due = append(due, lane)
		}
	}
	slices.SortFunc(due, func(a, b *eventLane) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.events[0].Seq, b.events[0].Seq))
	})
	return due[:min(len(due), room)]
}

// pause is how long until the next lane is due, if nothing else happens.
func (h *Events) pause(now time.Time) time.Duration {
	pause := time.Hour
	if h.running >= eventsAtOnce {
		return pause
	}
	for _, lane := range h.lanes {
		if !lane.busy {
			pause = min(pause, max(0, lane.due.Sub(now)))
		}
	}
	return pause
}

// done handles the result of one try.
func (h *Events) done(r eventResult, now time.Time, ending bool) {
	lane := r.lane
	lane.busy = false
	h.running--
	e := lane.events[0]
	lane.tries++
	if r.err != nil && !ending && lane.tries < eventTries && !errors.As(r.err, new(*refusedEvent)) {
		pause := min(eventPause<<(lane.tries-1), eventPauseMost)
		pause = pause/2 + rand.N(pause/2)
		var later *laterEvent
		if errors.As(r.err, &later) {
			pause = max(pause, min(later.after, eventPauseMost))
		}
		lane.due = now.Add(pause)
		h.counts.retries.Inc()
		h.log.Debug("event not delivered, trying again", "kind", e.Kind, "stream", e.Stream, "try", lane.tries, "after", pause, "err", r.err)
		return
	}
	if r.err == nil {
		h.counts.outcomes.WithLabelValues("delivered").Inc()
	} else {
		h.counts.outcomes.WithLabelValues("failed").Inc()
		h.failed(e, lane.tries, r.err, now)
	}
	lane.events = slices.Delete(lane.events, 0, 1)
	lane.tries, lane.due = 0, time.Time{}
	h.queued--
	if len(lane.events) == 0 {
		delete(h.lanes, e.Stream)
	}
	if h.queued == 0 && h.dropping {
		h.log.Info("events are delivered again", "dropped", h.dropped)
		h.dropping, h.dropped = false, 0
	}
}

func (h *Events) failed(e event.Event, tries int, err error, now time.Time) {
	if !h.warned.IsZero() && now.Sub(h.warned) < failuresEvery {
		h.silent++
		return
	}
	attrs := []any{"kind", e.Kind, "stream", e.Stream, "tries", tries, "err", err}
	var output *hookOutputError
	if errors.As(err, &output) && output.tail != "" {
		attrs = append(attrs, "output", output.tail)
	}
	if h.silent > 0 {
		attrs = append(attrs, "others_since", h.silent)
	}
	h.log.Warn("event not delivered", attrs...)
	h.warned, h.silent = now, 0
}

// refusedEvent means that a retry is of no use.
type refusedEvent struct{ why error }

func (e *refusedEvent) Error() string { return e.why.Error() }
func (e *refusedEvent) Unwrap() error { return e.why }

// laterEvent means that the receiver has set the time of the next try.
type laterEvent struct {
	why   error
	after time.Duration
}

func (e *laterEvent) Error() string { return e.why.Error() }

// hookOutputError is a command's failure, with the end of what it printed.
type hookOutputError struct {
	why  error
	tail string
}

func (e *hookOutputError) Error() string { return e.why.Error() }
func (e *hookOutputError) Unwrap() error { return e.why }

// deliver tries once to deliver e.
func (h *Events) deliver(ctx context.Context, e event.Event, try int) error {
	in := eventInput{ID: fmt.Sprintf("%s-%d-%d", h.origin.Node, e.Time.UnixMilli(), e.Seq), Origin: h.origin, Event: e}
	body, err := json.Marshal(in)
	if err != nil {
		return &refusedEvent{err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.hook.timeout, fmt.Errorf("it has not ended within %v", h.hook.timeout))
	defer cancel()
	if h.hook.URL != "" {
		return h.post(ctx, in.ID, body)
	}
	out := &boundedOutput{}
	if err := h.hook.exec(ctx, body, append(withoutEventEnv(os.Environ()), in.environment(try)...), out); err != nil {
		err = &hookOutputError{err, out.tail()}
		if errors.Is(err, errHookOutput) {
			return &refusedEvent{err} // a retry would give the same
		}
		return err
	}
	return nil
}

// post uses only the status of the answer: neither its length nor its speed
// matters.
func (h *Events) post(ctx context.Context, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.hook.URL, bytes.NewReader(body))
	if err != nil {
		return &refusedEvent{problem.WithoutURL(err)}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "weir")
	req.Header.Set("Webhook-Id", id)
	if h.keys != nil {
		h.keys.sign(req.Header, id, body, time.Now())
	}
	resp, err := h.client.Do(req)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = resp.Body.Close()
		}
		return context.Cause(ctx)
	case err != nil:
		return errors.New(problem.Cause(err))
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("the URL answered %d", resp.StatusCode)
	switch {
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooEarly, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		if seconds, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && seconds > 0 {
			return &laterEvent{err, time.Duration(min(seconds, 3600)) * time.Second}
		}
		return err
	}
	return &refusedEvent{err}
}

// environment is the environment of a command. Every name is set, to an empty
// value if there is none.
func (in eventInput) environment(try int) []string {
	e := in.Event
	var list []string
	for _, v := range [][2]string{
		{"ID", in.ID}, {"KIND", string(e.Kind)}, {"TIME", e.Time.UTC().Format(time.RFC3339Nano)}, {"TRY", strconv.Itoa(try + 1)},
		{"STREAM", e.Stream}, {"SESSION", e.Session}, {"ROLE", e.Role}, {"CLIENT", e.Client}, {"REASON", e.Reason}, {"DETAIL", e.Detail},
		{"NODE", in.Node.String()}, {"NODE_NAME", in.Origin.Name}, {"NODE_URL", in.Origin.URL}, {"NETWORK", in.Network},
	} {
		list = append(list, eventEnv+v[0]+"="+strings.ReplaceAll(v[1], "\x00", ""))
	}
	return list
}

const eventEnv = "WEIR_EVENT_"

// withoutEventEnv removes variables that could be mistaken for an event's:
// those of this node's own flags.
func withoutEventEnv(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, eventEnv) })
}
