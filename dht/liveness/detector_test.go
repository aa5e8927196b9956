package liveness

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A lost peer is reported once, and its return once; a peer that is slow for a
// moment, is connected, or was never there is not reported.
func TestPeersLostAndBack(t *testing.T) {
	d := New()
	start := time.Now()
	connected := func(p peer.ID) bool { return p == "slow" }
	for _, p := range []peer.ID{"dies", "slow", "blinks"} {
		d.Answered(start, p, time.Millisecond)
	}
	for _, p := range []peer.ID{"dies", "slow", "blinks", "stranger"} {
		d.Failed(start, p, NoConnection)
	}
	d.Answered(start.Add(time.Second), "blinks", 0)
	if got := d.Lost(start.Add(lostAfter-1), connected); len(got) > 0 {
		t.Errorf("lost too early: %v", got)
	}
	if got := d.Lost(start.Add(lostAfter), connected); !slices.Equal(got, []peer.ID{"dies"}) {
		t.Errorf("lost are %v, want the one that died", got)
	}
	d.Failed(start.Add(2*lostAfter), "dies", NoConnection)
	if got := d.Lost(start.Add(time.Hour), connected); len(got) > 0 {
		t.Errorf("lost again: %v", got)
	}
	if back := d.Answered(start.Add(time.Hour), "dies", 0); back != time.Hour {
		t.Errorf("back after %v, want an hour", back)
	}
	if back := d.Answered(start.Add(time.Hour), "dies", 0); back != 0 {
		t.Error("back twice")
	}
}

func TestDown(t *testing.T) {
	d := New()
	now := time.Unix(1_000_000, 0)
	if d.Failed(now, "p", NoAnswer) || d.Down(now, "p") || !d.Suspect("p") {
		t.Error("one unanswered request makes a peer suspect and no more")
	}
	if !d.Failed(now, "p", NoAnswer) || !d.Down(now, "p") {
		t.Error("two in a row make it down")
	}
	if d.Down(now.Add(downFirst), "p") {
		t.Error("down for longer than downFirst the first time")
	}
	now = now.Add(downFirst)
	if !d.Failed(now, "p", NoAnswer) || !d.Down(now.Add(2*downFirst-1), "p") || d.Down(now.Add(2*downFirst), "p") {
		t.Error("not down for twice as long the second time")
	}
	d.Answered(now, "p", 0)
	if d.Down(now, "p") || d.Suspect("p") {
		t.Error("a peer that answered is held to be down")
	}
	if !d.Failed(now, "q", NoConnection) || !d.Down(now, "q") {
		t.Error("a refused dial does not count at once")
	}
	for range BadAnswer - 1 {
		if d.Failed(now, "b", BadAnswer) {
			t.Error("a peer that lives but does not behave is down too soon")
		}
	}
	if !d.Failed(now, "b", BadAnswer) {
		t.Error("a peer that never behaves is not down")
	}
	for range 30 {
		now = now.Add(time.Hour)
		d.Failed(now, "q", NoConnection)
	}
	if d.Down(now.Add(downMost), "q") {
		t.Error("down for longer than downMost")
	}
	d.Answered(now, "p", 80*time.Millisecond)
	d.Answered(now, "p", 40*time.Millisecond)
	d.Answered(now, "p", 48*time.Millisecond)
	if got := d.RTT("p"); got != 41*time.Millisecond {
		t.Errorf("round trip %v, want 41ms: the least, and an eighth of the way up", got)
	}
	for p := range MaxPeers + 10 {
		d.Failed(now, peer.ID(strconv.Itoa(p)), NoAnswer)
	}
	if len(d.peers) > MaxPeers {
		t.Errorf("%d peers remembered", len(d.peers))
	}
}

// A slow peer is not unreachable; a crashed one is, within seconds.
func TestUnreachable(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for name, c := range map[string]struct {
		does func(d *Detector)
		when time.Duration
		want bool
	}{
		"never heard of":                 {does: func(d *Detector) {}},
		"silent once":                    {does: func(d *Detector) { d.Failed(start, "p", NoAnswer) }, when: time.Minute},
		"silent twice, for a moment":     {does: func(d *Detector) { d.Failed(start, "p", NoAnswer); d.Failed(at(time.Second), "p", NoAnswer) }, when: 2 * time.Second},
		"silent twice, for some seconds": {does: func(d *Detector) { d.Failed(start, "p", NoAnswer); d.Failed(at(time.Second), "p", NoAnswer) }, when: UnreachableAfter, want: true},
		"silent once, and again later":   {does: func(d *Detector) { d.Failed(start, "p", NoAnswer); d.Failed(at(time.Minute), "p", NoAnswer) }, when: time.Minute},
		"late again and again": {does: func(d *Detector) {
			for range 9 {
				d.Failed(start, "p", Late)
			}
		}, when: time.Minute},
		"silent, but for one answer": {does: func(d *Detector) {
			d.Failed(start, "p", NoAnswer)
			d.Answered(at(time.Second), "p", 0)
			d.Failed(at(2*time.Second), "p", NoAnswer)
			d.Failed(at(3*time.Second), "p", NoAnswer)
		}, when: 4 * time.Second},
		"took leave":                   {does: func(d *Detector) { d.Leave(start, "p") }, want: true},
		"took leave and has come back": {does: func(d *Detector) { d.Leave(start, "p"); d.Answered(start, "p", 0) }},
	} {
		d := New()
		c.does(d)
		if got := d.Unreachable(at(c.when), "p"); got != c.want {
			t.Errorf("%s: unreachable is %v after %v", name, got, c.when)
		}
	}
}
