package ledger_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/ledger"
)

// A lease keeps room for a client that another node sends; it becomes a session
// when the client comes.
func Example() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l := ledger.New("", ledger.Limits{Sessions: 2})
	view := capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 3_000_000, Packets: 300}

	// A client without a lease is admitted as long as there is room.
	if err := l.Admit(now, "session 1", view); err != nil {
		fmt.Println(err)
	}

	// A full node reserves the other place.
	other, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		fmt.Println(err)
	}
	lease, err := l.Reserve(now, capacity.Request{ID: "5f9c4ab08cac7457", From: other, Need: view})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("leased for %v\n", lease.Expires.Sub(now))

	// Nobody else gets it meanwhile.
	var refusal *capacity.Refusal
	if err := l.Admit(now, "session 2", view); errors.As(err, &refusal) {
		fmt.Printf("%s: %s\n", refusal.Reason, refusal.Detail)
	}

	// The client comes with its ticket, which names the lease.
	if _, err := l.Claim(now.Add(time.Second), other, lease.ID); err != nil {
		fmt.Println(err)
	}
	fmt.Println(l.Totals(now.Add(time.Second)).Sessions, "sessions")

	// Output:
	// leased for 10s
	// sessions: 2 of 2 sessions in use, 1 of them reserved
	// 2 sessions
}
