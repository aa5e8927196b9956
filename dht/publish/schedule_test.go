package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/pb"
)

// A play is a node's measurements over time, and its records with their times.
type play struct {
	start time.Time

	mu      sync.Mutex
	record  capacity.Record
	streams []capacity.StreamInfo
	log     []entry
}

type entry struct {
	at   time.Duration
	what string
}

func (p *play) sample() (capacity.Record, []capacity.StreamInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record, slices.Clone(p.streams)
}

// note records an entry that the holder received.
func (p *play) note(e *pb.Entry) {
	what := holder.Topic(e.Topic).Stream()
	if what == "" {
		what = "node"
	}
	if len(e.Sealed)+len(e.Update) > 0 {
		what = "+" + what
	} else {
		what = "-" + what
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, entry{time.Since(p.start), what})
}

// perform runs a publisher for d. Changes happen at their time; kick means that
// the node is notified of the change.
func perform(t *testing.T, d time.Duration, p *play, changes ...change) (log []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p.start = time.Now()
		h := newFakeHolder()
		h.note = p.note
		a := h.publisher(t, p.sample)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		for _, c := range changes {
			time.Sleep(c.at - time.Since(p.start))
			p.mu.Lock()
			c.do(p)
			p.mu.Unlock()
			if c.kick {
				a.Kick()
			}
			synctest.Wait()
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v, want the context's error", err)
		}
		synctest.Wait()
	})
	// Entries to a holder at the same time have no order of their own.
	slices.SortFunc(p.log, func(a, b entry) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.what, a.what)) })
	for _, e := range p.log {
		log = append(log, fmt.Sprintf("%s@%v", e.what, e.at))
	}
	return log
}

type change struct {
	at   time.Duration
	kick bool
	do   func(*play)
}

const ms = time.Millisecond

func carriage(name string) capacity.StreamInfo {
	return capacity.StreamInfo{Stream: name, Origin: true}
}

func TestAdvertiserPace(t *testing.T) {
	uplink := func(used int64) func(*play) { return func(p *play) { p.record.Uplink.Used = used } }
	base := capacity.Record{Uplink: capacity.Usage{Limit: 100}, Sessions: capacity.Usage{Limit: 10}}
	cases := []struct {
		name    string
		streams []capacity.StreamInfo
		d       time.Duration
		changes []change
		want    []string
	}{
		{
			name: "nothing changes: a keepalive every five seconds",
			d:    11 * time.Second,
			want: []string{"+node@0s", "+node@5s", "+node@10s"},
		},
		{
			name:    "five per cent of the limit are worth a record, four are not",
			d:       4 * time.Second,
			changes: []change{{at: 1100 * ms, do: uplink(4)}, {at: 2100 * ms, do: uplink(5)}},
			want:    []string{"+node@0s", "+node@2.25s"},
		},
		{
			name:    "small steps add up",
			d:       4 * time.Second,
			changes: []change{{at: 1100 * ms, do: uplink(3)}, {at: 2100 * ms, do: uplink(6)}},
			want:    []string{"+node@0s", "+node@2.25s"},
		},
		{
			name: "a keepalive counts from the last record",
			d:    8 * time.Second,
			changes: []change{{at: 2100 * ms, do: func(p *play) {
				p.record.State = capacity.Draining
			}}},
			want: []string{"+node@0s", "+node@2.25s", "+node@7.25s"},
		},
		{
			name: "records of a topic are half a second apart, however much moves",
			d:    2200 * ms,
			changes: []change{
				{at: 1010 * ms, kick: true, do: uplink(10)},
				{at: 1020 * ms, kick: true, do: uplink(20)},
				{at: 1300 * ms, kick: true, do: uplink(30)},
			},
			want: []string{"+node@0s", "+node@1.01s", "+node@1.75s"},
		},
		{
			name:    "a kick is not lost when it comes too early",
			d:       900 * ms,
			changes: []change{{at: 100 * ms, kick: true, do: func(*play) {}}},
			want:    []string{"+node@0s", "+node@500ms"},
		},
		{
			name: "a new stream is published at once, and a gone one withdrawn at once",
			d:    2 * time.Second,
			changes: []change{
				{at: 100 * ms, kick: true, do: func(p *play) { p.streams = append(p.streams, carriage("a")) }},
				{at: 200 * ms, kick: true, do: func(p *play) { p.streams = nil }},
			},
			want: []string{"+node@0s", "+a@100ms", "-a@200ms", "+node@500ms"},
		},
		{
			name:    "a stream's record follows the load at two seconds, its own changes at once",
			streams: []capacity.StreamInfo{carriage("a")},
			d:       3300 * ms,
			changes: []change{
				{at: 1100 * ms, do: uplink(50)},
				{at: 2600 * ms, do: func(p *play) { p.streams[0].Children = 1 }},
			},
			want: []string{"+node@0s", "+a@0s", "+node@1.25s", "+a@2s", "+a@2.75s"},
		},
		{
			name:    "the round trip to the parent is worth no record",
			streams: []capacity.StreamInfo{carriage("a")},
			d:       3 * time.Second,
			changes: []change{{at: 1 * time.Second, do: func(p *play) { p.streams[0].ParentRTT = time.Second }}},
			want:    []string{"+node@0s", "+a@0s"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &play{record: base, streams: c.streams}
			if got := perform(t, c.d, p, c.changes...); !slices.Equal(got, c.want) {
				t.Errorf("published %v\n      want %v", got, c.want)
			}
		})
	}
}
