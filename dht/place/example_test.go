package place_test

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/place"
)

func names(ids []peer.ID) (list []string) {
	for _, id := range ids {
		list = append(list, string(id))
	}
	return list
}

// A query is a state machine: its caller carries out what each step asks for,
// and passes in what happens, with the time.
func ExampleQuery() {
	q := place.Query{
		Holders:  []peer.ID{"A", "B", "C"},
		Patience: func(peer.ID) time.Duration { return 50 * time.Millisecond },
		Lacking:  2,
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	show := func(event string, s place.QueryStep) {
		fmt.Printf("%s: ask %s, overdue %s, done %v\n", event, names(s.Ask), names(s.Overdue), s.Done)
	}

	step := q.Start(now)
	show("start", step)

	now = step.Due // neither A nor B has answered by then
	show("tick", q.Tick(now))

	now = now.Add(20 * time.Millisecond)
	show("B fails", q.Failed("B"))
	step = q.Answered(now, "C", true)
	show("C answers", step)

	now = step.Due // a moment for a second answer
	show("tick", q.Tick(now))

	// Output:
	// start: ask [A B], overdue [], done false
	// tick: ask [C], overdue [A B], done false
	// B fails: ask [], overdue [], done false
	// C answers: ask [], overdue [], done false
	// tick: ask [], overdue [], done true
}
