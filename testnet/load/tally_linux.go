package load

import (
	"context"
	"time"
	"weir/capacity/task"
)

// A Tally is what came of the frames that were sent within a window.
type Tally struct {
	Viewers int
	Packets Count // of audio and video
	Frames  Count // of video, complete

	P50, P99 time.Duration // from the sending of its frame to a packet's arrival
	Max      time.Duration

	Lossy    int    // viewers that lack more than one packet in a thousand
	Repeated uint64 // packets that came more than once, since their viewers joined
}

// A Count is how many there should have been, of all viewers together, and how
// many there were.
type Count struct{ Due, Got uint64 }

// Lost is the share that is missing.
func (c Count) Lost() float64 {
	if c.Due == 0 || c.Got >= c.Due {
		return 0
	}
	return float64(c.Due-c.Got) / float64(c.Due)
}

// Measure begins a tally of the frames that are sent from now on, for d, and
// returns what came of them once late has passed since. It calls atEnd after d.
func (s *Swarm) Measure(ctx context.Context, viewers []*Viewer, d, late time.Duration, atEnd func()) (Tally, error) {
	w := &Window{}
	s.do(func() {
		for k := range kinds {
			w.from[k] = s.log[k].newest.Load() + 1 // no packet of it has come yet
			w.until[k] = w.from[k] + 1<<30
		}
		s.tally = newTally(w)
		for _, v := range viewers {
			v.tracks[audio].count, v.tracks[video].count = 0, 0
		}
	})
	if err := task.Sleep(ctx, d); err != nil {
		return Tally{}, err
	}
	s.do(func() {
		for k := range kinds {
			w.until[k] = s.log[k].newest.Load() + 1 // no packet beyond has been counted yet
		}
	})
	atEnd()
	if err := task.Sleep(ctx, late); err != nil {
		return Tally{}, err
	}
	var result Tally
	s.do(func() { result = s.result(viewers) })
	return result, nil
}

// result ends the tally, on the reader's goroutine.
func (s *Swarm) result(viewers []*Viewer) Tally {
	in := s.tally
	s.tally = nil
	r := Tally{Viewers: len(viewers)}
	var each uint64
	for k := range kinds {
		for n := in.window.from[k]; n != in.window.until[k]; n++ {
			f, _ := s.log[k].get(n)
			each += uint64(f.packets)
			if k == video {
				r.Frames.Due++
			}
		}
		r.Packets.Got += in.packets[k]
	}
	r.Packets.Due = uint64(int64(each)*int64(len(viewers)) + in.repacked)
	r.Frames.Due *= uint64(len(viewers))
	r.Frames.Got = in.frames[video]
	for _, v := range viewers {
		got := v.tracks[audio].count + v.tracks[video].count
		if float64(got) < 0.999*float64(r.Packets.Due)/float64(len(viewers)) {
			r.Lossy++
		}
		r.Repeated += v.tracks[audio].repeated + v.tracks[video].repeated
	}
	at := func(q float64) time.Duration { return time.Duration(in.delay.ValueAtQuantile(q)) * time.Microsecond }
	r.P50, r.P99, r.Max = at(50), at(99), at(100)
	return r
}
