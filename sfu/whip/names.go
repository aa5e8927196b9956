package whip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/problem"
	"weir/sfu/rights"
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
func (n *names) reserve(name string, by *rights.Grant) (func(), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	done, ok := n.cfg.Streams.Reserve(name)
	if !ok {
		return nil, taken(name, "here")
	}
	if _, origin := n.cfg.Streams.Here(name); origin && !n.publishers[name].givesWay(time.Now(), by) {
		done()
		return nil, taken(name, "here")
	}
	return done, nil
}

// take gives a session that is set up its stream's name, so that no other node
// gives it to another publisher, and makes the stream known. That comes last, and
// at the node that admits the publisher only, since one of the same right at
// another node is ended by it. Where a publisher here is to give way, this node has
// the name already. The caller has reserved the name.
func (n *names) take(ctx context.Context, sess *session) error {
	name := sess.stream.Name
	inherit := n.givesWay(name, sess.grant)
	sess.unname = func() {}
	if !inherit && n.cfg.Claim != nil {
		release, err := n.cfg.Claim(ctx, name, sess.grant.Right())
		if there := (*problem.TakenError)(nil); errors.As(err, &there) {
			return taken(name, there.Where())
		} else if err != nil {
			return err
		}
		sess.unname = release
	}
	err := n.publish(sess, inherit)
	if err != nil {
		sess.unname()
	}
	return err
}

func taken(name, where string) error {
	return problem.New(problem.NameTaken, fmt.Sprintf("stream %q is being published %s: choose another name, or end that session first", name, where)).Retry(retryNotLive)
}

// abandoned reports whether the publisher, if there still is one, has sent
// nothing for so long that another may take its name.
func (s *session) abandoned(now time.Time) bool {
	return s != nil && s.publisher.Quiet(now, s.began) >= giveWayAfter
}

// givesWay reports whether the publisher, if there still is one, gives way to one
// that comes here by a grant: it is silent, or the grant is of its own identity.
func (s *session) givesWay(now time.Time, by *rights.Grant) bool {
	return s != nil && (s.abandoned(now) || by.Same(s.grant))
}

// givesWay reports whether there is a publisher of that name here that gives way
// to one that comes by a grant.
func (n *names) givesWay(name string, by *rights.Grant) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, origin := n.cfg.Streams.Here(name)
	return origin && n.publishers[name].givesWay(time.Now(), by)
}

// publish makes the session's stream known here. With inherit, a publisher of
// that name gives way: the session takes over its claim to the name,
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
	if origin != inherit || origin && !gone.givesWay(now, sess.grant) { // it sends again, or has just gone
		n.mu.Unlock()
		return taken(name, "here")
	}
	if gone != nil {
		sess.unname = gone.unname
		if n.cfg.Pass != nil {
			n.cfg.Pass(name, sess.grant.Right())
		}
	}
	if old != nil && !old.Ended() && sess.publisher.Adopt(old.Tracks) {
		sess.stream, sess.inherited = old, now
	}
	n.publishers[name], sess.began = sess, now
	n.mu.Unlock()
	if gone != nil {
		silent := gone.publisher.Quiet(now, gone.began)
		sess.inherited = now.Add(-silent)
		why := fmt.Sprintf("sent nothing for %v", silent.Round(time.Millisecond))
		if silent < giveWayAfter {
			why = "was replaced by its own right"
		}
		e := event.Event{Kind: event.PublisherReplaced, Stream: name, Session: sess.id, Elapsed: capacity.Milliseconds(silent),
			Detail: fmt.Sprintf("session %s %s; its viewers stay", gone.id, why)}
		if sess.stream != old {
			e.Detail = fmt.Sprintf("session %s %s; its viewers have to come again, since the tracks differ", gone.id, why)
		}
		gone.end(fmt.Sprintf("it %s, and a new publisher came under its name", why))
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
	case "deleted", "operator", "token_expired", "token_key_removed":
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

// Yield has a publisher give its name up to one that comes at another node, and
// reports whether it does: if that has the same right, or the publisher has sent
// nothing for a while and has no right of its own.
func (s *Server) Yield(name string, same bool) bool {
	now := time.Now()
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	sess := s.names.publishers[name]
	switch {
	case sess == nil:
		return false
	case same:
		sess.end("it was replaced by its own right, at another node")
	case sess.abandoned(now) && len(sess.grant.Right()) == 0:
		sess.end(fmt.Sprintf("it sent nothing for %v, and a publisher came under its name at another node", sess.publisher.Quiet(now, sess.began).Round(time.Millisecond)))
	default:
		return false
	}
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

// settleName ends the session if its stream is published at another node too, and
// that keeps the name: when neither had seen the other's record, or the network
// was in two parts. Its viewers stay, and get the other's.
func (s *session) settleName() {
	after := settleFirst
	for {
		settled := time.NewTimer(after)
		select {
		case <-settled.C:
		case <-s.done:
			settled.Stop()
			return
		}
		after = min(4*after, settleEach)
		// If the lookup fails, the next one will tell. Meanwhile viewers find
		// one of the publishers.
		rivals, _ := s.server.cfg.Published(s.server.ctx, s.stream.Name, s.grant.Right())
		for _, rival := range rivals {
			if keepsName(rival, s.server.cfg.Self, time.Since(s.began)) {
				s.end("its name was taken at node " + rival.Node.String())
				return
			}
		}
	}
}

const (
	// settleFirst and settleEach are the first and the longest interval of checks
	// whether a name is taken elsewhere: when records are likely to be visible
	// everywhere, and for partitions that have healed.
	settleFirst = 3 * time.Second
	settleEach  = time.Minute
	// settleSlack is how far two nodes' times of publishing must be apart for one
	// to be the first.
	settleSlack = 2 * time.Second
)

// keepsName reports whether a rival keeps the name that self has held for held:
// by the same right whoever came last, else whoever came first, and at the same
// time the smaller peer ID.
func keepsName(rival Rival, self peer.ID, held time.Duration) bool {
	later := held - rival.Held // by which the rival came later
	switch {
	case rival.Held == 0 || later.Abs() < settleSlack:
		return rival.Node < self
	case rival.Same:
		return later > 0
	}
	return later < 0
}
