// Package steering decides which layers of video a viewer gets, by the estimate
// of its connection, and sends the padding that finds out whether it could get
// more.
//
// In go an estimator that has heard of the far end, and the viewer's
// DownTracks; out come their limits. One goroutine, of the owner's group, sends
// the padding of a probe, for a quarter of a second at most.
package steering

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weir/capacity/task"
	"weir/sfu/congestion"
	"weir/sfu/forward"
)

const (
	// pause is the least time between two decisions, of the ten or twenty
	// messages of feedback in a second.
	pause = 80 * time.Millisecond
	// overhead is what headers and encryption add to payload of video.
	overhead = 1.03
	// rateTime is the time over which the rates of media are measured.
	rateTime = time.Second
	// paceFactor is the pace of large frames, as a multiple of the estimate: that
	// of browsers.
	paceFactor = 2.5
	// paddingTick is the time between two bursts of padding.
	paddingTick = 5 * time.Millisecond
)

// Totals counts the probes of several viewers. The zero value is ready.
type Totals struct{ probes, bytes atomic.Int64 }

// Read returns how many probes were sent, and their bytes of padding.
func (t *Totals) Read() (probes, bytes int64) { return t.probes.Load(), t.bytes.Load() }

// A Video is a DownTrack that can be limited.
type Video interface {
	// Added reports whether anything is sent: not while it is paused.
	Added() bool
	// Limit bounds the layers that are sent, in bit/s of payload; 0: all.
	Limit(bits int64)
	// Pace spreads large frames at a rate, in bit/s; 0: not at all.
	Pace(bits int64)
	// Review makes the limit count at once.
	Review(now time.Time)
	// Pad sends about so many bytes of padding, and returns how many; 0: it
	// cannot.
	Pad(bytes int) int
}

// A Steering is that of one viewer.
type Steering struct {
	Estimator *congestion.Estimator
	Video     Video                  // the first video; nil: none
	Layers    func() []forward.Layer // of Video
	Sent      func() int64           // bytes sent so far of Video
	Others    func() int64           // and of all other media
	Padding   func() bool            // Video can be padded
	Tasks     *task.Group
	Totals    *Totals
	Now       func() time.Duration

	mu      sync.Mutex
	begun   bool
	at      time.Duration // of the last decision
	chooser congestion.Chooser
	target  int64 // bit/s; 0: no limit
	layer   int   // that the target allows
	since   time.Duration
	bytes   [2]int64 // of Video and other media, at since
	bits    [2]int64 // their rates, bit/s
	probing bool
}

// Heard decides anew, after the estimator has heard of the far end, or some time
// has passed. While video is paused nothing is decided: the estimate says
// nothing of it then, and no probe can be sent.
func (s *Steering) Heard() {
	if s.Video == nil || !s.Video.Added() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	if s.begun && now-s.at < pause {
		return
	}
	s.measure(now)
	s.begun, s.at = true, now
	status, layers := s.Estimator.Status(), s.Layers()
	choice := s.chooser.Choose(now, status, rates(layers), s.bits[1], s.Padding())
	s.target = 0
	if choice.Limit != congestion.Unlimited {
		s.target = choice.Limit
	}
	s.Video.Limit(int64(float64(s.target) / overhead))
	if choice.Layer != s.layer {
		s.layer = choice.Layer
		s.Video.Review(time.Now())
	}
	s.Video.Pace(pace(status, layers, s.bits[0]))
	if choice.Probe > 0 && !s.probing {
		s.probe(now, choice.Probe)
	}
}

// measure updates the rates of what is sent. Called with mu held.
func (s *Steering) measure(now time.Duration) {
	elapsed := now - s.since
	if s.begun && elapsed < rateTime {
		return
	}
	for i, bytes := range [2]int64{s.Sent(), s.Others()} {
		if s.begun {
			s.bits[i] = int64(float64(8*(bytes-s.bytes[i])) / elapsed.Seconds())
		}
		s.bytes[i] = bytes
	}
	s.since = now
}

// pace returns the rate at which large frames are spread, in bit/s, of video
// that has sent bits: 0 if nothing is known. It is above what the video needs,
// as nothing would wait for less.
func pace(s congestion.Status, layers []forward.Layer, sent int64) int64 {
	if !s.Known {
		return 0
	}
	needs := max(s.Bitrate, sent)
	for _, l := range layers {
		if l.Spatial+l.Temporal > 0 { // all of it is counted, also what is left out
			needs = max(needs, l.Bitrate)
		}
	}
	return int64(paceFactor * float64(needs))
}

// rates returns the bitrates of the layers that can be had now, with headers, in
// ascending order: those with all pictures, and with fewer of the least one.
func rates(layers []forward.Layer) (all []int64) {
	for i, l := range layers {
		same := func(j int) bool {
			return j < len(layers) && layers[j].RID == l.RID && layers[j].Spatial == l.Spatial
		}
		if l.Active && l.Bitrate > 0 && (!same(i+1) || same(0)) {
			all = append(all, int64(float64(l.Bitrate)*overhead))
		}
	}
	slices.Sort(all)
	return all
}

// probe begins to send padding. Called with mu held.
func (s *Steering) probe(now time.Duration, bitrate int64) {
	p, ok := s.Estimator.Probe(now, bitrate)
	if !ok {
		return
	}
	s.probing = s.Tasks.Go(func() {
		sent := s.pad(p)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.probing = false
		s.Totals.probes.Add(1)
		s.Totals.bytes.Add(int64(sent))
	})
	if !s.probing {
		s.Estimator.Probed()
	}
}

// pad sends the padding of p, until it is over or the owner ends.
func (s *Steering) pad(p congestion.Probe) (sent int) {
	defer s.Estimator.Probed()
	for now := s.Now(); now < p.Until; now = s.Now() {
		if due := s.Estimator.Padding(now, p); due > 0 {
			n := s.Video.Pad(due)
			if sent += n; n == 0 {
				return sent
			}
		}
		time.Sleep(min(paddingTick, p.Until-now))
	}
	return sent
}

// Status is what is known of a viewer's connection, and decided for it.
type Status struct {
	congestion.Status
	Target  int64 // limit of its video, bit/s; 0: none
	Probing bool
}

// Status returns it now.
func (s *Steering) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Status: s.Estimator.Status(), Target: s.target, Probing: s.probing}
}
