package inspect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

var errBusy = errors.New("busy")

// A fakeHolder sends its records at once, and then the events from more, until
// that is closed; a hanging one sends nothing.
type fakeHolder struct {
	held  []capacity.Record
	more  chan Event
	err   error // at once
	hangs bool
}

func newReader(holders map[peer.ID]*fakeHolder, remote ...peer.ID) *Reader {
	return &Reader{
		Self:    "self",
		Topics:  func(_ context.Context, t holder.Topic) []holder.Topic { return []holder.Topic{t} },
		Holders: func(holder.Topic) (bool, []peer.ID) { return false, remote },
		Remote: func(ctx context.Context, p peer.ID, _ holder.Topic, emit func(Event) bool) error {
			h := holders[p]
			if h.err != nil {
				return h.err
			}
			if h.hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			for _, r := range h.held {
				if !emit(Event{Change: Change{Record: r, Node: r.Node, Sealed: []byte{1}}}) {
					return nil
				}
			}
			if !emit(Event{Change: Change{Synced: true}}) {
				return nil
			}
			for {
				select {
				case e, ok := <-h.more:
					if !ok {
						return errors.New("ended")
					}
					emit(e)
				case <-ctx.Done():
					return nil
				}
			}
		},
		Ignore: func(peer.ID) bool { return false },
		Busy:   errBusy,
		Why:    error.Error,
		Log:    slog.New(slog.DiscardHandler),
	}
}

func held(node peer.ID, seq uint64) capacity.Record {
	return capacity.Record{Node: node, Seq: seq, TTL: 15 * time.Second}
}

// A reading names its sources: the holders that answered within a second, those
// that did not, and why.
func TestReadSaysWhoWasHeard(t *testing.T) {
	for name, c := range map[string]struct {
		holders map[peer.ID]*fakeHolder
		records int
		heard   int
		took    time.Duration
		err     error // if there is no record
	}{
		"all answer":                {map[peer.ID]*fakeHolder{"a": {held: []capacity.Record{held("n", 1)}}, "b": {held: []capacity.Record{held("n", 1), held("m", 4)}}}, 3, 2, 0, nil},
		"one hangs":                 {map[peer.ID]*fakeHolder{"a": {held: []capacity.Record{held("n", 1)}}, "b": {hangs: true}}, 1, 1, syncedAfter, nil},
		"one has no place":          {map[peer.ID]*fakeHolder{"a": {held: []capacity.Record{held("n", 1)}}, "b": {err: errBusy}}, 1, 1, 0, nil},
		"nobody has any":            {map[peer.ID]*fakeHolder{"a": {}, "b": {}}, 0, 2, 0, nil},
		"nobody has a place":        {map[peer.ID]*fakeHolder{"a": {err: errBusy}, "b": {err: errBusy}}, 0, 0, 0, errBusy},
		"older copies are shown":    {map[peer.ID]*fakeHolder{"a": {held: []capacity.Record{held("n", 9)}}, "b": {held: []capacity.Record{held("n", 1)}}}, 2, 2, 0, nil},
		"one record, two holders":   {map[peer.ID]*fakeHolder{"a": {held: []capacity.Record{held("n", 9)}}, "b": {held: []capacity.Record{held("n", 9)}}}, 2, 2, 0, nil},
		"an empty one and a hanged": {map[peer.ID]*fakeHolder{"a": {}, "b": {hangs: true}}, 0, 1, syncedAfter, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				list, heard, err := newReader(c.holders, "a", "b").Read(t.Context(), holder.StreamTopic("s"))
				took := time.Since(start)
				if len(list) != c.records || heard.Heard != c.heard || len(heard.Silent) != 2-c.heard || took < c.took || took > c.took+250*time.Millisecond {
					t.Errorf("%d records, heard %+v, after %v", len(list), heard, took)
				}
				if c.err != nil && !errors.Is(err, c.err) || c.records > 0 && err != nil {
					t.Errorf("error %v, want %v", err, c.err)
				}
			})
		})
	}
}

// A watch goes on with other holders when one ends, and reports a node as gone
// only when no watched holder has its record any more, or when that has
// expired.
func TestWatchOutlivesHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeHolder{held: []capacity.Record{held("n", 1), held("m", 1)}, more: make(chan Event)}
		b := &fakeHolder{held: []capacity.Record{held("n", 1)}, more: make(chan Event)}
		r := newReader(map[peer.ID]*fakeHolder{"a": a, "b": b}, "a", "b")
		var told []string
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- r.Watch(ctx, holder.StreamTopic("s"), func(c Change) error {
				if c.Gone {
					told = append(told, fmt.Sprintf("%s gone after %v", string(c.Node), time.Since(start).Round(time.Second)))
				}
				return nil
			})
		}()
		time.Sleep(2 * time.Second)
		b.more <- Event{Change: Change{Gone: true, Node: "n"}} // a has it still
		time.Sleep(time.Second)
		a.more <- Event{Change: Change{Gone: true, Node: "n"}}
		time.Sleep(time.Second)
		a.err = errors.New("down") // it does not come back
		close(a.more)
		time.Sleep(20 * time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v", err)
		}
		if want := []string{"n gone after 3s", "m gone after 15s"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
