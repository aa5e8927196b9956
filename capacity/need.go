package capacity

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// LeaseTime is how long a lease promises room.
	LeaseTime = 10 * time.Second
	// TicketTime is the longest a ticket may be good for: its bearer follows
	// a redirect at once.
	TicketTime = 60 * time.Second
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
	Purpose Purpose `json:"purpose"`
	Stream  string  `json:"stream"`
	Uplink  int64   `json:"uplink"`  // bit/s the target will send
	Packets int64   `json:"packets"` // packets/s the target will forward
	Region  string  `json:"region"`  // the one preferred; "": any
}

// Request asks a target's ledger for a lease. The pair From, ID makes it
// idempotent. IDs must be unguessable (128 random bits will do): whoever knows
// one can show up in its place.
type Request struct {
	ID   string // chosen by the seeker: 1 to 64 bytes of printable ASCII
	From peer.ID
	Need Need
}

// Lease is a target's promise to admit one session or pull until Expires.
type Lease struct {
	ID      string    `json:"id"`               // the Request's
	Target  peer.ID   `json:"target,omitempty"` // who promises, and signs
	From    peer.ID   `json:"from,omitempty"`   // to whom
	Need    Need      `json:"need"`             //
	Expires time.Time `json:"expires"`          // target's clock
}

// Ticket is what a redirecting node gives a viewer or publisher to show at the
// node it is sent to.
type Ticket struct {
	Lease       string                // the lease's ID
	Stream      string                //
	Purpose     Purpose               // View or Publish
	Target      peer.ID               // whom it is to be shown to
	From        peer.ID               // who redirected, holds the lease, and signs
	Source      peer.ID               // whom to pull the stream from; empty for Publish, and where the target is to find it by itself
	SourceAddrs []multiaddr.Multiaddr // the source's, without /p2p; at most MaxAddrs
	Expires     time.Time             // From's clock; at most TicketTime ahead
	Trace       []byte                // of the request that was redirected; see [weir/capacity/tracing]. Of any length, empty for none: left out if there is no room for it
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
