package sfu

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/sfu/forward"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

// A Stream is what one publisher sends, on this node: at the origin, where the
// publisher is connected, or at a relay, which pulls it from another carrier,
// and lets go of it when nobody takes it any more.
//
// It is used by sessions, branches and holds. Why it ends is one of the reasons
// in link.go.
type Stream struct {
	*forward.Stream
	Origin bool
	began  time.Time
	owner  *session // SFU.mu's: the publisher; nil at a relay, and once it has gone

	mu        sync.Mutex
	path      []peer.ID // origin first, this node last
	parentRTT time.Duration
}

func newStream(name string, origin bool, tracks []*forward.Track, path []peer.ID, now time.Time) *Stream {
	return &Stream{Stream: forward.NewStream(name, tracks, now), Origin: origin, path: path, began: now}
}

// goesOnAs reports whether another publisher's tracks can go on as the stream's:
// what viewers were answered holds for them.
func (s *Stream) goesOnAs(tracks []*forward.Track) bool {
	return slices.EqualFunc(s.Tracks, tracks, func(a, b *forward.Track) bool {
		return a.ID == b.ID && sdp.Decodes(rtc.CapabilityOf(a.Codec), rtc.CapabilityOf(b.Codec), false) > 0
	})
}

// move notes that the stream comes by another path now.
func (s *Stream) move(path []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path = path
}

// near notes how far the parent is.
func (s *Stream) near(rtt time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parentRTT = rtt
}

func (s *Stream) pathCopy() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.path)
}

// branches lists the cascade pulls that the stream is sent on.
func (s *Stream) branches() []*branch {
	users, _ := s.Users()
	var all []*branch
	for _, u := range users {
		if b, ok := u.(*branch); ok {
			all = append(all, b)
		}
	}
	return all
}

// offers names the stream's codecs for people.
func (s *Stream) offers() string {
	var has []string
	for _, t := range s.Tracks {
		has = append(has, fmt.Sprintf("%s/%s", t.Codec.Kind(), sdp.Describe(rtc.CapabilityOf(t.Codec))))
	}
	return strings.Join(has, " and ")
}

// carriage is what this node claims about the stream.
func (s *Stream) carriage(fanout int) capacity.Carriage {
	_, viewers := s.Users()
	children := len(s.branches())
	s.mu.Lock()
	defer s.mu.Unlock()
	c := capacity.Carriage{
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

// load estimates what one more viewer of the stream costs, from its last
// seconds.
func (s *Stream) load(purpose capacity.Purpose) capacity.Need {
	need := DefaultNeed(purpose, s.Name)
	if bits, packets := s.Rates(); bits > 0 {
		need.Uplink, need.Packets = max(bits, minNeedUplink), packets
	}
	return need
}

// minNeedUplink keeps a stream that pauses from looking free.
const minNeedUplink = 64_000

// DefaultNeed is what a stream is assumed to need before it was measured: HD
// video at a common bitrate, and audio.
func DefaultNeed(purpose capacity.Purpose, stream string) capacity.Need {
	need := capacity.Need{Purpose: purpose, Stream: stream, Uplink: 2_500_000, Packets: 300}
	if purpose == capacity.Publish {
		need.Uplink = minNeedUplink // a publisher costs downlink; RTCP goes back
	}
	return need
}
