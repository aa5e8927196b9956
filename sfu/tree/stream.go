package tree

import (
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
// and ends it when it has no user any more.
//
// Its users are viewers, children and holds. The reason of its end is
// [Finished] or [Lost].
type Stream struct {
	*forward.Stream
	Origin bool

	mu        sync.Mutex
	path      []peer.ID // origin first, this node last
	parentRTT time.Duration
}

// newOrigin makes a stream whose publisher is connected to self.
func newOrigin(st *forward.Stream, self peer.ID) *Stream {
	return &Stream{Stream: st, Origin: true, path: []peer.ID{self}}
}

// newRelay makes a stream that comes by path.
func newRelay(name string, tracks []*forward.Track, path []peer.ID, now time.Time) *Stream {
	return &Stream{Stream: forward.NewStream(name, tracks, now), path: path}
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
	// TellPath tells the node the stream's new path.
	TellPath(path []peer.ID)
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
func (s *Stream) Info(fanout int) capacity.StreamInfo {
	_, viewers := s.Users()
	children := len(s.Children())
	s.mu.Lock()
	defer s.mu.Unlock()
	c := capacity.StreamInfo{
		Stream: s.Name, Origin: s.Origin, Depth: len(s.path) - 1, Path: slices.Clone(s.path),
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
