package survey

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
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
}
