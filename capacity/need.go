package capacity

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// LeaseTime is how long a lease promises room.
	LeaseTime = 10 * time.Second
	// TicketTime bounds a ticket's life: its bearer follows a redirect at once.
	TicketTime = 60 * time.Second
)

// Purpose is the use that a resource is needed for.
type Purpose uint8

// The purposes of a need.
const (
	View    Purpose = iota // a WHEP session
	Publish                // a WHIP session
	Cascade                // a cascade pull of one stream by another node
)

// Need is a seeker's demand.
type Need struct {
	Purpose Purpose `json:"purpose"`
	Stream  string  `json:"stream"`
	Uplink  int64   `json:"uplink"`  // bit/s that the target will send
	Packets int64   `json:"packets"` // packets/s that the target will forward
	Region  string  `json:"region"`  // preferred; "": any
}

// Request asks a target's ledger for a lease. The pair From, ID makes it
// idempotent. IDs must be unguessable (128 random bits suffice): a client that
// knows one can use its lease.
type Request struct {
	ID   string // chosen by the seeker: 1 to 64 bytes of printable ASCII
	From peer.ID
	Need Need
}

// Lease is a target's promise to admit one session or pull until Expires.
type Lease struct {
	ID      string    `json:"id"`               // the Request's
	Target  peer.ID   `json:"target,omitempty"` // the node that promises, and signs
	From    peer.ID   `json:"from,omitempty"`   // the node that it is given to
	Need    Need      `json:"need"`             //
	Expires time.Time `json:"expires"`          // target's clock
}

// Ticket is given by a redirecting node to a viewer or publisher, to show at
// the target.
type Ticket struct {
	Lease       string                // the lease's ID
	Stream      string                //
	Purpose     Purpose               // View or Publish
	Target      peer.ID               // the node to show it to
	From        peer.ID               // the node that redirected, holds the lease, and signs
	Source      peer.ID               // the node to pull the stream from; empty for Publish, and if the target is to find it by itself
	SourceAddrs []multiaddr.Multiaddr // the source's, without /p2p; at most MaxAddrs
	Expires     time.Time             // From's clock; at most TicketTime ahead
	Trace       []byte                // of the redirected request; see [weir/capacity/tracing]. Of any length, empty for none: left out if there is no room for it
}

// Refusal is the reason why a ledger, or a whole placement, refused. It is an
// error.
type Refusal struct {
	Reason     string        // a word: "sessions", "uplink", "draining", …
	Detail     string        // for people: "4 of 4 sessions in use"
	RetryAfter time.Duration // 0: do not retry
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return "refused: " + r.Reason
	}
	return "refused: " + r.Reason + ": " + r.Detail
}

// Check returns nil if the request can be granted at all; else its error wraps
// [ErrMalformed] and names the field.
func (r *Request) Check() error {
	if err := checkRequestID(r.ID); err != nil {
		return Malformed("id", "%w", err)
	}
	if err := checkID("from", r.From); err != nil {
		return err
	}
	return r.Need.Check()
}

// Check returns nil if every field is within its bounds; else its error wraps
// [ErrMalformed] and names the field.
func (l *Lease) Check() error {
	if err := checkRequestID(l.ID); err != nil {
		return Malformed("id", "%w", err)
	}
	if err := checkID("target", l.Target); err != nil {
		return err
	}
	if err := checkID("from", l.From); err != nil {
		return err
	}
	if err := l.Need.Check(); err != nil {
		return err
	}
	return CheckTime("expires", l.Expires)
}

// Check returns nil if every field is within its bounds; else its error wraps
// [ErrMalformed] and names the field.
func (n *Need) Check() error {
	if n.Purpose > Cascade {
		return Malformed("purpose", "%d is unknown", n.Purpose)
	}
	if n.Stream != "" {
		if err := ValidStreamName(n.Stream); err != nil {
			return Malformed("stream", "%w", err)
		}
	}
	if n.Uplink < 0 || n.Uplink > maxNeed {
		return Malformed("uplink", "%d bit/s is not within 0…%d", n.Uplink, int64(maxNeed))
	}
	if n.Packets < 0 || n.Packets > maxNeed {
		return Malformed("packets", "%d/s is not within 0…%d", n.Packets, int64(maxNeed))
	}
	if err := CheckLabel(n.Region, MaxLabel); err != nil {
		return Malformed("region", "%w", err)
	}
	return nil
}

// checkRequestID accepts printable ASCII without spaces.
func checkRequestID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%d bytes, want 1…%d", len(id), maxID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%q contains %q", id, c)
		}
	}
	return nil
}

// Check returns nil if every field is within its bounds; else its error wraps
// [ErrMalformed] and names the field. Target and Expires are checked by the
// node that it is shown to.
func (t *Ticket) Check() error {
	if err := checkRequestID(t.Lease); err != nil {
		return Malformed("lease", "%w", err)
	}
	if err := ValidStreamName(t.Stream); err != nil {
		return Malformed("stream", "%w", err)
	}
	if t.Purpose != View && t.Purpose != Publish {
		return Malformed("purpose", "%s is not for tickets", t.Purpose)
	}
	if err := checkID("target", t.Target); err != nil {
		return err
	}
	if err := checkID("from", t.From); err != nil {
		return err
	}
	if t.Purpose == Publish && (t.Source != "" || len(t.SourceAddrs) > 0) {
		return Malformed("source", "a publisher has none")
	}
	if t.Source != "" {
		if err := checkID("source", t.Source); err != nil {
			return err
		}
	}
	if err := checkAddrs("source_addrs", t.SourceAddrs); err != nil {
		return err
	}
	return CheckTime("expires", t.Expires)
}
