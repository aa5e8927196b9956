package forward

import (
	"sync"
	"time"

	"weir/sfu/meter"
)

// A Stream is the tracks of one publisher, on this node, and their users.
type Stream struct {
	Name   string
	Tracks []*Track // fixed

	idle     chan struct{}
	done     chan struct{}
	overOnce sync.Once
	reason   string // set before done is closed

	mu        sync.Mutex
	started   time.Time // first media, at the origin; zero: none yet
	finished  bool      // its end was reported
	users     map[any]bool
	viewers   int
	idleSince time.Time
	bitrate   meter.Rate // received, all tracks
}

// NewStream makes a stream without users.
func NewStream(name string, tracks []*Track, now time.Time) *Stream {
	return &Stream{Name: name, Tracks: tracks, idleSince: now, idle: make(chan struct{}, 1), done: make(chan struct{}), users: map[any]bool{}}
}

// End ends the stream here, for a reason; the reason of the first call counts.
func (s *Stream) End(why string) {
	s.overOnce.Do(func() {
		s.reason = why
		close(s.done)
	})
}

// Done is closed when the stream has ended here.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Reason returns the reason. Call it only after Done is closed.
func (s *Stream) Reason() string { return s.reason }

// Ended reports whether the stream has ended here.
func (s *Stream) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Start records the first media at now, and reports whether it was the first
// call.
func (s *Stream) Start(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started.IsZero() || s.finished {
		return false
	}
	s.started = now
	return true
}

// Finish returns the duration of the stream, and whether it had started and its
// end has not been reported before.
func (s *Stream) Finish(now time.Time) (lasted time.Duration, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished || s.started.IsZero() {
		s.finished = true
		return 0, false
	}
	s.finished = true
	return now.Sub(s.started), true
}

// Use adds user as a user of the stream until the returned function is called.
// It reports false if the stream has ended.
func (s *Stream) Use(user any, viewer bool) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Ended() {
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

// Users returns the users of the stream, and how many of them are viewers.
func (s *Stream) Users() (users []any, viewers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range s.users {
		users = append(users, u)
	}
	return users, s.viewers
}

// Viewers returns how many users of the stream are viewers.
func (s *Stream) Viewers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewers
}

// Idle is signalled each time the last user has gone.
func (s *Stream) Idle() <-chan struct{} { return s.idle }

// IdleFor returns how long the stream has had no user; 0 if it has one.
func (s *Stream) IdleFor(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) > 0 {
		return 0
	}
	return now.Sub(s.idleSince)
}

// Retire ends the stream unless it has a user, and reports whether it did.
func (s *Stream) Retire(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) > 0 {
		return false
	}
	s.End(why)
	return true
}

// packetOverhead is IPv4, UDP, RTP and the GCM tag, in bytes.
const packetOverhead = 20 + 8 + 12 + 16

// Sample updates the stream's meters at now, and makes each of its receivers get
// the layers that suit it then.
func (s *Stream) Sample(now time.Time) {
	var bytes, packets int64
	for _, t := range s.Tracks {
		t.Sample(now)
		t.Review(now)
		p, b := t.Received()
		packets += p
		bytes += b + p*packetOverhead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bitrate.Observe(now, bytes, packets)
}

// Rates returns the received rates, with IP and UDP headers, over the last
// seconds: bit/s and packets/s.
func (s *Stream) Rates() (bits, packets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bitrate.Rates()
}
