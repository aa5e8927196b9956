package congestion

import (
	"slices"
	"testing"
	"time"
)

var layers = []int64{150e3, 500e3, 2_500e3}

const audio = 40_000

// watch runs a link with simulcast video for a time, and returns the layers that
// were sent.
func watch(l *link, c *Chooser, d time.Duration, padding bool) (sent []int) {
	last := -1
	l.run(d, func() {
		choice := c.Choose(l.now, l.e.Status(), layers, audio, padding)
		at := 0
		for i, bitrate := range layers {
			if bitrate <= choice.Limit {
				at = i
			}
		}
		l.video = float64(layers[at] + audio)
		if choice.Probe > 0 {
			if p, ok := l.e.Probe(l.now, choice.Probe); ok {
				l.probe, l.probing = p, true
			}
		}
		if at != last {
			sent, last = append(sent, at), at
		}
	})
	return sent
}

// A choked link costs the top layer within a second; once it is free again the
// layer comes back, with padding and without. In between nothing flaps.
func TestLayerFollowsTheLink(t *testing.T) {
	for _, padding := range []bool{true, false} {
		l, c := newLink(t, 20e6), &Chooser{}
		l.video = float64(layers[2])
		if got := watch(l, c, 20*time.Second, padding); !slices.Equal(got, []int{2}) {
			t.Fatalf("padding %v: layers %v on a free link", padding, got)
		}
		l.capacity = 900e3
		if got := watch(l, c, time.Second, padding); got[len(got)-1] > 1 {
			t.Errorf("padding %v: layers %v in the first second", padding, got)
		}
		got := watch(l, c, 60*time.Second, padding)
		if top := slices.Max(got); len(got) > 8 || padding && top > 1 {
			t.Errorf("padding %v: layers %v in a minute of 900 kbit/s", padding, got)
		}
		if lowest := slices.Min(got[len(got)/2:]); padding && lowest < 1 {
			t.Errorf("layers %v at last, with room for the middle one", got)
		}
		l.capacity = 20e6
		limit := 20 * time.Second
		if !padding {
			limit = 3 * time.Minute
		}
		if got := watch(l, c, limit, padding); got[len(got)-1] != 2 {
			t.Errorf("padding %v: layers %v once the link is free", padding, got)
		}
	}
}

// Where the lowest layer does not fit, it is sent all the same, and a single
// layer is never limited.
func TestVideoNeverEnds(t *testing.T) {
	var c Chooser
	low := Status{Known: true, Bitrate: least}
	for now := time.Duration(0); now < time.Minute; now += 100 * time.Millisecond {
		if choice := c.Choose(now, low, layers, audio, true); choice.Limit < layers[0] {
			t.Fatalf("limit %d", choice.Limit)
		}
		if choice := (&Chooser{}).Choose(now, low, layers[:1], audio, true); choice != (Choice{Limit: Unlimited}) {
			t.Fatalf("one layer: %+v", choice)
		}
	}
	if choice := c.Choose(time.Hour, Status{}, layers, audio, true); choice != (Choice{Limit: Unlimited, Layer: 2}) {
		t.Errorf("unknown: %+v", choice)
	}
}

// The longer a layer does not fit, the rarer it is tried.
func TestTriesBecomeRare(t *testing.T) {
	var c Chooser
	c.Choose(0, Status{Known: true, Bitrate: 600e3}, layers, audio, true)
	tries := 0
	for now := time.Duration(0); now < 10*time.Minute; now += 50 * time.Millisecond {
		if c.Choose(now, Status{Known: true, Bitrate: 600e3}, layers, audio, true).Probe > 0 {
			tries++
		}
	}
	if most := int(10*time.Minute/tryLast) + 5; tries < 20 || tries > most {
		t.Errorf("%d probes in 10 minutes, at most %d are due", tries, most)
	}
}
