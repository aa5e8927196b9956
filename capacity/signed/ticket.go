package signed

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
	"weir/capacity/tracing"
)

// MaxTicketSize bounds a ticket's text in a URL, and maxTicketBytes the bytes
// that it encodes; both in bytes.
const (
	MaxTicketSize  = 1024
	maxTicketBytes = MaxTicketSize / 4 * 3
)

var ticketText = base64.RawURLEncoding.Strict()

// SealTicket signs t with key, From's, and returns URL-safe text of at most
// MaxTicketSize bytes. A trace is left out if there is no room for it. The
// error wraps [capacity.ErrMalformed], [capacity.ErrForged] or
// [capacity.ErrTooLarge] as that of [SealRecord] does.
func SealTicket(t capacity.Ticket, key crypto.PrivKey) (string, error) {
	sealed, err := ticketKind.seal(&t, key)
	if errors.Is(err, capacity.ErrTooLarge) && len(t.Trace) > 0 {
		t.Trace = nil
		sealed, err = ticketKind.seal(&t, key)
	}
	return ticketText.EncodeToString(sealed), err
}

// OpenTicket checks s and returns the ticket inside it. self is the node it was
// shown to. A ticket can be shown more than once; the ledger's Claim takes its
// lease only once.
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed],
// [capacity.ErrForged] if From did not sign it, [capacity.ErrWrongTarget] if it
// is for another node, [capacity.ErrExpired] if it expired more than
// MaxClockSkew before now, or [capacity.ErrFromFuture] if its life is longer
// than TicketTime.
func OpenTicket(s string, self peer.ID, now time.Time) (capacity.Ticket, error) {
	t, err := openTicket(s)
	if err == nil && t.Target != self {
		err = fmt.Errorf("open ticket: %w: %s", capacity.ErrWrongTarget, t.Target)
	}
	if err != nil {
		return capacity.Ticket{}, err
	}
	if err := checkExpiry(t.Expires, now, capacity.TicketTime); err != nil {
		return capacity.Ticket{}, fmt.Errorf("open ticket: %w", err)
	}
	return t, nil
}

func openTicket(s string) (capacity.Ticket, error) {
	if len(s) > MaxTicketSize {
		return capacity.Ticket{}, fmt.Errorf("open ticket: %w: %d bytes, at most %d", capacity.ErrTooLarge, len(s), MaxTicketSize)
	}
	sealed, err := ticketText.DecodeString(s)
	if err != nil {
		return capacity.Ticket{}, fmt.Errorf("open ticket: %w: %w", capacity.ErrMalformed, err)
	}
	return ticketKind.open(sealed)
}

func ticketToProto(t *capacity.Ticket) *pb.Ticket {
	return &pb.Ticket{
		Lease:       t.Lease,
		Stream:      t.Stream,
		Purpose:     pb.Purpose(t.Purpose),
		Target:      []byte(t.Target),
		From:        []byte(t.From),
		Source:      []byte(t.Source),
		SourceAddrs: addrsToBytes(t.SourceAddrs),
		Expires:     uint64(t.Expires.UnixMilli()),
		Trace:       boundedTrace(t.Trace),
	}
}

func ticketFromProto(m *pb.Ticket, _ peer.ID) (*capacity.Ticket, error) {
	t := &capacity.Ticket{
		Lease: m.Lease, Stream: m.Stream, Purpose: named[capacity.Purpose](m.Purpose),
		Expires: timeOf(m.Expires), Trace: boundedTrace(m.Trace),
	}
	for _, id := range []struct {
		field string
		to    *peer.ID
		b     []byte
	}{{"target", &t.Target, m.Target}, {"from", &t.From, m.From}, {"source", &t.Source, m.Source}} {
		var err error
		if *id.to, err = peerOf(id.field, id.b); err != nil {
			return nil, err
		}
	}
	var err error
	t.SourceAddrs, err = addrsFromBytes("source_addrs", m.SourceAddrs)
	return t, err
}

// boundedTrace is b, or nothing if it is longer than a trace can be.
func boundedTrace(b []byte) []byte {
	if len(b) == 0 || len(b) > tracing.MaxWire {
		return nil
	}
	return b
}
