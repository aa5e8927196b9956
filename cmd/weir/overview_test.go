package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/inspect"
)

// A record's copies are gathered: the holders of the newest, for how long, and
// the holders of older ones. Each topic has its own sequence numbers.
func TestGatherCopies(t *testing.T) {
	home, straddle := dht.ShardTopic("r1", ""), dht.ShardTopic("r1", "0")
	copyAt := func(holder string, topic dht.Topic, seq uint64, heldFor time.Duration) inspect.Change {
		return inspect.Change{Node: "n", Record: capacity.Record{Node: "n", Seq: seq}, Sealed: []byte(holder), Holder: peer.ID(holder), Topic: topic, HeldFor: heldFor}
	}
	e := gather([]inspect.Change{
		copyAt("a", home, 7, 3*time.Second),
		copyAt("a", home, 9, 100*time.Millisecond), // during the read
		copyAt("b", home, 9, 1200*time.Millisecond),
		copyAt("c", home, 8, 6*time.Second),
		copyAt("b", straddle, 10, 500*time.Millisecond),
	}, time.Now())
	if string(e.Sealed) != "b" {
		t.Errorf("took the record of %q, want the newest", e.Sealed)
	}
	if len(e.Copies) != 4 || len(e.HeldBy) != 2 || len(e.HeldFor) != 2 {
		t.Errorf("copies %+v, held by %v; want four copies, and two that hold the newest", e.Copies, e.HeldBy)
	}
	for _, k := range e.Copies {
		if k.Old != (k.Holder == "c") {
			t.Errorf("%+v: only c is behind", k)
		}
	}
	if got, want := heldBy(e), "2 (0.1–1.2 s) + 1 older"; got != want {
		t.Errorf("held by %q, want %q", got, want)
	}
	e.Node, e.Record = "b", &capacity.Record{}
	var out bytes.Buffer
	printCopies(term.Terminal{Writer: &out}, []api.Record{e})
	if lines := strings.Count(out.String(), "\n"); lines != 5 || !strings.Contains(out.String(), "not the newest") || !strings.Contains(out.String(), "itself") {
		t.Errorf("got\n%s", &out)
	}
}

func TestHeldByInWords(t *testing.T) {
	for want, e := range map[string]api.Record{
		"0":             {},
		"1 (2.0 s)":     {HeldBy: make([]peer.ID, 1), HeldFor: []float64{2000}},
		"3 (0.5–2.0 s)": {HeldBy: make([]peer.ID, 3), HeldFor: []float64{2000, 500, 700}},
		"2 (1.0 s)":     {HeldBy: make([]peer.ID, 2), HeldFor: []float64{1000, 1010}},
		"0 + 1 older":   {Copies: []api.RecordCopy{{Old: true}}},
	} {
		if got := heldBy(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestClockOffsetInWords(t *testing.T) {
	for want, off := range map[string]float64{"+0.4 ms": 0.4, "-35 ms": -35.2, "+2.5 s": 2500, "-300.0 s": -300_000} {
		if got := clockOffset(inspect.PeerInfo{Told: time.Now(), ClockOffset: off}); got != want {
			t.Errorf("%v ms: %q, want %q", off, got, want)
		}
	}
	if got := clockOffset(inspect.PeerInfo{}); got != "-" {
		t.Errorf("not told: %q", got)
	}
}
