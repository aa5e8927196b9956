package dht

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

func rec(node string, seq uint64, ttl time.Duration) capacity.Record {
	return capacity.Record{Node: peer.ID(node), Seq: seq, TTL: ttl}
}

func nodesIn(list []*held) map[peer.ID]uint64 {
	m := make(map[peer.ID]uint64)
	for _, h := range list {
		m[h.node()] = h.record.Seq
	}
	return m
}

func TestTableKeepsTheNewestUntilItsTTLHasPassed(t *testing.T) {
	tab := newTable(defaultTableLimits())
	now := time.Now()
	put := func(at time.Time, seq uint64) error {
		return tab.put(at, at, "t", rec("a", seq, 10*time.Second), []byte{1})
	}

	if err := put(now, 5); err != nil {
		t.Fatal(err)
	}
	if err := put(now, 4); !errors.Is(err, errReplay) {
		t.Errorf("an older record: %v, want a replay", err)
	}
	// The same record again is taken, but gains no time.
	if err := put(now.Add(9*time.Second), 5); err != nil {
		t.Errorf("the same record: %v", err)
	}
	if got := tab.list(now.Add(10*time.Second-1), "t"); len(got) != 1 {
		t.Errorf("%d records just before it runs out, want 1", len(got))
	}
	if got := tab.list(now.Add(10*time.Second), "t"); len(got) != 0 {
		t.Errorf("%d records after it ran out, want 0", len(got))
	}
	// What has run out is forgotten, its sequence number too: the clock of a
	// publisher may have been set back.
	if err := put(now.Add(11*time.Second), 1); err != nil {
		t.Errorf("a lower number after a TTL of silence: %v", err)
	}
}

func TestTableRefusesWhatWasWithdrawn(t *testing.T) {
	tab := newTable(defaultTableLimits())
	now := time.Now()
	_ = tab.put(now, now, "t", rec("a", 5, time.Minute), []byte{1})
	if err := tab.withdraw(now, "t", "a", 4); !errors.Is(err, errReplay) {
		t.Errorf("withdrawal of an older record: %v, want a replay", err)
	}
	if err := tab.withdraw(now, "t", "b", 9); err != nil {
		t.Errorf("withdrawal of what is not held: %v", err)
	}
	if err := tab.withdraw(now, "t", "a", 6); err != nil {
		t.Fatal(err)
	}
	if got := tab.list(now, "t"); len(got) != 0 || tab.get(now, "t", "a") != nil || len(tab.all(now)) != 0 {
		t.Errorf("still held: %v", nodesIn(got))
	}
	for _, seq := range []uint64{5, 6} {
		if err := tab.put(now, now, "t", rec("a", seq, time.Minute), []byte{1}); !errors.Is(err, errReplay) {
			t.Errorf("seq %d after its withdrawal: %v, want a replay", seq, err)
		}
	}
	if err := tab.put(now, now, "t", rec("a", 7, time.Minute), []byte{1}); err != nil {
		t.Errorf("a newer record after a withdrawal: %v", err)
	}
}

func TestTableCaps(t *testing.T) {
	now := time.Now()
	fill := func(limits tableLimits) *table {
		tab := newTable(limits)
		// a runs out first, then b, c, d.
		for i, node := range []string{"d", "a", "c", "b"} {
			ttl := time.Duration(node[0]) * time.Second
			if err := tab.put(now, now, "t", rec(node, uint64(i), ttl), []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		return tab
	}
	t.Run("a full topic drops what runs out first", func(t *testing.T) {
		got := nodesIn(fill(tableLimits{total: 100, topic: 3, node: 100}).list(now, "t"))
		if _, ok := got["a"]; ok || len(got) != 3 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("a full table drops what runs out first", func(t *testing.T) {
		got := nodesIn(fill(tableLimits{total: 2, topic: 100, node: 100}).list(now, "t"))
		if _, ok := got["d"]; !ok || len(got) != 2 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("a publisher of too much loses its own", func(t *testing.T) {
		tab := newTable(tableLimits{total: 100, topic: 100, node: 3})
		_ = tab.put(now, now, "other", rec("b", 1, time.Second), []byte{1})
		for i := range 5 {
			_ = tab.put(now, now, Topic(fmt.Sprint(i)), rec("a", 1, time.Minute+time.Duration(i)), []byte{1})
		}
		all := tab.all(now)
		if len(all) != 4 || len(all["other"]) != 1 || len(all["0"])+len(all["1"]) != 0 {
			t.Errorf("left: %v", all)
		}
	})
	t.Run("a newer record of the same node needs no room", func(t *testing.T) {
		tab := fill(tableLimits{total: 4, topic: 4, node: 1})
		_ = tab.put(now, now, "t", rec("b", 99, time.Hour), []byte{1})
		if got := nodesIn(tab.list(now, "t")); len(got) != 4 || got["b"] != 99 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestTableWatchers(t *testing.T) {
	now := time.Now()
	limits := defaultTableLimits()
	limits.watchers = 2
	tab := newTable(limits)
	_ = tab.put(now, now, "t", rec("a", 1, time.Second), []byte{1})
	snapshot, w, err := tab.watch(now, "t")
	if err != nil || len(snapshot) != 1 {
		t.Fatalf("snapshot of %d, %v", len(snapshot), err)
	}
	_, slow, _ := tab.watch(now, "t")
	if _, _, err := tab.watch(now, "t"); !errors.Is(err, errWatchers) {
		t.Errorf("a third watcher: %v, want a refusal", err)
	}
	_ = tab.put(now, now, "other", rec("a", 1, time.Second), []byte{1})
	_ = tab.put(now, now, "t", rec("b", 1, time.Minute), []byte{1})
	_ = tab.withdraw(now, "t", "b", 2)
	tab.sweep(now.Add(time.Second))
	want := []string{"b false", "b true", "a true"}
	for _, w1 := range want {
		e := <-w.events
		if got := fmt.Sprint(string(e.held.node()), " ", e.gone); got != w1 {
			t.Errorf("event %q, want %q", got, w1)
		}
	}
	// Who does not read is cut off, and nobody else is.
	for i := range 2 * watchQueueDepth {
		_ = tab.put(now, now, "t", rec("c", uint64(i+1), time.Minute), []byte{1})
		<-w.events
	}
	n := 0
	for range slow.events {
		n++
	}
	if n != watchQueueDepth {
		t.Errorf("the slow watcher got %d events, want %d and the end", n, watchQueueDepth)
	}
	tab.unwatch(slow)
	tab.unwatch(w)
	if _, ok := <-w.events; ok || len(tab.watchers) != 0 {
		t.Errorf("%d watchers left", len(tab.watchers))
	}
}

// The indexes agree with each other whatever happens.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 251})
	f.Add([]byte("put put withdraw sweep put"))
	f.Fuzz(func(t *testing.T, script []byte) {
		tab := newTable(tableLimits{total: 8, topic: 4, node: 3, watchers: 1})
		now := time.Unix(0, 0)
		for len(script) >= 4 {
			op, node, topic, seq := script[0], string(script[1]%6), Topic(script[2]%6+'a'), uint64(script[3]%16)
			script = script[4:]
			switch op % 4 {
			case 0, 1:
				_ = tab.put(now, now, topic, rec(node, seq, time.Duration(op)*time.Second), []byte{1})
			case 2:
				_ = tab.withdraw(now, topic, peer.ID(node), seq)
			case 3:
				now = now.Add(time.Duration(op) * time.Second / 4)
				tab.sweep(now)
			}
			inTopics, inNodes := 0, 0
			for topic, m := range tab.topics {
				inTopics += len(m)
				if len(m) == 0 || len(m) > 4 {
					t.Fatalf("%d records in topic %s", len(m), topic)
				}
			}
			for node, m := range tab.nodes {
				inNodes += len(m)
				if len(m) == 0 || len(m) > 3 {
					t.Fatalf("%d records of node %s", len(m), node)
				}
			}
			if inTopics != len(tab.expiry) || inNodes != len(tab.expiry) || len(tab.expiry) > 8 {
				t.Fatalf("%d by topic, %d by node, %d by expiry", inTopics, inNodes, len(tab.expiry))
			}
			for i, h := range tab.expiry {
				if h.index != i || tab.topics[h.topic][h.node()] != h || tab.nodes[h.node()][h.topic] != h {
					t.Fatalf("record %d is misplaced", i)
				}
			}
		}
	})
}
