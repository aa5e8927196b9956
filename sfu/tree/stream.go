package tree

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/sfu/forward"
	"weir/sfu/meter"
)

// A Stream is the media of one publisher on this node: at the origin, where the
// publisher is connected, or at a relay, which pulls it from another carrier
// and ends it when it has no user any more. It outlives both for a while: an
// origin whose publisher has vanished waits for another, and a relay that is cut
// off from its origin is an orphan. Its users notice nothing of who is its source.
//
// Its users are viewers, children and holds. The reason of its end is
// [Finished] or [Lost].
type Stream struct {
	*forward.Stream

	mu        sync.Mutex
	published bool      // the publisher is connected here
	vanished  time.Time // since when it is not any more; zero at a relay
	path      []peer.ID // origin first, this node last
	parentRTT time.Duration
	pulse     pulse
	orphaned  time.Time          // since when it is told to be an orphan; zero: it is not
	release   context.CancelFunc // ends the pull, or the search for one; nil: none
}

// newOrigin makes a stream whose publisher is connected to self.
func newOrigin(st *forward.Stream, self peer.ID, now time.Time) *Stream {
	s := &Stream{Stream: st, published: true, path: []peer.ID{self}}
	s.pulse.begin(now)
	return s
}

// newRelay makes a stream that is pulled by in to self.
func newRelay(name string, in Upstream, self peer.ID, now time.Time) *Stream {
	s := &Stream{Stream: forward.NewStream(name, in.Tracks(), now)}
	s.pulledBy(in, self, now)
	return s
}

// pulledBy records that the stream comes by in from now on, unless its publisher
// is here. It returns since when it had waited for a publisher; zero: it had not.
// A parent of a release before there were beats vouches for its origin by being
// linked.
func (s *Stream) pulledBy(in Upstream, self peer.ID, now time.Time) (waited time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.published {
		return time.Time{}, false
	}
	waited, s.vanished = s.vanished, time.Time{}
	s.path = append(in.Path(), self)
	if b, ok := in.Beat(); ok {
		s.pulse.follow(b, now)
	} else {
		s.pulse.begin(now)
	}
	return waited, true
}

// pulling returns the context of a pull, or of the search for one, which ends
// when the stream is published here; if it is already, at once.
func (s *Stream) pulling(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, s.release = context.WithCancel(ctx)
	if s.published {
		s.release()
		s.release = nil
	}
	return ctx
}

// publish records that the stream's publisher is connected to self, and ends the
// pull. It returns the time since when there was no source that could be
// reached; zero: there was one.
func (s *Stream) publish(self peer.ID, now time.Time) (since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since = s.vanished
	if since.IsZero() && s.orphan(now) {
		since = s.pulse.at
	}
	s.published, s.vanished, s.path = true, time.Time{}, []peer.ID{self}
	s.pulse.begin(now)
	if s.release != nil {
		s.release()
		s.release = nil
	}
	return since
}

// vanish records that the publisher has given its last sign of life at since.
func (s *Stream) vanish(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published, s.vanished = false, since
}

// cutOff records that a pull was lost at now.
func (s *Stream) cutOff(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulse.stop(now)
}

// follow takes a beat of the parent's.
func (s *Stream) follow(b Beat, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulse.follow(b, now)
}

// Beat returns the newest beat of the stream's origin.
func (s *Stream) Beat(now time.Time) Beat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pulse.newest(now)
}

// orphan reports whether the node is cut off from the origin. Called with mu
// held.
func (s *Stream) orphan(now time.Time) bool { return s.pulse.newest(now).Age >= orphanAfter }

// Orphan reports whether the node is cut off from the stream's origin: nobody
// may pull it from here, and no viewer come.
func (s *Stream) Orphan(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orphan(now)
}

// since returns when the stream has lost its source, by the last sign of life of
// its publisher or its origin.
func (s *Stream) since(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.vanished.IsZero() {
		return s.vanished
	}
	return now.Add(-s.pulse.newest(now).Age)
}

// told records whether the stream is told to be an orphan, and returns whether
// that is new, and since when it was until now.
func (s *Stream) told(now time.Time) (orphan, changed bool, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, orphan = s.orphaned, s.orphan(now)
	if orphan == !since.IsZero() {
		return orphan, false, since
	}
	s.orphaned = time.Time{}
	if orphan {
		s.orphaned = s.pulse.at
	}
	return orphan, true, since
}

// Published reports whether the publisher is connected here.
func (s *Stream) Published() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.published
}

// move records that the stream now comes by another path.
func (s *Stream) move(path []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path = path
}

// near records the round trip to the parent.
func (s *Stream) near(rtt time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parentRTT = rtt
}

// Path returns the nodes by which the stream comes: origin first, this node
// last.
func (s *Stream) Path() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.path)
}

// A Child is a node that pulls a stream from here. It is a user of the stream.
type Child interface {
	// TellPath tells the node the stream's new path, and TellBeat its newest
	// beat, soon. They do not block.
	TellPath(path []peer.ID)
	TellBeat()
	// TellLeave tells the node to pull the stream from another one.
	TellLeave()
}

// Children returns the nodes that pull the stream from here.
func (s *Stream) Children() []Child {
	users, _ := s.Users()
	var all []Child
	for _, u := range users {
		if c, ok := u.(Child); ok {
			all = append(all, c)
		}
	}
	return all
}

// Info returns this node's claim about the stream, for its record.
func (s *Stream) Info(fanout int, now time.Time) capacity.StreamInfo {
	_, viewers := s.Users()
	children := len(s.Children())
	s.mu.Lock()
	defer s.mu.Unlock()
	state := capacity.Live
	switch {
	case !s.vanished.IsZero():
		state = capacity.Waiting
	case s.orphan(now):
		state = capacity.Orphan
	}
	c := capacity.StreamInfo{
		Stream: s.Name, State: state, Origin: len(s.path) == 1, Depth: len(s.path) - 1, Path: slices.Clone(s.path),
		Viewers: viewers, Children: children, Fanout: fanout, ParentRTT: s.parentRTT,
	}
	if len(s.path) > 1 {
		c.Parent = s.path[len(s.path)-2]
	}
	for _, t := range s.Tracks {
		c.Tracks = append(c.Tracks, t.Codec.MimeType)
	}
	return c
}

// Need estimates what one more user of the stream costs, from the last seconds
// of it.
func (s *Stream) Need(purpose capacity.Purpose) capacity.Need {
	bits, packets := s.Rates()
	return meter.NeedOf(purpose, s.Name, bits, packets)
}
