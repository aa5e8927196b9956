package forward

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

// A Batch gathers the datagrams of one pass over a track's DownTracks, to send
// them with as few system calls as possible.
type Batch interface {
	// Next returns a buffer of size bytes for one datagram to an address.
	Next(to netip.AddrPort, size int) []byte
	// Commit takes the first n bytes of that buffer as the datagram.
	Commit(n int)
	// Flush sends what was gathered. The batch is not used any more after it.
	Flush() (sent int, err error)
}

// A BatchSender is a [Sender] whose packets can leave in a batch with those of
// other DownTracks.
type BatchSender interface {
	Sender
	// NewBatch returns an empty batch.
	NewBatch() Batch
	// BatchRTP adds one packet to a batch that the NewBatch of a BatchSender of
	// the same socket has made, and returns its number of bytes.
	BatchRTP(b Batch, header *rtp.Header, payload []byte) (int, error)
}

// Packets wait for a DownTrack for a bounded time: past it, what is sent could
// not be played in time, and delays what could.
const (
	// queueVideo is how old a frame may be when its turn comes. An older one is
	// skipped, and all after it up to the next keyframe, which is requested.
	queueVideo = 200 * time.Millisecond
	// queueAudio is longer: what skipping video saves lets audio pass.
	queueAudio = 400 * time.Millisecond
	// turn is how many packets a track sends before others have their turn: half
	// a millisecond, about what one batch holds. A keyframe for 1,000 viewers
	// takes a hundred of it.
	turn = 256
)

// Skips counts what was not sent because the node could not keep up. The zero
// value is ready.
type Skips struct{ video, audio atomic.Int64 }

// Totals returns how many packets were skipped, those of several DownTracks
// counted for each.
func (s *Skips) Totals() (video, audio int64) { return s.video.Load(), s.audio.Load() }

func (s *Skips) add(video bool) {
	switch {
	case s == nil:
	case video:
		s.video.Add(1)
	default:
		s.audio.Add(1)
	}
}

// start starts the goroutine that passes packets, unless it runs. Called with
// mu held.
func (t *Track) start() {
	if t.passes {
		return
	}
	t.passes, t.changed.L = true, &t.mu
	go t.pass()
}

// pass passes what has come to the DownTracks until there are none: all of it to
// the first, then all of it to the next. What comes meanwhile is passed next.
// So a packet never waits for another, and under load they come in batches.
func (t *Track) pass() {
	var batch []kept
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for len(t.fresh) == 0 && !t.due() && !t.unused() {
			t.busy = false
			t.changed.Broadcast()
			t.await()
		}
		if t.unused() {
			t.fresh, t.passes, t.busy = nil, false, false
			t.changed.Broadcast()
			return
		}
		batch, t.fresh = t.fresh, batch[:0]
		if t.video() {
			t.ring.even(batch)
		}
		now := time.Now()
		t.spread(batch, now)
		downs := t.downs // without those that catch up in this pass: their bursts have batch
		bursts := t.bursts(now)
		t.busy = true
		t.mu.Unlock()
		passTo(downs, batch, bursts)
		clear(batch) // the ring's data
		t.mu.Lock()
	}
}

// emit sends one packet, in batch if s can; *batch is made when it is first
// needed.
func emit(s Sender, batch *Batch, h *rtp.Header, payload []byte) (int, error) {
	b, ok := s.(BatchSender)
	if !ok {
		return s.WriteRTP(h, payload)
	}
	if *batch == nil {
		*batch = b.NewBatch()
	}
	return b.BatchRTP(*batch, h, payload)
}

// passTo passes packets to downs, and then the bursts.
func passTo(downs []*DownTrack, packets []kept, bursts []burst) {
	var b Batch
	served, sent := true, 0
	for _, d := range downs {
		served = d.write(&b, packets, false) && served
		if sent += len(packets); sent >= turn {
			sent = 0
			runtime.Gosched()
		}
	}
	for _, next := range bursts {
		if next.late {
			next.to.fallBehind(time.Now())
			served = false
		}
		next.to.write(&b, next.packets, true)
	}
	if b != nil {
		_, _ = b.Flush() // the socket counts what it could not send
	}
	if !served {
		return
	}
	for i := range packets {
		if packets[i].key {
			packets[i].source.up.gotKeyframe()
		}
	}
}

// unused reports whether there are no DownTracks. Called with mu held.
func (t *Track) unused() bool { return len(t.downs)+len(t.joining) == 0 }

// Settle waits until all packets that have come were passed to the DownTracks,
// and all viewers have caught up. Do not call it from a [Sender].
func (t *Track) Settle() {
	for _, e := range t.encodings {
		e.Settle()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.passes && (t.busy || len(t.fresh)+len(t.joining) > 0) {
		t.changed.Wait()
	}
}
