package sfu

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// A Stream is what one publisher sends, on this node: at the origin, where the
// publisher is connected, or at a relay, which pulls it from another carrier.
type Stream struct {
	Name   string
	Origin bool
	tracks []*Track // fixed once the stream exists
	began  time.Time
	owner  *session // SFU.mu's: the publisher; nil at a relay, and once it has gone

	// idle is told when the last viewer or child has gone, and again when one
	// comes: a relay lets go of a stream that nobody watches.
	idle chan struct{}
	// over is closed when the stream has ended, here.
	over     chan struct{}
	overOnce sync.Once
	why      string // set before over is closed; one of the reasons in link.go

	mu        sync.Mutex
	path      []peer.ID // origin first, this node last
	parentRTT time.Duration
	started   time.Time    // when media came, at the origin; zero: not yet
	finished  bool         // its end was told
	users     map[any]bool // sessions, branches and holds that take the stream
	viewers   int
	idleSince time.Time
	bitrate   meter // of the source, all tracks
}

func newStream(name string, origin bool, tracks []*Track, path []peer.ID, now time.Time) *Stream {
	return &Stream{
		Name: name, Origin: origin, tracks: tracks, path: path, began: now, idleSince: now,
		idle: make(chan struct{}, 1), over: make(chan struct{}), users: map[any]bool{},
	}
}

// end ends the stream here: viewers are closed, children told why.
func (s *Stream) end(why string) {
	s.overOnce.Do(func() {
		s.why = why
		close(s.over)
	})
}

// start notes that media comes from now on, and reports whether that is new.
func (s *Stream) start(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started.IsZero() || s.finished {
		return false
	}
	s.started = now
	return true
}

// finish reports whether the stream had started and its end is still to be told,
// and how long it was.
func (s *Stream) finish(now time.Time) (lasted time.Duration, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished || s.started.IsZero() {
		s.finished = true
		return 0, false
	}
	s.finished = true
	return now.Sub(s.started), true
}

// goesOnAs reports whether another publisher's tracks can go on as the stream's:
// what viewers were answered holds for them.
func (s *Stream) goesOnAs(tracks []*Track) bool {
	return slices.EqualFunc(s.tracks, tracks, func(a, b *Track) bool {
		return a.ID == b.ID && decodes(a.Codec, b.Codec, false) > 0
	})
}

// retire ends the stream unless somebody takes it.
func (s *Stream) retire(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) > 0 {
		return false
	}
	s.end(why)
	return true
}

func (s *Stream) ended() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// use counts user as one who takes the stream until the returned function is
// called, or reports false if the stream has ended.
func (s *Stream) use(user any, viewer bool) (func(), bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() {
		return nil, false
	}
	s.users[user] = true
	if viewer {
		s.viewers++
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.users, user)
			if viewer {
				s.viewers--
			}
			if len(s.users) == 0 {
				s.idleSince = time.Now()
				select {
				case s.idle <- struct{}{}:
				default:
				}
			}
		})
	}, true
}

// idleFor is how long nobody has taken the stream; 0 if somebody does.
func (s *Stream) idleFor(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) > 0 {
		return 0
	}
	return now.Sub(s.idleSince)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*branch
	for u := range s.users {
		if b, ok := u.(*branch); ok {
			all = append(all, b)
		}
	}
	return all
}

// offers names the stream's codecs for people.
func (s *Stream) offers() string {
	var has []string
	for _, t := range s.tracks {
		has = append(has, fmt.Sprintf("%s/%s", t.kind(), describe(t.Codec)))
	}
	return strings.Join(has, " and ")
}

// carriage is what this node claims about the stream.
func (s *Stream) carriage(fanout int) capacity.Carriage {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := capacity.Carriage{
		Stream: s.Name, Origin: s.Origin, Depth: len(s.path) - 1, Path: slices.Clone(s.path),
		Viewers: s.viewers, Fanout: fanout, ParentRTT: s.parentRTT,
	}
	for u := range s.users {
		if _, ok := u.(*branch); ok {
			c.Children++
		}
	}
	if len(s.path) > 1 {
		c.Parent = s.path[len(s.path)-2]
	}
	for _, t := range s.tracks {
		c.Tracks = append(c.Tracks, t.Codec.MimeType)
	}
	return c
}

// load estimates what one more viewer of the stream costs, from its last
// seconds.
func (s *Stream) load(purpose capacity.Purpose) capacity.Need {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := DefaultNeed(purpose, s.Name)
	if bits, packets := s.bitrate.rates(); bits > 0 {
		need.Uplink, need.Packets = max(bits, minNeedUplink), packets
	}
	return need
}

// sample updates the stream's own meter.
func (s *Stream) sample(now time.Time) {
	var bytes, packets int64
	for _, t := range s.tracks {
		n := t.packets.Load()
		packets += n
		bytes += t.bytes.Load() + n*packetOverhead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bitrate.observe(now, bytes, packets)
}

const (
	// packetOverhead is IPv4, UDP, RTP and the GCM tag, in bytes.
	packetOverhead = 20 + 8 + 12 + 16
	// minNeedUplink keeps a stream that pauses from looking free.
	minNeedUplink = 64_000
)

// DefaultNeed is what a stream is assumed to need before it was measured: HD
// video at a common bitrate, and audio.
func DefaultNeed(purpose capacity.Purpose, stream string) capacity.Need {
	need := capacity.Need{Purpose: purpose, Stream: stream, Uplink: 2_500_000, Packets: 300}
	if purpose == capacity.Publish {
		need.Uplink = minNeedUplink // a publisher costs downlink; RTCP goes back
	}
	return need
}

// A meter turns totals into rates, smoothed over about two seconds.
type meter struct {
	at             time.Time
	bytes, packets int64
	bits, rate     float64
	live           bool
}

// meterSmoothing is the time constant of a meter.
const meterSmoothing = 2 * time.Second

func (m *meter) observe(now time.Time, bytes, packets int64) {
	if !m.live {
		m.at, m.bytes, m.packets, m.live = now, bytes, packets, true
		return
	}
	dt := now.Sub(m.at).Seconds()
	if dt <= 0 {
		return
	}
	weight := min(1, dt/meterSmoothing.Seconds())
	m.bits += weight * (float64(bytes-m.bytes)*8/dt - m.bits)
	m.rate += weight * (float64(packets-m.packets)/dt - m.rate)
	m.at, m.bytes, m.packets = now, bytes, packets
}

// rates are bit/s and packets/s.
func (m *meter) rates() (bits, packets int64) { return int64(m.bits), int64(m.rate) }
