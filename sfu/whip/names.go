package whip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
)

const (
	// giveWayAfter is how long a publisher may send nothing before another may
	// take its stream's name.
	giveWayAfter = 3 * time.Second
)

// names holds the streams that are published here. Each has one publisher until
// that has gone or has given way to another.
type names struct {
	cfg *Config

	mu         sync.Mutex
	publishers map[string]*session // by stream name
}

// reserve ensures that a stream has one publisher here. The caller calls the
// returned function once the publisher is set up or refused.
func (n *names) reserve(name string) (func(), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	done, ok := n.cfg.Streams.Reserve(name)
	if !ok {
		return nil, taken(name, "here")
	}
	if _, origin := n.cfg.Streams.Here(name); origin && !n.publishers[name].abandoned(time.Now()) {
		done()
		return nil, taken(name, "here")
	}
	return done, nil
}

// claim takes the name of a stream, so that no other node gives it to another
// publisher, and returns the function that releases it.
func (n *names) claim(ctx context.Context, name string) (release func(), err error) {
	if n.cfg.Claim == nil {
		return func() {}, nil
	}
	release, err = n.cfg.Claim(ctx, name)
	var there *problem.TakenError
	if errors.As(err, &there) {
		return nil, taken(name, there.Where())
	}
	return release, err
}

func taken(name, where string) error {
	return problem.New(problem.NameTaken, fmt.Sprintf("stream %q is being published %s: choose another name, or end that session first", name, where)).Retry(retryNotLive)
}

// abandoned reports whether the publisher, if there still is one, has sent
// nothing for so long that another may take its name.
func (s *session) abandoned(now time.Time) bool {
	return s != nil && s.publisher.Quiet(now, s.began) >= giveWayAfter
}

// abandoned reports whether there is a publisher of that name here that has to
// give way to another.
func (n *names) abandoned(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, origin := n.cfg.Streams.Here(name)
	return origin && n.publishers[name].abandoned(time.Now())
}

// publish makes the session's stream known here. With inherit, a publisher of
// that name has fallen silent: the session takes over its claim to the name,
// and its stream continues with the session's tracks if those are alike, so
// that its viewers stay. The caller has reserved the name.
func (n *names) publish(sess *session, inherit bool) error {
	now, name := time.Now(), sess.stream.Name
	n.mu.Lock()
	old, origin := n.cfg.Streams.Here(name)
	var gone *session
	if origin {
		gone = n.publishers[name]
	}
	if origin != inherit || origin && !gone.abandoned(now) { // it sends again, or has just gone
		n.mu.Unlock()
		return taken(name, "here")
	}
	if gone != nil {
		sess.unname = gone.unname
	}
	if old != nil && !old.Ended() && sess.publisher.Adopt(old.Tracks) {
		sess.stream, sess.inherited = old, now
	}
	n.publishers[name] = sess
	n.mu.Unlock()
	if gone != nil {
		silent := gone.publisher.Quiet(now, gone.began)
		sess.inherited = now.Add(-silent)
		e := event.Event{Kind: event.PublisherReplaced, Stream: name, Session: sess.id, Elapsed: capacity.Milliseconds(silent),
			Detail: fmt.Sprintf("session %s had sent nothing for %v; its viewers stay", gone.id, silent.Round(time.Millisecond))}
		if sess.stream != old {
			e.Detail = fmt.Sprintf("session %s had sent nothing for %v; its viewers have to come again, since the tracks differ", gone.id, silent.Round(time.Millisecond))
		}
		gone.end(fmt.Sprintf("it sent nothing for %v, and a new publisher came under its name", silent.Round(time.Millisecond)))
		n.cfg.event(e)
	}
	if since := n.cfg.Streams.Publish(sess.stream); !since.IsZero() {
		sess.inherited = since
	}
	if gone != nil && sess.stream != old {
		n.tellEnd(old)
	}
	return nil
}

// finish releases the name of a publisher that has gone for why, unless another
// publisher has taken it over. Its stream ends, or waits if it may come back.
func (n *names) finish(sess *session, why string) {
	n.mu.Lock()
	mine := n.publishers[sess.stream.Name] == sess
	if mine {
		delete(n.publishers, sess.stream.Name)
	}
	n.mu.Unlock()
	if !mine {
		return
	}
	if since, back := sess.mayComeBack(why, time.Now()); back {
		n.cfg.Streams.Vanish(sess.stream, since)
	} else {
		n.cfg.Streams.Drop(sess.stream)
		n.tellEnd(sess.stream)
	}
	sess.unname()
}

// mayComeBack reports whether a publisher that has gone for why may come back, or
// another come for it, and returns its last sign of life. One that never connected
// has given none: it leaves what it has taken over as that was.
func (s *session) mayComeBack(why string, now time.Time) (since time.Time, ok bool) {
	switch endWord(why) {
	case "deleted", "operator", "token_expired", "token_key_removed", "name_taken":
		return time.Time{}, false
	}
	select {
	case <-s.transport.Connected():
	default:
		return s.inherited, !s.inherited.IsZero()
	}
	quiet := s.publisher.Quiet(now, s.began)
	if silence, ok := s.transport.Silence(now); ok {
		quiet = min(quiet, silence)
	}
	return now.Add(-quiet), true
}

// Yield has a publisher that has sent nothing for a while give its name up to one
// that comes at another node, and reports whether it does.
func (s *Server) Yield(name string) bool {
	now := time.Now()
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	sess := s.names.publishers[name]
	if !sess.abandoned(now) {
		return false
	}
	sess.end(fmt.Sprintf("it sent nothing for %v, and a publisher came under its name at another node", sess.publisher.Quiet(now, sess.began).Round(time.Millisecond)))
	return true
}

// Ended reports that a stream that was carried here is over.
func (s *Server) Ended(st *forward.Stream) { s.names.tellEnd(st) }

// tellEnd reports that a stream that was published here is over.
func (n *names) tellEnd(st *forward.Stream) {
	if lasted, started := st.Finish(time.Now()); started {
		n.cfg.event(event.Event{Kind: event.StreamEnded, Stream: st.Name, Elapsed: capacity.Milliseconds(lasted)})
	}
}

// settleName ends the session if another node took its name at the same time,
// when neither had seen the other's record. All nodes check, and the publisher
// on the node with the smallest peer ID stays.
func (s *session) settleName() {
	for _, after := range nameSettles {
		settled := time.NewTimer(time.Until(s.began.Add(after)))
		select {
		case <-settled.C:
		case <-s.done:
			settled.Stop()
			return
		}
		// If the lookup fails, the next one will tell. Meanwhile viewers find
		// one of the publishers.
		nodes, _ := s.server.cfg.Published(s.server.ctx, s.stream.Name)
		for _, node := range nodes {
			if node < s.server.cfg.Self {
				s.end("its name was taken at the same time at node " + node.String())
				return
			}
		}
	}
}

// nameSettles are the times after the start of a publisher at which the node
// checks again whether its name is taken elsewhere: when records are likely to
// be visible everywhere, and when they are at the latest.
var nameSettles = []time.Duration{3 * time.Second, 15 * time.Second}
