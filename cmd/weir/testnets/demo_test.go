package testnets

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht"
)

// Lines of several goroutines come out in order of time, whichever was added
// first, and continuation lines stay with their line.
func TestScreenPrintsInOrderOfTime(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.say(s.began.Add(1500*time.Millisecond), "viewer 3", "asks %s", "n1")
	s.add(screenLine{s.began.Add(1200 * time.Millisecond), "n1", []string{"is full", "why", "how"}})
	s.say(s.began.Add(1200*time.Millisecond), "n2", "the same instant")
	if out.Len() > 0 {
		t.Errorf("printed before flush: %q", out.String())
	}
	s.flush()
	s.flush()
	const want = "" +
		"  1.20 s  n1         is full\n" +
		"                     why\n" +
		"                     how\n" +
		"  1.20 s  n2         the same instant\n" +
		"  1.50 s  viewer 3   asks n1\n"
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestScreenColoursOnlyTerminals(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newScreen(file).colour {
		t.Error("colours in a file")
	}
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !newScreen(device).colour {
		t.Error("no colours on a terminal")
	}
	t.Setenv("NO_COLOR", "1")
	if newScreen(device).colour {
		t.Error("colours in spite of NO_COLOR")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if newScreen(device).colour {
		t.Error("colours on a dumb terminal")
	}
}

func TestDemoExplainsAChoice(t *testing.T) {
	const a, b, c = peer.ID("a"), peer.ID("b"), peer.ID("c")
	d := &demo{names: map[peer.ID]string{a: "n1", b: "n2", c: "n3"}}
	got := d.explain(dht.Decision{
		Topic:    "stream/demo",
		Verdicts: []dht.Evaluation{{Node: b, Score: 0.934}, {Node: c, Score: 0.9}, {Node: a, Rule: "sessions"}},
		Reservations: []dht.Reservation{
			{Node: c, Lease: "x", Elapsed: 2}, {Node: b, Lease: "y", Elapsed: 1.26}, {Node: a, Reason: "sessions"},
		},
		Chosen: b,
	})
	want := []string{
		"topic stream/demo, score of each candidate: n2 0.93, n3 0.90, n1 (no: sessions)",
		"asked to reserve: n3 yes, in 2.0 ms, given back; n2 yes, taken, in 1.3 ms; n1 sessions",
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("explained as\n%q\nwant\n%q", got, want)
	}
}
