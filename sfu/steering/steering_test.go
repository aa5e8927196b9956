package steering

import (
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity/task"
	"weir/sfu/congestion"
	"weir/sfu/forward"
)

// A fakeVideo is video of three layers.
type fakeVideo struct {
	estimator *congestion.Estimator
	now       func() time.Duration
	limit     int64
	reviews   int
	pace      int64
	padded    []int
	at        []time.Duration
	none      bool // nothing can be sent
	paused    bool
}

func (v *fakeVideo) Added() bool { return !v.paused }

func (v *fakeVideo) Limit(bits int64) { v.limit = bits }

func (v *fakeVideo) Pace(bits int64) { v.pace = bits }

func (v *fakeVideo) Review(time.Time) { v.reviews++ }

func (v *fakeVideo) Pad(bytes int) int {
	if v.none {
		return 0
	}
	v.estimator.Sent(v.now(), bytes)
	v.padded, v.at = append(v.padded, bytes), append(v.at, v.now())
	return bytes
}

func steer(t *testing.T) (*Steering, *fakeVideo) {
	begin := time.Now()
	now := func() time.Duration { return time.Since(begin) }
	tasks := &task.Group{}
	t.Cleanup(func() {
		tasks.Stop()
		tasks.Wait()
	})
	s := &Steering{
		Estimator: &congestion.Estimator{}, Tasks: tasks, Totals: &Totals{}, Now: now,
		Layers: func() []forward.Layer {
			return []forward.Layer{
				{RID: "l", Active: true, Bitrate: 150e3}, {RID: "m", Active: true, Bitrate: 500e3},
				{RID: "h", Active: true, Bitrate: 1_200e3}, {RID: "h", Temporal: 1, Active: true, Bitrate: 2_500e3},
				{RID: "x", Bitrate: 9e6}, {RID: "y", Active: true},
			}
		},
		Sent:   func() int64 { return int64(now().Seconds() * 300_000) },
		Others: func() int64 { return int64(now().Seconds() * 5000) }, Padding: func() bool { return true },
	}
	v := &fakeVideo{estimator: s.Estimator, now: now}
	s.Video = v
	return s, v
}

// hear tells the estimate every 50 ms for a time.
func (s *Steering) hear(bits float64, d time.Duration) {
	for range d / (50 * time.Millisecond) {
		time.Sleep(50 * time.Millisecond)
		s.Estimator.REMB(s.Now(), bits)
		s.Heard()
	}
}

// Layers follow the estimate, after audio has had its share, and padding looks
// for more: as much as the next layer needs, for a moment.
func TestSteering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := steer(t)
		s.hear(6e6, 3*time.Second)
		if v.limit != 0 || len(v.padded) > 0 {
			t.Fatalf("limit %d and padding %v, though all fits", v.limit, v.padded)
		}
		s.hear(600e3, 500*time.Millisecond)
		if v.limit < 500e3 || v.limit > 2_400e3 {
			t.Fatalf("limit %d for 600 kbit/s", v.limit)
		}
		if v.pace != 6_250e3 { // the best layer, with all its pictures, has 2.5 Mbit/s
			t.Errorf("pace %d", v.pace)
		}
		if v.reviews != 2 { // all layers, then two
			t.Errorf("%d reviews", v.reviews)
		}
		if got := s.Status(); got.Target < v.limit || got.Bitrate != 600e3 || !got.Known {
			t.Errorf("%+v", got)
		}
		s.hear(530e3, 200*time.Millisecond) // 40 kbit/s of it are audio: not enough, only without it
		if v.limit < 500e3 {
			t.Errorf("limit %d for 530 kbit/s, within the margin", v.limit)
		}
		s.hear(515e3, 200*time.Millisecond)
		if v.limit > 500e3 {
			t.Errorf("limit %d for 515 kbit/s, of which 40 are audio", v.limit)
		}
		s.hear(600e3, 4*time.Second)
		probes, bytes := s.Totals.Read()
		if probes == 0 || len(v.padded) == 0 {
			t.Fatal("no probe")
		}
		sum := 0
		for _, n := range v.padded {
			sum += n
		}
		if int64(sum) != bytes || bytes > probes*64<<10 {
			t.Errorf("%d probes of %d bytes, %d were sent", probes, bytes, sum)
		}
		s.hear(6e6, 2*time.Second)
		if v.limit != 0 {
			t.Errorf("limit %d once all fits again", v.limit)
		}
	})
}

// A pause does not make tries rarer: a layer that was left is tried as soon after
// it as before.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := steer(t)
		s.hear(6e6, time.Second)
		s.hear(600e3, 500*time.Millisecond)
		v.paused = true
		s.hear(600e3, time.Minute)
		if probes, _ := s.Totals.Read(); probes > 0 || len(v.padded) > 0 {
			t.Errorf("%d probes while video was paused", probes)
		}
		v.paused = false
		s.hear(600e3, 2*time.Second)
		if len(v.padded) == 0 {
			t.Error("no probe in the 2 s after a pause")
		}
	})
}

// A probe ends when nothing can be sent, and with its owner.
func TestProbesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := steer(t)
		v.none = true
		s.hear(6e6, time.Second)
		s.hear(600e3, 3*time.Second)
		if probes, bytes := s.Totals.Read(); probes == 0 || bytes != 0 {
			t.Errorf("%d probes, %d bytes", probes, bytes)
		}
		s.Tasks.Stop()
		s.hear(600e3, time.Minute)
		if s.Status().Probing {
			t.Error("probing after the end")
		}
	})
}
