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
	// otherTime is the time over which the rate of other media is measured.
	otherTime = time.Second
	// paddingTick is the time between two bursts of padding.
	paddingTick = 5 * time.Millisecond
)

// Totals counts the probes of several viewers. The zero value is ready.
type Totals struct{ probes, bytes atomic.Int64 }

// Read returns how many probes were sent, and their bytes of padding.
func (t *Totals) Read() (probes, bytes int64) { return t.probes.Load(), t.bytes.Load() }

// A Video is a DownTrack that can be limited.
type Video interface {
	// Limit bounds the layers that are sent, in bit/s of payload; 0: all.
	Limit(bits int64)
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
	Others    func() int64           // bytes sent so far of all other media
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
	bytes   int64 // of other media, at since
	since   time.Duration
	other   int64 // bit/s
	probing bool
}

// Heard decides anew, after the estimator has heard of the far end, or some time
// has passed.
func (s *Steering) Heard() {
	if s.Video == nil {
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
	choice := s.chooser.Choose(now, s.Estimator.Status(), rates(s.Layers()), s.other, s.Padding())
	s.target = 0
	if choice.Limit != congestion.Unlimited {
		s.target = choice.Limit
	}
	s.Video.Limit(int64(float64(s.target) / overhead))
	if choice.Layer != s.layer {
		s.layer = choice.Layer
		s.Video.Review(time.Now())
	}
	if choice.Probe > 0 && !s.probing {
		s.probe(now, choice.Probe)
	}
}

// measure updates the rate of other media. Called with mu held.
func (s *Steering) measure(now time.Duration) {
	bytes := s.Others()
	if elapsed := now - s.since; !s.begun || elapsed >= otherTime {
		if s.begun {
			s.other = int64(float64(8*(bytes-s.bytes)) / elapsed.Seconds())
		}
		s.bytes, s.since = bytes, now
	}
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
