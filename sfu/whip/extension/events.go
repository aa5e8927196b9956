package extension

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"weir/sfu/problem"
)

// Kinds of events.
const (
	eventActive   = "active"
	eventInactive = "inactive"
	eventLayers   = "layers"
	eventViewers  = "viewercount"
)

var kinds = []string{eventActive, eventInactive, eventLayers, eventViewers}

const (
	// eventTick is the interval at which a stream of events looks for news.
	eventTick = 250 * time.Millisecond
	// eventPatience bounds the time that a reader may take for an event.
	eventPatience = 10 * time.Second
)

// A subscription is the one event stream that a session may have.
type subscription struct {
	id     string
	wanted []string

	mu     sync.Mutex
	reader chan struct{} // closed when another reader has come, or it is over; nil: none has come
	over   bool
}

// begin ends the reader before, and returns what ends this one, and whether it
// is not the first. It reports false if the subscription is over.
func (s *subscription) begin() (stop <-chan struct{}, again, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, false, false
	}
	if again = s.reader != nil; again {
		close(s.reader)
	}
	s.reader = make(chan struct{})
	return s.reader, again, true
}

func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.reader != nil {
		close(s.reader)
	}
	s.over = true
}

// subscribe makes an event stream in place of the one before.
func (s *Session) subscribe(w http.ResponseWriter, r *http.Request, url string) error {
	wanted := kinds
	var asked []string
	if given, err := decode(w, r, &asked); err != nil {
		return err
	} else if given {
		wanted = slices.DeleteFunc(asked, func(kind string) bool { return !slices.Contains(kinds, kind) })
		if len(wanted) == 0 {
			return problem.New(problem.BadBody, "none of the events that are asked for is served: there are "+strings.Join(kinds, ", "))
		}
	}
	sub := &subscription{id: rand.Text(), wanted: wanted}
	s.mu.Lock()
	old := s.events
	s.events = sub
	s.mu.Unlock()
	if old != nil {
		old.end()
	}
	w.Header().Set("Location", url+"/events/"+sub.id)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// subscription returns the session's event stream if r names it.
func (s *Session) subscription(r *http.Request) (*subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == nil || s.events.id != r.PathValue("stream") {
		return nil, errNoEvents()
	}
	return s.events, nil
}

func errNoEvents() error {
	return problem.New(problem.NotFound, "there is no such event stream: make one by POST; a session has one, the newest")
}

func (s *Session) unsubscribe(_ http.ResponseWriter, r *http.Request, _ string) error {
	sub, err := s.subscription(r)
	if err != nil {
		return err
	}
	sub.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == sub {
		s.events = nil
	}
	return nil
}

// follow writes the events of the session until it is over, another reader
// comes, or the reader has gone or does not read.
func (s *Session) follow(w http.ResponseWriter, r *http.Request, _ string) error {
	sub, err := s.subscription(r)
	if err != nil {
		return err
	}
	stop, again, ok := sub.begin()
	if !ok {
		return errNoEvents()
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if control.Flush() != nil {
		return problem.New(problem.Internal, "this connection cannot stream")
	}
	s.counters.open.Add(1)
	defer s.counters.open.Add(-1)
	tick := time.NewTicker(eventTick)
	defer tick.Stop()
	n := news{wanted: sub.wanted, again: again, began: time.Now()}
	for {
		if text := n.next(s.look(n.due(time.Now()))); text != "" {
			_ = control.SetWriteDeadline(time.Now().Add(eventPatience))
			_, err := fmt.Fprint(w, text)
			if err == nil {
				err = control.Flush()
			}
			_ = control.SetWriteDeadline(time.Time{}) // over HTTP/2 it ends the stream even if nothing is being written
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.counters.slow.Add(1)
				s.log.DebugContext(r.Context(), "event stream closed", "stream", s.stream.Name, "err", "its reader does not read")
			}
			if err != nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-stop:
			return nil
		case <-s.over:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// look reads the present state of the stream, with its layers if they are asked
// for.
func (s *Session) look(now time.Time, layers bool) state {
	st := state{at: now, viewers: s.stream.Viewers()}
	for _, t := range s.stream.Tracks {
		packets, _ := t.Received()
		st.packets += packets
	}
	if layers {
		st.layers = layersOf(s.media.Layers())
	}
	return st
}
