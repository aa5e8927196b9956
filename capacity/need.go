package capacity

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Purpose is what a resource is needed for.
type Purpose uint8

// The purposes of a need.
const (
	View    Purpose = iota // a WHEP session
	Publish                // a WHIP session
	Cascade                // a cascade pull of one stream by another node
)

// Need is what a seeker is looking for.
type Need struct {
	Purpose Purpose
	Stream  string
	Uplink  int64 // bit/s the target will send
	Packets int64 // packets/s the target will forward
	Region  string
}

// Request asks a target's ledger for a lease. The pair From, ID makes it
// idempotent.
type Request struct {
	ID   string // chosen by the seeker, at most 64 bytes
	From peer.ID
	Need Need
}

// Lease is a target's promise to admit one session or pull until Expires.
type Lease struct {
	ID      string    // the Request's
	Target  peer.ID   // who promises, and signs
	From    peer.ID   // to whom
	Need    Need      //
	Expires time.Time // target's clock
}

// Refusal is why a ledger, or a whole placement, said no. It is an error.
type Refusal struct {
	Reason     string        // a word: "sessions", "uplink", "draining", …
	Detail     string        // for people: "4 of 4 sessions in use"
	RetryAfter time.Duration // 0: do not
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return "refused: " + r.Reason
	}
	return "refused: " + r.Reason + ": " + r.Detail
}
