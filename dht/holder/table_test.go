package holder

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

func nodesIn(list []*Held) map[peer.ID]uint64 {
	m := make(map[peer.ID]uint64)
	for _, h := range list {
		m[h.Node()] = h.Record.Seq
	}
	return m
}

func TestTableKeepsTheNewestUntilItsTTLHasPassed(t *testing.T) {
	tab := NewTable(DefaultLimits())
	now := time.Now()
	put := func(at time.Time, seq uint64) error {
		return tab.Put(at, at, "t", rec("a", seq, 10*time.Second), []byte{1})
	}

	if err := put(now, 5); err != nil {
		t.Fatal(err)
	}
	if err := put(now, 4); !errors.Is(err, ErrReplay) {
		t.Errorf("an older record: %v, want a replay", err)
	}
	// The same record again is accepted, but its expiry stays.
	if err := put(now.Add(9*time.Second), 5); err != nil {
		t.Errorf("the same record: %v", err)
	}
	if got := tab.List(now.Add(10*time.Second-1), "t"); len(got) != 1 {
		t.Errorf("%d records just before it runs out, want 1", len(got))
	}
	if got := tab.List(now.Add(10*time.Second), "t"); len(got) != 0 {
		t.Errorf("%d records after it ran out, want 0", len(got))
	}
	// An expired record is forgotten, with its sequence number: the clock of a
	// publisher may have been set back.
	if err := put(now.Add(11*time.Second), 1); err != nil {
		t.Errorf("a lower number after a TTL of silence: %v", err)
	}
}

func TestTableRefusesWhatWasWithdrawn(t *testing.T) {
	tab := NewTable(DefaultLimits())
	now := time.Now()
	_ = tab.Put(now, now, "t", rec("a", 5, time.Minute), []byte{1})
	if err := tab.Withdraw(now, "t", "a", 4); !errors.Is(err, ErrReplay) {
		t.Errorf("withdrawal of an older record: %v, want a replay", err)
	}
	if err := tab.Withdraw(now, "t", "b", 9); err != nil {
		t.Errorf("withdrawal of what is not held: %v", err)
	}
	if err := tab.Withdraw(now, "t", "a", 6); err != nil {
		t.Fatal(err)
	}
	if got := tab.List(now, "t"); len(got) != 0 || tab.Get(now, "t", "a") != nil || len(tab.All(now)) != 0 {
		t.Errorf("still held: %v", nodesIn(got))
	}
	for _, seq := range []uint64{5, 6} {
		if err := tab.Put(now, now, "t", rec("a", seq, time.Minute), []byte{1}); !errors.Is(err, ErrReplay) {
			t.Errorf("seq %d after its withdrawal: %v, want a replay", seq, err)
		}
	}
	if err := tab.Put(now, now, "t", rec("a", 7, time.Minute), []byte{1}); err != nil {
		t.Errorf("a newer record after a withdrawal: %v", err)
	}
}

func TestTableCaps(t *testing.T) {
	now := time.Now()
	fill := func(limits Limits) *Table {
		tab := NewTable(limits)
		// a expires first, then b, c, d; d came first, then a, c, b.
		for i, node := range []string{"d", "a", "c", "b"} {
			ttl := time.Duration(node[0]) * time.Second
			if err := tab.Put(now, now, "t", rec(node, uint64(i), ttl), []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		return tab
	}
	t.Run("of owners of as much the one that came first makes room in a topic", func(t *testing.T) {
		got := nodesIn(fill(Limits{Total: 100, Topic: 3, Node: 100}).List(now, "t"))
		if _, ok := got["d"]; ok || len(got) != 3 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("and in the table", func(t *testing.T) {
		got := nodesIn(fill(Limits{Total: 2, Topic: 100, Node: 100}).List(now, "t"))
		if got["b"] == 0 || got["c"] == 0 || len(got) != 2 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("a record renewed is not the oldest any more", func(t *testing.T) {
		tab := fill(Limits{Total: 100, Topic: 4, Node: 100})
		_ = tab.Put(now, now, "t", rec("d", 9, time.Second), []byte{1})
		_ = tab.Put(now, now, "t", rec("e", 1, time.Minute), []byte{1})
		if got := nodesIn(tab.List(now, "t")); got["d"] != 9 || got["a"] != 0 || len(got) != 4 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("the owner of most makes room, also in a topic where it has one", func(t *testing.T) {
		tab := fill(Limits{Total: 100, Topic: 4, Node: 100})
		_ = tab.Put(now, now, "other", rec("b", 9, time.Hour), []byte{1})
		_ = tab.Put(now, now, "t", rec("e", 1, time.Second), []byte{1})
		if got := nodesIn(tab.List(now, "t")); got["b"] != 0 || got["e"] == 0 || len(got) != 4 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("and gets no place from those with less", func(t *testing.T) {
		tab := fill(Limits{Total: 100, Topic: 4, Node: 100})
		_ = tab.Put(now, now, "1", rec("e", 1, time.Minute), []byte{1})
		if err := tab.Put(now, now, "t", rec("e", 2, time.Hour), []byte{1}); !errors.Is(err, ErrFull) {
			t.Errorf("Put = %v, want ErrFull", err)
		}
		if got := nodesIn(tab.List(now, "t")); len(got) != 4 || len(tab.List(now, "1")) != 1 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("what was handed over counts as the bringer's, until its node renews it", func(t *testing.T) {
		tab := NewTable(Limits{Total: 4, Topic: 100, Node: 100})
		for i, node := range []string{"a", "b", "c"} {
			_ = tab.Copy(now, now, "t", "heir", rec(node, uint64(i+1), time.Hour), []byte{1})
		}
		_ = tab.Put(now, now, "t", rec("a", 9, time.Second), []byte{1})
		// A record of a's stays a's if another node brings it again.
		_ = tab.Copy(now, now, "t", "heir", rec("a", 10, time.Second), []byte{1})
		for _, node := range []string{"d", "e"} {
			_ = tab.Put(now, now, "t", rec(node, 1, time.Second), []byte{1})
		}
		if got := nodesIn(tab.List(now, "t")); got["a"] != 10 || got["b"] != 0 || got["c"] == 0 || len(got) != 4 {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("a publisher of too much loses its own", func(t *testing.T) {
		tab := NewTable(Limits{Total: 100, Topic: 100, Node: 3})
		_ = tab.Put(now, now, "other", rec("b", 1, time.Second), []byte{1})
		for i := range 5 {
			_ = tab.Put(now, now, Topic(fmt.Sprint(i)), rec("a", 1, time.Minute+time.Duration(i)), []byte{1})
		}
		all := tab.All(now)
		if len(all) != 4 || len(all["other"]) != 1 || len(all["0"])+len(all["1"]) != 0 {
			t.Errorf("left: %v", all)
		}
	})
	t.Run("a newer record of the same node needs no room", func(t *testing.T) {
		tab := fill(Limits{Total: 4, Topic: 4, Node: 1})
		_ = tab.Put(now, now, "t", rec("b", 99, time.Hour), []byte{1})
		if got := nodesIn(tab.List(now, "t")); len(got) != 4 || got["b"] != 99 {
			t.Errorf("left: %v", got)
		}
	})
}

// A few peers with long-lived records in many topics cannot displace all other
// records.
func TestFloodOfAFewKeepsTheirOwn(t *testing.T) {
	now := time.Now()
	tab := NewTable(Limits{Total: 1_024, Topic: 1_024, Node: 512})
	const honest, attackers = 600, 4
	for i := range honest {
		_ = tab.Put(now, now, Topic(fmt.Sprint("t", i%40)), rec(fmt.Sprint("honest ", i), 1, 15*time.Second), []byte{1})
	}
	for i := range 512 {
		for j := range attackers {
			_ = tab.Put(now, now, Topic(fmt.Sprint("x", i)), rec(fmt.Sprint("attacker ", j), uint64(i+1), time.Minute), []byte{1})
		}
	}
	left := 0
	for i := range 40 {
		left += len(tab.List(now, Topic(fmt.Sprint("t", i))))
	}
	_, records := tab.Size(now)
	t.Logf("%d of %d records of others left, beside %d of %d peers that sent %d", left, honest, records-left, attackers, 512*attackers)
	if left != honest || records != 1_024 {
		t.Errorf("%d of %d left, of %d records", left, honest, records)
	}
}

// One node's split notices leave room for those of others.
func TestSplitNoticesOfOneNodeAreBounded(t *testing.T) {
	now := time.Now()
	tab := NewTable(DefaultLimits())
	for i := range 2 * maxNoticed {
		tab.NoteSplit(now, now.Add(time.Minute), Topic(fmt.Sprint(i)), "greedy")
	}
	tab.NoteSplit(now, now.Add(time.Minute), "t", "honest")
	if _, split := tab.Count(now, "t", 1); !split || len(tab.splits.topics) != maxNoticesNode+1 {
		t.Errorf("%d topics with split notices, the honest one's stands: %v", len(tab.splits.topics), split)
	}
	tab.NoteSplit(now, now.Add(2*time.Minute), "0", "greedy") // a topic it has a notice in
	tab.Sweep(now.Add(time.Minute))
	if len(tab.splits.topics) != 1 || tab.splits.nodes["greedy"] != 1 || len(tab.splits.nodes) != 1 {
		t.Errorf("a minute later %d topics, counted %v", len(tab.splits.topics), tab.splits.nodes)
	}
}

func TestTableWatchers(t *testing.T) {
	now := time.Now()
	limits := DefaultLimits()
	limits.Watchers = 2
	tab := NewTable(limits)
	_ = tab.Put(now, now, "t", rec("a", 1, time.Second), []byte{1})
	snapshot, w, err := tab.Watch(now, "p", "t")
	if err != nil || len(snapshot) != 1 {
		t.Fatalf("snapshot of %d, %v", len(snapshot), err)
	}
	_, slow, _ := tab.Watch(now, "q", "t")
	if _, _, err := tab.Watch(now, "r", "t"); !errors.Is(err, ErrWatchers) {
		t.Errorf("a third watcher: %v, want a refusal", err)
	}
	_ = tab.Put(now, now, "other", rec("a", 1, time.Second), []byte{1})
	_ = tab.Put(now, now, "t", rec("b", 1, time.Minute), []byte{1})
	_ = tab.Withdraw(now, "t", "b", 2)
	tab.Sweep(now.Add(time.Second))
	want := []string{"b false", "b true", "a true"}
	for _, w1 := range want {
		e := <-w.Events
		if got := fmt.Sprint(string(e.Held.Node()), " ", e.Gone); got != w1 {
			t.Errorf("event %q, want %q", got, w1)
		}
	}
	// A watcher that does not read is ended, and no other one.
	for i := range 2 * watchQueueDepth {
		_ = tab.Put(now, now, "t", rec("c", uint64(i+1), time.Minute), []byte{1})
		<-w.Events
	}
	n := 0
	for range slow.Events {
		n++
	}
	if n != watchQueueDepth {
		t.Errorf("the slow watcher got %d events, want %d and the end", n, watchQueueDepth)
	}
	tab.Unwatch(slow)
	tab.Unwatch(w)
	if _, ok := <-w.Events; ok || len(tab.watchers) != 0 {
		t.Errorf("%d watchers left", len(tab.watchers))
	}
}

// The node's own watchers are not counted, and of others' too many, one of the
// node with most is ended.
func TestWatchersOfOneNodeMakeRoom(t *testing.T) {
	now := time.Now()
	tab := NewTable(Limits{Total: 10, Topic: 10, Node: 10, Watchers: 4})
	watch := func(node peer.ID) *Watcher {
		t.Helper()
		_, w, err := tab.Watch(now, node, "t")
		if err != nil {
			t.Fatalf("a watcher of %q: %v", node, err)
		}
		return w
	}
	var own []*Watcher
	for range 10 {
		own = append(own, watch(""))
	}
	greedy := map[*Watcher]bool{}
	for range 4 {
		greedy[watch("greedy")] = true
	}
	if _, _, err := tab.Watch(now, "greedy", "t"); !errors.Is(err, ErrWatchers) {
		t.Errorf("a fifth of one node: %v, want ErrWatchers", err)
	}
	a, b := watch("a"), watch("a")
	if _, _, err := tab.Watch(now, "a", "t"); !errors.Is(err, ErrWatchers) {
		t.Errorf("a third, where each has two: %v, want ErrWatchers", err)
	}
	watch("c") // each had two
	cut := 0
	for w := range greedy {
		if w.Err != nil {
			cut++
			if _, open := <-w.Events; open || !errors.Is(w.Err, ErrWatchers) {
				t.Errorf("a watcher that made room: open %v, %v", open, w.Err)
			}
		}
	}
	for _, w := range append(own, a) {
		if w.Err != nil && w != a && w != b {
			t.Errorf("an own watcher was ended: %v", w.Err)
		}
	}
	if cut < 2 || len(tab.watchers)-tab.watching[""] != 4 {
		t.Errorf("%d watchers of the greedy one ended, %d left", cut, len(tab.watchers))
	}
	for w := range tab.watchers {
		tab.Unwatch(w)
	}
	if len(tab.watching) != 0 {
		t.Errorf("still counted: %v", tab.watching)
	}
}

// The indexes agree after any sequence of operations.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 251})
	f.Add([]byte("put put withdraw sweep put"))
	f.Fuzz(func(t *testing.T, script []byte) {
		tab := NewTable(Limits{Total: 8, Topic: 4, Node: 3, Watchers: 1})
		now := time.Unix(0, 0)
		for len(script) >= 4 {
			op, node, topic, seq := script[0], string(script[1]%6), Topic(script[2]%6+'a'), uint64(script[3]%16)
			script = script[4:]
			switch op % 5 {
			case 4:
				_ = tab.Copy(now, now, topic, "bringer", rec(node, seq, time.Duration(op)*time.Second), []byte{1})
			case 0, 1:
				_ = tab.Put(now, now, topic, rec(node, seq, time.Duration(op)*time.Second), []byte{1})
			case 2:
				_ = tab.Withdraw(now, topic, peer.ID(node), seq)
			case 3:
				now = now.Add(time.Duration(op) * time.Second / 4)
				tab.Sweep(now)
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
			owned := 0
			for id, o := range tab.owners.by {
				owned += o.records.Len()
				if tab.owners.heap[o.index] != o || o.records.Len() == 0 || o.records.Len() > tab.owners.heap[0].records.Len() {
					t.Fatalf("owner %s of %d records is misplaced", id, o.records.Len())
				}
			}
			if owned != len(tab.expiry) || len(tab.owners.heap) != len(tab.owners.by) {
				t.Fatalf("%d records by owner, %d in all", owned, len(tab.expiry))
			}
			for i, h := range tab.expiry {
				if h.index != i || tab.topics[h.Topic][h.Node()] != h || tab.nodes[h.Node()][h.Topic] != h {
					t.Fatalf("record %d is misplaced", i)
				}
			}
		}
	})
}
