package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/names"
	"weir/sfu"
	"weir/sfu/problem"
)

const (
	// pingTimeout bounds one ping.
	pingTimeout = 5 * time.Second
	// leastPrefix is the length of the shortest session ID prefix that is
	// accepted.
	leastPrefix = 4
)

// sinceOf reads ?since= and Last-Event-ID: the event after which to begin, as
// an event number, a time, or a duration before now.
func sinceOf(s string, now time.Time) (func(event.Event) bool, error) {
	if s == "" {
		return func(event.Event) bool { return true }, nil
	}
	if seq, err := strconv.ParseUint(s, 10, 64); err == nil {
		return func(e event.Event) bool { return e.Seq > seq }, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return func(e event.Event) bool { return !e.Time.Before(now.Add(-ago)) }, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return func(e event.Event) bool { return !e.Time.Before(at) }, nil
	}
	return nil, problem.New(problem.BadParameter, fmt.Sprintf("since=%s: want how long ago (10m), a time (2006-01-02T15:04:05Z) or the number of an event", s))
}

// serveEvents answers with the last events and, with follow (the default),
// those to come, as server-sent events; without follow they are an array.
func (a *API) serveEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since := q.Get("since")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		since = last // the stream broke off and is requested again
	}
	wanted, err := sinceOf(since, time.Now())
	if err != nil {
		httpd.Fail(a.Log, w, r, err)
		return
	}
	switch q.Get("follow") {
	case "", "true", "1":
	case "false", "0":
		list := slices.DeleteFunc(a.Events.Kept(), func(e event.Event) bool { return !wanted(e) })
		httpd.WriteJSON(w, append([]event.Event{}, list...))
		return
	default:
		httpd.Fail(a.Log, w, r, problem.New(problem.BadParameter, "follow: want true or false"))
		return
	}
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	last, next, cancel := a.Events.Subscribe()
	defer cancel()
	for _, e := range last {
		if wanted(e) && send(e) != nil {
			return
		}
	}
	for {
		select {
		case e, open := <-next:
			if !open || send(e) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// servePing pings a peer, as server-sent events, one a second.
func (a *API) servePing(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, err := peer.Decode(q.Get("peer"))
	if err != nil {
		httpd.Fail(a.Log, w, r, problem.New(problem.BadParameter, fmt.Sprintf("peer=%s: want a peer ID", q.Get("peer"))))
		return
	}
	if id == a.Node.ID() {
		httpd.Fail(a.Log, w, r, problem.New(problem.BadParameter, "this is the node itself: ask another one to ping it"))
		return
	}
	most := 5
	if v := q.Get("count"); v != "" {
		if most, err = strconv.Atoi(v); err != nil || most < 1 || most > api.MaxPings {
			httpd.Fail(a.Log, w, r, problem.New(problem.BadParameter, fmt.Sprintf("count=%s: want 1 to %d", v, api.MaxPings)))
			return
		}
	}
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	for sent := range most {
		if sent > 0 {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		reply := api.Ping{Peer: id}
		err := a.Node.Overlay.Peers.Ping(ctx, id, func(rtt time.Duration) bool {
			reply.RTT = capacity.Milliseconds(rtt)
			return false
		})
		cancel()
		if err != nil {
			reply.Err = err.Error()
			if ctx.Err() != nil {
				reply.Err = fmt.Sprintf("no answer within %v", pingTimeout)
			}
		}
		if send(reply) != nil {
			return
		}
	}
}

// byOrder is the reason of a session that the operator ends.
const byOrder = "ended by the operator"

// endSession ends the session with the ID, or the unique ID prefix, in the path.
func (a *API) endSession(r *http.Request) (any, error) {
	id := r.PathValue("id")
	var found []sfu.SessionStatus
	for _, s := range a.SFU.Clients().Sessions() {
		if s.ID == id || len(id) >= leastPrefix && strings.HasPrefix(s.ID, id) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 0:
		return nil, problem.New(problem.NoSession, fmt.Sprintf("there is no session %q here; weir sessions lists those there are", id))
	case len(found) > 1:
		return nil, problem.New(problem.BadParameter, fmt.Sprintf("%d sessions begin with %q: give more of the ID", len(found), id))
	}
	s := found[0]
	if !a.SFU.Clients().EndSession(s.ID, byOrder) {
		return nil, problem.New(problem.SessionEnded, fmt.Sprintf("session %s has just ended by itself", s.ID))
	}
	return api.EndedSession{ID: s.ID, Stream: s.Stream, Client: s.Remote}, nil
}

// endStream ends a stream that is published here.
func (a *API) endStream(r *http.Request) (any, error) {
	name := r.URL.Query().Get("stream")
	if err := capacity.ValidStreamName(name); err != nil {
		return nil, problem.New(problem.BadStreamName, err.Error())
	}
	if a.SFU.Clients().EndStream(name, byOrder) {
		return map[string]string{"stream": name}, nil
	}
	for _, c := range a.SFU.StreamInfos() {
		if c.Stream == name {
			return nil, problem.New(problem.NotFound, fmt.Sprintf("stream %q is not published at this node, which pulls it from %s: end it where it is published, which weir streams list shows", name, names.New(a.Node.Prober.Names()).Of(c.Parent)))
		}
	}
	return nil, problem.New(problem.NotFound, fmt.Sprintf("stream %q is not published at this node; weir streams list shows where it is", name))
}
