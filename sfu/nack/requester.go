package nack

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/rtcp"
)

const (
	// gather is the least time between two NACKs of a connection: what becomes
	// due meanwhile goes with the next.
	gather = 5 * time.Millisecond
	// perPacket bounds the packets that one NACK requests, so that it fits in a
	// datagram.
	perPacket = 256
)

// A Requester requests the missing packets of a connection's streams. Close
// stops it and waits. Any goroutine may use it and its streams.
type Requester struct {
	send func([]rtcp.Packet) error
	ssrc uint32 // of the sender of NACKs

	mu      sync.Mutex
	streams map[*Stream]struct{}
	rtt     RTT
	timer   *time.Timer
	at      time.Time // when timer fires; zero: it is not set
	sent    time.Time
	sending bool // requests; the timer is set again afterwards
	closed  bool
	firing  sync.WaitGroup // the timer, from when it is set
}

// A Stream is the packets under one SSRC, retransmissions included. A nil one is
// of a far end that sends nothing again: its methods do nothing.
type Stream struct {
	of   *Requester
	ssrc uint32
	told func(requested int, lost bool)
	log  Log // guarded by of.mu
}

// NewRequester makes a Requester that sends NACKs by send, from a goroutine of
// its timer. What cannot be sent is requested again later.
func NewRequester(send func([]rtcp.Packet) error) *Requester {
	return &Requester{send: send, ssrc: rand.Uint32(), streams: map[*Stream]struct{}{}}
}

// Stream makes a stream. Told may be nil. It is called after packets were
// requested, with their number, or were given up: lost reports that a keyframe
// is needed.
func (r *Requester) Stream(ssrc uint32, told func(requested int, lost bool)) *Stream {
	s := &Stream{of: r, ssrc: ssrc, told: told}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	return s
}

// Begin takes a measurement of the round trip, for as long as no answers to
// requests have come.
func (r *Requester) Begin(rtt time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rtt.Begin(rtt)
}

// Came records that a packet of the stream has arrived at now.
func (s *Stream) Came(seq uint16, now time.Time) {
	if s == nil {
		return
	}
	r := s.of
	r.mu.Lock()
	defer r.mu.Unlock()
	s.log.Came(seq, now, &r.rtt)
	s.await(now)
}

// await makes the timer fire when there is something to do for s. Called with
// the Requester's mu held.
func (s *Stream) await(now time.Time) {
	at, due := s.log.Next()
	if s.log.lost {
		at, due = now, true
	}
	if due {
		s.of.set(at, now)
	}
}

// Keyframe records that a packet that has come begins a keyframe.
func (s *Stream) Keyframe(seq uint16) {
	if s == nil {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.log.Keyframe(seq)
}

// Close ends the requests of the stream.
func (s *Stream) Close() {
	if s == nil {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.streams, s)
}

// set makes the timer fire at at. Called with mu held.
func (r *Requester) set(at, now time.Time) {
	if next := r.sent.Add(gather); at.Before(next) {
		at = next
	}
	switch {
	case r.closed, r.sending, !r.at.IsZero() && !at.Before(r.at):
		return
	case r.at.IsZero():
		r.firing.Add(1)
	case !r.timer.Stop():
		return // fire is about to begin, and looks itself
	}
	r.at = at
	if r.timer == nil {
		r.timer = time.AfterFunc(at.Sub(now), r.fire)
	} else {
		r.timer.Reset(at.Sub(now))
	}
}

// fire requests what is due.
func (r *Requester) fire() {
	defer r.firing.Done()
	r.mu.Lock()
	now := time.Now()
	r.at, r.sent = time.Time{}, now
	var requests []rtcp.Packet
	var after []func()
	for s := range r.streams {
		seqs, lost := s.log.Due(now, r.rtt.Estimate()), s.log.Lost()
		if n := len(seqs); s.told != nil && (n > 0 || lost) {
			after = append(after, func() { s.told(n, lost) })
		}
		for len(seqs) > 0 {
			n := min(len(seqs), perPacket)
			requests = append(requests, &rtcp.TransportLayerNack{SenderSSRC: r.ssrc, MediaSSRC: s.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs[:n])})
			seqs = seqs[n:]
		}
	}
	r.sending = true
	r.mu.Unlock()
	for _, request := range requests {
		_ = r.send([]rtcp.Packet{request}) // else requested again
	}
	for _, tell := range after {
		tell()
	}
	// Only now: while requests cannot be sent no others are begun.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending = false
	for s := range r.streams {
		s.await(time.Now())
	}
}

// Close ends all requests, and waits for one that is being sent.
func (r *Requester) Close() {
	r.mu.Lock()
	r.closed = true
	if !r.at.IsZero() && r.timer.Stop() {
		r.at = time.Time{}
		r.firing.Done()
	}
	r.mu.Unlock()
	r.firing.Wait()
}
