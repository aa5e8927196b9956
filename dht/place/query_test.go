package place

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var start = time.Unix(1_800_000_000, 0)

const ms = time.Millisecond

// ids makes a peer of each letter.
func ids(letters string) (list []peer.ID) {
	for _, l := range letters {
		list = append(list, peer.ID(l))
	}
	return list
}

func letters(list []peer.ID) string {
	var b strings.Builder
	for _, p := range list {
		b.WriteString(string(p))
	}
	return b.String()
}

// An answering is a holder's behaviour: it answers after a time, with a record
// or nothing, or fails. The zero answering hangs.
type answering struct {
	after time.Duration
	how   string // found, empty or fails
}

// run plays q against holders; after a time other than 0, another query finds
// something. It returns the holders asked, and when the query ended.
func run(t *testing.T, q *Query, holders map[string]answering, elsewhere time.Duration) (asked string, took time.Duration, overdue string) {
	t.Helper()
	q.Patience = func(peer.ID) time.Duration { return 50 * ms }
	type event struct {
		at time.Time
		do func(now time.Time) QueryStep
	}
	var events []event
	if elsewhere > 0 {
		events = append(events, event{start.Add(elsewhere), func(time.Time) QueryStep { return q.FoundElsewhere() }})
	}
	now, found := start, false
	step := q.Start(now)
	for range 100 {
		overdue += letters(step.Overdue)
		asked += letters(step.Ask)
		for _, p := range step.Ask {
			a := holders[string(p)]
			if a.after == 0 {
				continue
			}
			events = append(events, event{now.Add(a.after), func(now time.Time) QueryStep {
				if a.how == "fails" {
					return q.Failed(p)
				}
				found = found || a.how == "found"
				return q.Answered(now, p, found)
			}})
		}
		if step.Done {
			return asked, now.Sub(start), overdue
		}
		next := event{step.Due, q.Tick}
		at := -1
		for i, e := range events {
			if next.at.IsZero() || e.at.Before(next.at) {
				next, at = e, i
			}
		}
		if next.at.IsZero() {
			t.Fatalf("nothing is going to end the query; asked %s", asked)
		}
		if at >= 0 {
			events = slices.Delete(events, at, at+1)
		}
		now = next.at
		step = next.do(now)
	}
	t.Fatalf("the query does not end; asked %s", asked)
	return
}

func TestQuery(t *testing.T) {
	for _, c := range []struct {
		name      string
		q         Query
		holders   map[string]answering
		elsewhere time.Duration
		asked     string
		took      time.Duration
		overdue   string
	}{
		{
			name:    "two are asked, and both answer",
			holders: map[string]answering{"a": {10 * ms, "found"}, "b": {15 * ms, "found"}},
			asked:   "ab", took: 15 * ms,
		},
		{
			name:    "a second answer is waited for as long again as the first took",
			holders: map[string]answering{"a": {10 * ms, "found"}, "b": {45 * ms, "found"}},
			asked:   "ab", took: 20 * ms,
		},
		{
			name:    "but 30 ms at most",
			holders: map[string]answering{"a": {40 * ms, "found"}},
			asked:   "abcd", took: 70 * ms, overdue: "b",
		},
		{
			name:    "and 5 ms at least",
			holders: map[string]answering{"a": {1 * ms, "found"}, "b": {5 * ms, "found"}},
			asked:   "ab", took: 5 * ms,
		},
		{
			name:    "one that fails has a successor",
			holders: map[string]answering{"a": {5 * ms, "fails"}, "b": {20 * ms, "found"}, "c": {10 * ms, "found"}},
			asked:   "abc", took: 20 * ms,
		},
		{
			name:    "those that are overdue get rivals",
			holders: map[string]answering{"c": {10 * ms, "found"}, "d": {12 * ms, "found"}},
			asked:   "abcd", took: 62 * ms, overdue: "ab",
		},
		{
			name:    "an overdue answer counts",
			holders: map[string]answering{"a": {55 * ms, "found"}, "c": {6 * ms, "found"}},
			asked:   "abcd", took: 56 * ms, overdue: "ab",
		},
		{
			name:    "all fail",
			q:       Query{Holders: ids("abc")},
			holders: map[string]answering{"a": {5 * ms, "fails"}, "b": {6 * ms, "fails"}, "c": {7 * ms, "fails"}},
			asked:   "abc", took: 12 * ms,
		},
		{
			name:    "the first that knows of nothing has a second opinion",
			q:       Query{Lacking: 2},
			holders: map[string]answering{"a": {5 * ms, "empty"}, "b": {20 * ms, "empty"}, "c": {30 * ms, "found"}},
			asked:   "abc", took: 35 * ms,
		},
		{
			name:    "three say that there is nothing",
			q:       Query{Lacking: 2},
			holders: map[string]answering{"a": {5 * ms, "empty"}, "b": {6 * ms, "empty"}, "c": {7 * ms, "empty"}},
			asked:   "abc", took: 12 * ms,
		},
		{
			name:    "a stream is not there if a majority says so",
			q:       Query{Lacking: 5},
			holders: map[string]answering{"a": {5 * ms, "empty"}, "b": {6 * ms, "empty"}, "c": {7 * ms, "empty"}, "d": {8 * ms, "empty"}, "e": {9 * ms, "empty"}},
			asked:   "abcde", took: 14 * ms,
		},
		{
			name:    "of which all are asked as long as too few answer",
			q:       Query{Lacking: 5},
			holders: map[string]answering{"a": {5 * ms, "empty"}, "b": {6 * ms, "empty"}, "c": {7 * ms, "empty"}, "h": {10 * ms, "found"}},
			asked:   "abcdefgh", took: 110 * ms, overdue: "dedefg",
		},
		{
			name:    "where there are others to turn to, four are asked, and none is waited for",
			q:       Query{Near: true},
			holders: map[string]answering{},
			asked:   "abcd", took: 100 * ms, overdue: "ababcd",
		},
		{
			name:    "of several shards one holder each will do",
			q:       Query{Near: true, First: 1},
			holders: map[string]answering{"a": {10 * ms, "found"}},
			asked:   "a", took: 10 * ms,
		},
		{
			name:      "one that is overdue is not waited for when another shard has answered",
			q:         Query{Near: true, First: 1},
			holders:   map[string]answering{"a": {80 * ms, "found"}},
			elsewhere: 20 * ms,
			asked:     "a", took: 50 * ms, overdue: "a",
		},
		{
			name:      "nor when it answers after all",
			q:         Query{Near: true, First: 1},
			holders:   map[string]answering{},
			elsewhere: 60 * ms,
			asked:     "abc", took: 60 * ms, overdue: "a",
		},
		{
			name:      "nor is a second opinion asked for",
			q:         Query{Near: true, First: 1, Lacking: 2},
			holders:   map[string]answering{"a": {30 * ms, "empty"}},
			elsewhere: 20 * ms,
			asked:     "a", took: 30 * ms,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.q.Holders == nil {
				c.q.Holders = ids("abcdefghijkl")
			}
			asked, took, overdue := run(t, &c.q, c.holders, c.elsewhere)
			if asked != c.asked || took != c.took || overdue != c.overdue {
				t.Errorf("asked %s in %v, of which %q were overdue; want %s in %v and %q", asked, took, overdue, c.asked, c.took, c.overdue)
			}
		})
	}
}

func TestQueryOfNobodyIsDone(t *testing.T) {
	q := Query{Patience: func(peer.ID) time.Duration { return 0 }}
	if s := q.Start(start); !s.Done || len(s.Ask) > 0 {
		t.Errorf("%+v", s)
	}
}

// An answer after the end, twice or from a foreign peer changes nothing.
func TestQueryIsDeafToStrangers(t *testing.T) {
	q := Query{Holders: ids("ab"), Patience: func(peer.ID) time.Duration { return 0 }}
	q.Start(start)
	if s := q.Answered(start, "x", true); s.Done || q.Pending() != 2 {
		t.Errorf("the word of a stranger counts: %+v", s)
	}
	q.Answered(start, "a", true)
	q.Answered(start, "a", true)
	if q.Pending() != 1 {
		t.Errorf("%d pending after the same answer twice", q.Pending())
	}
	if s := q.Tick(start.Add(time.Hour)); !s.Done {
		t.Errorf("%+v", s)
	}
	if s := q.Failed("b"); !s.Done || len(s.Ask) > 0 {
		t.Errorf("after its end: %+v", s)
	}
}

func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name      string
		rtt       time.Duration
		connected bool
		want      time.Duration
	}{
		{"half as long again", 40 * ms, true, 60 * ms},
		{"a handshake comes first", 40 * ms, false, 160 * ms},
		{"those far away are not waited for longer", time.Second, true, patienceMost},
		{"unknown", 0, true, 0},
	} {
		if got := Patience(c.rtt, c.connected); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := LeasePatience(0, 0); got != reserveLeast {
		t.Errorf("a candidate nothing is known of has %v", got)
	}
	if got := LeasePatience(0, time.Second); got != 2*patienceMost {
		t.Errorf("a candidate said to be a second away has %v", got)
	}
}

func TestLeaseGrace(t *testing.T) {
	for _, c := range []struct{ first, slowest, want time.Duration }{
		{1 * ms, 1 * ms, graceLeast},
		{10 * ms, 12 * ms, 10 * ms},
		{10 * ms, 20 * ms, 15 * ms},
		{10 * ms, 200 * ms, GraceMost},
	} {
		if got := LeaseGrace(c.first, c.slowest); got != c.want {
			t.Errorf("first %v, furthest %v: %v, want %v", c.first, c.slowest, got, c.want)
		}
	}
}
