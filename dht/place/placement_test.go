package place

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// offers makes an offer of each letter, 20 ms away.
func offers(letters string) (list []holder.Offer) {
	for _, id := range ids(letters) {
		var o holder.Offer
		o.Record.Node, o.RTT = id, 20*ms
		list = append(list, o)
	}
	return list
}

// A target answers after a time: with a lease of that score, with a refusal, or
// with an invalid answer. The zero target hangs.
type target struct {
	after time.Duration
	score float64 // of its lease
	how   string  // "": a lease
}

// playing is a placement run on virtual time.
type playing struct {
	t        *testing.T
	p        *Placement
	targets  map[string]target
	searches []string // candidates that each search finds, by letter; every search takes 10 ms
	levels   []int    // at which they begin
	asked    string   // candidates, in order, separated by search
	overdue  string
	released []peer.ID
	now      time.Time
	events   []playedEvent
}

type playedEvent struct {
	at time.Time
	do func(now time.Time) Step
}

func (pl *playing) do(s Step) {
	pl.overdue += letters(s.Overdue)
	pl.released = append(pl.released, s.Release...)
	for _, o := range s.Reserve {
		id := o.Record.Node
		pl.asked += string(id)
		a := pl.targets[string(id)]
		if a.after == 0 {
			continue
		}
		pl.events = append(pl.events, playedEvent{pl.now.Add(a.after), func(now time.Time) Step {
			switch a.how {
			case "":
				return pl.p.Granted(now, id, a.score)
			case "fails":
				return pl.p.Failed(now, id, Unreachable, errors.New("connection reset"))
			}
			return pl.p.Refused(now, id, a.how, errors.New(a.how))
		}})
	}
	if s.Search != nil {
		pl.levels = append(pl.levels, s.Search.Level)
		if got, want := letters(s.Search.Exclude), letters(pl.p.Exclude)+strings.ReplaceAll(pl.asked, " ", ""); got != want {
			pl.t.Errorf("a search leaves out %q, want %q", got, want)
		}
		if pl.asked != "" {
			pl.asked += " "
		}
		found := ""
		if len(pl.searches) > 0 {
			found, pl.searches = pl.searches[0], pl.searches[1:]
		}
		pl.events = append(pl.events, playedEvent{pl.now.Add(10 * ms), func(now time.Time) Step {
			return pl.p.Found(now, offers(found), s.Search.Level+1)
		}})
	}
}

// run runs the placement to its end, and then delivers late answers.
func (pl *playing) run() (last Step, took time.Duration) {
	pl.t.Helper()
	pl.p.Patience = func(peer.ID) time.Duration { return 40 * ms }
	pl.now = start
	next := func(s Step) (playedEvent, bool) {
		e, at := playedEvent{s.Due, pl.p.Tick}, -1
		for i := range pl.events {
			if e.at.IsZero() || pl.events[i].at.Before(e.at) {
				e, at = pl.events[i], i
			}
		}
		if at >= 0 {
			pl.events = slices.Delete(pl.events, at, at+1)
		}
		return e, !e.at.IsZero()
	}
	step := pl.p.Start()
	for range 200 {
		pl.do(step)
		if step.Done {
			took = pl.now.Sub(start)
			for e, ok := next(Step{}); ok; e, ok = next(Step{}) {
				pl.do(e.do(e.at))
			}
			slices.Sort(pl.released)
			return step, took
		}
		e, ok := next(step)
		if !ok {
			pl.t.Fatalf("nothing is going to end the placement; asked %s", pl.asked)
		}
		pl.now = e.at
		step = e.do(pl.now)
	}
	pl.t.Fatalf("the placement does not end; asked %s", pl.asked)
	return step, took
}

func TestPlacement(t *testing.T) {
	for _, c := range []struct {
		name     string
		searches []string // the first takes 10 ms, as each does
		further  bool
		targets  map[string]target
		asked    string
		chosen   string
		refused  string
		took     time.Duration
		overdue  string
		released string
		levels   []int
	}{
		{
			name: "of two leases the better is taken, and the other given back", searches: []string{"abc"},
			targets: map[string]target{"a": {20 * ms, 0.5, ""}, "b": {25 * ms, 0.7, ""}},
			asked:   "ab", chosen: "b", took: 35 * ms, released: "a", levels: []int{0},
		},
		{
			name: "of equal ones that of the candidate asked first", searches: []string{"ab"},
			targets: map[string]target{"a": {25 * ms, 0.7, ""}, "b": {20 * ms, 0.7, ""}},
			asked:   "ab", chosen: "a", took: 35 * ms, released: "b", levels: []int{0},
		},
		{
			name: "a second lease is waited for as long again", searches: []string{"ab"},
			targets: map[string]target{"a": {20 * ms, 0.5, ""}, "b": {60 * ms, 0.7, ""}},
			asked:   "ab", chosen: "a", took: 50 * ms, released: "b", levels: []int{0},
		},
		{
			name: "one that hangs is told of its end, if it ever answers", searches: []string{"ab"},
			targets: map[string]target{"b": {20 * ms, 0.5, ""}},
			asked:   "ab", chosen: "b", took: 50 * ms, levels: []int{0},
		},
		{
			name: "a refusal calls for the next", searches: []string{"abcd"},
			targets: map[string]target{"a": {20 * ms, 0, "full"}, "b": {55 * ms, 0.9, ""}, "c": {20 * ms, 0.5, ""}},
			asked:   "abc", chosen: "b", took: 65 * ms, released: "c", levels: []int{0},
		},
		{
			name: "but not when there is a lease", searches: []string{"abcd"},
			targets: map[string]target{"a": {20 * ms, 0.5, ""}, "b": {21 * ms, 0, "full"}},
			asked:   "ab", chosen: "a", took: 31 * ms, levels: []int{0},
		},
		{
			name: "an answer that does not count is given back in case", searches: []string{"abc"},
			targets: map[string]target{"a": {20 * ms, 0, "fails"}, "b": {21 * ms, 0.5, ""}},
			asked:   "abc", chosen: "b", took: 52 * ms, released: "a", levels: []int{0},
		},
		{
			name: "those that are overdue get two rivals", searches: []string{"abcdef"},
			targets: map[string]target{"c": {20 * ms, 0.5, ""}, "d": {20 * ms, 0.6, ""}, "a": {75 * ms, 0.9, ""}},
			asked:   "abcd", chosen: "a", took: 115 * ms, overdue: "ab", released: "cd", levels: []int{0},
		},
		{
			name: "six refuse: so it is refused", searches: []string{"abcdef"},
			targets: map[string]target{
				"a": {20 * ms, 0, "full"}, "b": {20 * ms, 0, "full"}, "c": {20 * ms, 0, "draining"},
				"d": {20 * ms, 0, "full"}, "e": {20 * ms, 0, "fails"}, "f": {20 * ms, 0, "full"},
			},
			asked: "abcdef", refused: "full", took: 70 * ms, released: "e", levels: []int{0},
		},
		{
			name: "or looked for further away", searches: []string{"ab", "", "c", "d"}, further: true,
			targets: map[string]target{"a": {20 * ms, 0, "full"}, "b": {20 * ms, 0, "full"}, "c": {20 * ms, 0.5, ""}},
			asked:   "ab  c", chosen: "c", took: 70 * ms, levels: []int{0, 1, 2},
		},
		{
			name: "to the end of the world", searches: []string{"ab"}, further: true,
			targets: map[string]target{"a": {20 * ms, 0, "full"}, "b": {20 * ms, 0, "full"}},
			asked:   "ab   ", refused: "full", took: 60 * ms, levels: []int{0, 1, 2, 3},
		},
		{
			name: "once more near by, if none of them is alive", searches: []string{"ab", "", "", "", "c"}, further: true,
			targets: map[string]target{"a": {20 * ms, 0, "fails"}, "b": {20 * ms, 0, "fails"}, "c": {20 * ms, 0.5, ""}},
			asked:   "ab    c", chosen: "c", took: 90 * ms, released: "ab", levels: []int{0, 1, 2, 3, 0},
		},
		{
			name: "a lease that comes during a search ends it there", searches: []string{"ab", "c"}, further: true,
			targets: map[string]target{"a": {255 * ms, 0.4, ""}},
			asked:   "ab ", chosen: "a", took: 270 * ms, overdue: "ab", levels: []int{0, 1},
		},
		{
			name: "a refusal that comes during a search is no news of room", searches: []string{"ab", "", "c"}, further: true,
			targets: map[string]target{"a": {255 * ms, 0, "full"}, "c": {20 * ms, 0.3, ""}},
			asked:   "ab  c", chosen: "c", took: 320 * ms, overdue: "abb", levels: []int{0, 1, 2},
		},
		{
			name: "those that are slow are waited for, if there is nobody else", searches: []string{"ab"},
			targets: map[string]target{"b": {900 * ms, 0.5, ""}, "a": {902 * ms, 0, "full"}},
			asked:   "ab", chosen: "b", took: 912 * ms, overdue: "ab", levels: []int{0},
		},
		{
			name: "nobody is found", searches: []string{""}, further: true,
			took: 10 * ms, levels: []int{0},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			pl := &playing{t: t, p: &Placement{Further: c.further}, targets: c.targets, searches: c.searches}
			last, took := pl.run()
			refused := ""
			if last.Refusal != nil {
				refused = last.Refusal.Reason
			}
			if pl.asked != c.asked || string(last.Chosen) != c.chosen || refused != c.refused || took != c.took {
				t.Errorf("asked %q, chose %q, refused %q, in %v; want %q, %q, %q, %v", pl.asked, string(last.Chosen), refused, took, c.asked, c.chosen, c.refused, c.took)
			}
			if got := letters(pl.released); got != c.released || pl.overdue != c.overdue || !slices.Equal(pl.levels, c.levels) {
				t.Errorf("released %q, overdue %q, levels %v; want %q, %q, %v", got, pl.overdue, pl.levels, c.released, c.overdue, c.levels)
			}
		})
	}
}

// Every lease is either chosen or released, whatever the order of events, and
// no candidate is asked twice.
func TestPlacementKeepsOneLease(t *testing.T) {
	rnd := testRand()
	for i := range 2_000 {
		pl := &playing{t: t, p: &Placement{Further: rnd.IntN(2) == 0, Exclude: ids("x")}, targets: make(map[string]target)}
		all := "abcdefghijklmnop"
		for _, l := range all {
			a := target{after: time.Duration(1+rnd.IntN(400)) * ms, score: rnd.Float64()}
			switch rnd.IntN(5) {
			case 0:
				a.how = "full"
			case 1:
				a.how = "fails"
			case 2: // a hanging one is given up at some time
				a = target{after: time.Second, how: "fails"}
			}
			pl.targets[string(l)] = a
		}
		for range rnd.IntN(5) {
			from := rnd.IntN(len(all))
			pl.searches = append(pl.searches, all[from:min(len(all), from+rnd.IntN(5))])
		}
		last, _ := pl.run()
		asked := strings.ReplaceAll(pl.asked, " ", "")
		for _, l := range asked {
			id, a := string(l), pl.targets[string(l)]
			released := 0
			for _, p := range pl.released {
				if string(p) == id {
					released++
				}
			}
			want := 0
			if a.how != "full" && string(last.Chosen) != id {
				want = 1
			}
			if released != want || strings.Count(asked, id) != 1 {
				t.Fatalf("%d: %s, %+v: asked %d times, released %d times, want %d; asked %q, chosen %q", i, id, a, strings.Count(asked, id), released, want, pl.asked, string(last.Chosen))
			}
		}
		if last.Chosen != "" {
			if a := pl.targets[string(last.Chosen)]; a.how != "" {
				t.Fatalf("%d: %s is chosen, which %+v", i, string(last.Chosen), a)
			}
		}
	}
}

func TestAbandonGivesLeasesBack(t *testing.T) {
	p := &Placement{Patience: func(peer.ID) time.Duration { return 0 }}
	p.Start()
	p.Found(start, offers("ab"), 1)
	p.Granted(start, "a", 1)
	if s := p.Abandon(); !s.Done || letters(s.Release) != "a" {
		t.Errorf("%+v", s)
	}
	if s := p.Granted(start, "b", 1); letters(s.Release) != "b" || !s.Done {
		t.Errorf("a late lease: %+v", s)
	}
	if s := p.Abandon(); len(s.Release) > 0 || p.Pending() != 0 {
		t.Errorf("twice: %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		held     int
		rejected map[string]int
		want     string
	}{
		{0, nil, "no-candidates: no other node has a record in capacity"},
		{1, map[string]int{"self": 1}, "no-candidates: no other node has a record in capacity"},
		{9, map[string]int{"self": 1, "sessions": 5, "cpu": 3}, "sessions: no node fits: 5 of 9 fail on sessions"},
		{2, map[string]int{"url": 3, "cpu": 3}, "cpu: no node fits: 3 of 3 fail on cpu"},
	} {
		r := NoRoom(holder.CapacityTopic(), c.held, c.rejected)
		if got := fmt.Sprintf("%s: %s", r.Reason, r.Detail); got != c.want || r.RetryAfter != retryAfter {
			t.Errorf("%v of %d: %q, %v; want %q", c.rejected, c.held, got, r.RetryAfter, c.want)
		}
	}
}
