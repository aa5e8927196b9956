package whip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
)

const (
	// giveWayAfter is how long a publisher may send nothing before another may
	// take its stream's name.
	giveWayAfter = 3 * time.Second
)

// reserveName sees to it that a stream has one publisher here, and returns what
// to call once that is settled.
func (a *request) reserveName() (func(), error) {
	s := a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	done, ok := s.cfg.Streams.Reserve(a.name)
	if !ok {
		return nil, a.taken("here")
	}
	if _, origin := s.cfg.Streams.Here(a.name); origin && !s.publishers[a.name].abandoned(time.Now()) {
		done()
		return nil, a.taken("here")
	}
	return done, nil
}

// claim takes the stream's name, so that no other node gives it to another
// publisher, and returns what gives it up.
func (a *request) claim(ctx context.Context) (release func(), err error) {
	if a.server.cfg.Claim == nil {
		return func() {}, nil
	}
	release, err = a.server.cfg.Claim(ctx, a.name)
	var taken *problem.TakenError
	if errors.As(err, &taken) {
		return nil, a.taken(taken.Where())
	}
	return release, err
}

func (a *request) taken(where string) error {
	return problem.New(problem.NameTaken, fmt.Sprintf("stream %q is being published %s: choose another name, or end that session first", a.name, where)).Retry(retryNotLive)
}

// abandoned reports whether the publisher, if there is one still, has sent nothing
// for so long that another may take its name.
func (s *session) abandoned(now time.Time) bool {
	return s != nil && s.publisher.Quiet(now, s.began) >= giveWayAfter
}

// abandoned reports whether a publisher of that name here is to give way.
func (s *Server) abandoned(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, origin := s.cfg.Streams.Here(name)
	return origin && s.publishers[name].abandoned(time.Now())
}

// publish makes the session's stream known here. With inherit, a publisher of
// that name has fallen silent: its claim to the name is the session's from now
// on, and its stream goes on with the session's tracks where those are alike,
// so that its viewers stay. The name is reserved.
func (s *Server) publish(a *request, sess *session, inherit bool) error {
	now := time.Now()
	s.mu.Lock()
	old, origin := s.cfg.Streams.Here(a.name)
	var gone *session
	if origin {
		gone = s.publishers[a.name]
	}
	if origin != inherit || origin && !gone.abandoned(now) { // it sends again, or has just gone
		s.mu.Unlock()
		return a.taken("here")
	}
	if gone != nil {
		sess.unname = gone.unname
		if !old.Ended() && sess.publisher.Adopt(old.Tracks) {
			sess.stream = old
		}
	}
	s.publishers[a.name] = sess
	s.mu.Unlock()
	if gone != nil {
		silent := gone.publisher.Quiet(now, gone.began)
		e := event.Event{Kind: event.PublisherReplaced, Stream: a.name, Session: sess.id, Elapsed: milliseconds(silent),
			Detail: fmt.Sprintf("session %s had sent nothing for %v; its viewers stay", gone.id, silent.Round(time.Millisecond))}
		if sess.stream != old {
			e.Detail = fmt.Sprintf("session %s had sent nothing for %v; its viewers have to come again, since the tracks differ", gone.id, silent.Round(time.Millisecond))
		}
		gone.end(fmt.Sprintf("it sent nothing for %v, and a new publisher came under its name", silent.Round(time.Millisecond)))
		s.event(e)
	}
	s.cfg.Streams.Publish(sess.stream)
	if gone != nil && sess.stream != old {
		s.tellEnd(old)
	}
	return nil
}

// finish ends the stream of a publisher that has gone and gives its name up,
// unless another publisher has taken both over.
func (s *Server) finish(sess *session) {
	s.mu.Lock()
	mine := s.publishers[sess.stream.Name] == sess
	if mine {
		delete(s.publishers, sess.stream.Name)
	}
	s.mu.Unlock()
	if mine {
		s.cfg.Streams.Drop(sess.stream)
		s.tellEnd(sess.stream)
		sess.unname()
	}
}

// tellEnd tells that a stream that was published here is over.
func (s *Server) tellEnd(st *forward.Stream) {
	if lasted, started := st.Finish(time.Now()); started {
		s.event(event.Event{Kind: event.StreamEnded, Stream: st.Name, Elapsed: milliseconds(lasted)})
	}
}

// settleName ends the session if another node took its name at the same time:
// neither saw the other's record then. All look, and the one with the smallest
// peer ID stays.
func (s *session) settleName() {
	for _, after := range nameSettles {
		settled := time.NewTimer(time.Until(s.began.Add(after)))
		select {
		case <-settled.C:
		case <-s.done:
			settled.Stop()
			return
		}
		// If that is not known now, the next look will tell, and viewers find
		// either.
		nodes, _ := s.server.cfg.Published(s.server.ctx, s.stream.Name)
		for _, node := range nodes {
			if node < s.server.cfg.Self {
				s.end("its name was taken at the same time at node " + node.String())
				return
			}
		}
	}
}

// nameSettles is when it is looked up again, after a publisher has come, whether
// its name is taken elsewhere: when records should tell everywhere, and when at
// the latest they do.
var nameSettles = []time.Duration{3 * time.Second, 15 * time.Second}
