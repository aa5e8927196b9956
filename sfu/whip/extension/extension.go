// Package extension serves what a viewer may ask of its session beyond RFC 9725:
// WHEP's server-sent events and layer selection (draft-ietf-wish-whep), and
// pausing.
//
// Everything is at a path below the session's URL, whose ID nobody can guess, and
// ends with the session. A [Session] starts no goroutines: its event stream is
// written by the HTTP server's goroutine of the request that reads it.
package extension

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"weir/sfu/forward"
	"weir/sfu/problem"
)

// Media is the media of one viewer. All methods may be called at any time, from
// several goroutines.
type Media interface {
	// Layers returns the layers of the tracks in the viewer's video sections, by
	// the index of the section in its offer, the least layer first.
	Layers() map[int][]forward.Layer
	// Choose limits the layers that are sent in a video section.
	Choose(section int, c forward.Choice)
	// Pause stops what is sent of a kind, or goes on: video at a keyframe.
	Pause(kind forward.Kind, paused bool)
	// Paused reports whether the kind is paused; ok is false if nothing of it is
	// sent at all.
	Paused(kind forward.Kind) (paused, ok bool)
}

// Counters count the event streams of all sessions. The zero value is ready.
type Counters struct {
	open atomic.Int64
	slow atomic.Int64
}

// EventStreams returns how many event streams are open, and how many were closed
// since their reader did not read them.
func (c *Counters) EventStreams() (open, slow int64) { return c.open.Load(), c.slow.Load() }

// A Session is the extensions of one viewer's session.
type Session struct {
	media    Media
	stream   *forward.Stream
	over     <-chan struct{}
	counters *Counters
	log      *slog.Logger
	changes  *rate.Limiter // of what is sent

	mu     sync.Mutex
	events *subscription // nil: none
}

// New makes the extensions of a session that views stream and is over when over
// is closed.
func New(media Media, stream *forward.Stream, over <-chan struct{}, counters *Counters, log *slog.Logger) *Session {
	return &Session{media: media, stream: stream, over: over, counters: counters, log: log, changes: rate.NewLimiter(1, changesBurst)}
}

// changesBurst is the number of changes of what is sent that a viewer may make at
// once; then it is one a second.
const changesBurst = 8

// URNs of the extensions (draft-ietf-wish-whep).
const (
	urnEvents = "urn:ietf:params:whep:ext:core:server-sent-events"
	urnLayer  = "urn:ietf:params:whep:ext:core:layer"
)

// Links returns the values of the Link headers that announce the extensions of
// the session at url.
func Links(url string) []string {
	return []string{
		fmt.Sprintf(`<%s/events>; rel="%s"; events="%s"`, url, urnEvents, strings.Join(kinds, ",")),
		fmt.Sprintf(`<%s/layer>; rel="%s"`, url, urnLayer),
	}
}

// Routes registers the extensions at mux. Find returns the session that a request
// names and the session's URL, or answers it and returns nil; preflight answers
// OPTIONS.
func Routes(mux *http.ServeMux, find func(w http.ResponseWriter, r *http.Request) (s *Session, url string), preflight func(methods string) http.HandlerFunc) {
	serve := func(f func(s *Session, w http.ResponseWriter, r *http.Request, url string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s, url := find(w, r)
			if s == nil {
				return
			}
			if p := problem.Of(f(s, w, r, url)); p != nil {
				p.Stream = s.stream.Name
				p.Write(w)
			}
		}
	}
	mux.HandleFunc("POST /session/{id}/events", serve((*Session).subscribe))
	mux.HandleFunc("OPTIONS /session/{id}/events", preflight("POST, OPTIONS"))
	mux.HandleFunc("GET /session/{id}/events/{stream}", serve((*Session).follow))
	mux.HandleFunc("DELETE /session/{id}/events/{stream}", serve((*Session).unsubscribe))
	mux.HandleFunc("OPTIONS /session/{id}/events/{stream}", preflight("GET, DELETE, OPTIONS"))
	mux.HandleFunc("POST /session/{id}/layer", serve((*Session).choose))
	mux.HandleFunc("OPTIONS /session/{id}/layer", preflight("POST, OPTIONS"))
	mux.HandleFunc("GET /session/{id}/media", serve((*Session).describe))
	mux.HandleFunc("PATCH /session/{id}/media", serve((*Session).pause))
	mux.HandleFunc("OPTIONS /session/{id}/media", preflight("GET, PATCH, OPTIONS"))
}

// maxBody bounds the body of a request, in bytes.
const maxBody = 1 << 10

// decode reads a request's body, JSON of at most maxBody bytes, into v. It
// reports whether there was one.
func decode(w http.ResponseWriter, r *http.Request, v any) (bool, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return false, problem.New(problem.TooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody))
	case err != nil:
		return false, problem.New(problem.BadBody, "the body did not arrive whole")
	case len(b) == 0:
		return false, nil
	}
	if got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || got != typeJSON {
		return false, problem.New(problem.BadMediaType, fmt.Sprintf("Content-Type is %q: send %s", r.Header.Get("Content-Type"), typeJSON))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, problem.New(problem.BadBody, "the body: "+err.Error())
	}
	return true, nil
}

const typeJSON = "application/json"

// reply answers with v as JSON.
func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", typeJSON)
	return json.NewEncoder(w).Encode(v)
}
