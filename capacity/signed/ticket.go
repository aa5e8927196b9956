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

// MaxTicketSize bounds a ticket, in bytes of text, as it travels in a URL.
const MaxTicketSize = 1024

// SealTicket signs t with key, From's, and returns URL-safe text of at most
// MaxTicketSize bytes. The error wraps [capacity.ErrMalformed], [capacity.ErrForged] or
// [capacity.ErrTooLarge] as that of [SealRecord] does.
func SealTicket(t capacity.Ticket, key crypto.PrivKey) (string, error) {
	if err := t.Check(); err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	text, err := sealTicket(t, key)
	if errors.Is(err, capacity.ErrTooLarge) && len(t.Trace) > 0 {
		t.Trace = nil
		text, err = sealTicket(t, key)
	}
	if err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	return text, nil
}

func sealTicket(t capacity.Ticket, key crypto.PrivKey) (string, error) {
	sealed, err := seal(ticketKind, &pb.Ticket{
		Lease:       t.Lease,
		Stream:      t.Stream,
		Purpose:     pb.Purpose(t.Purpose),
		Target:      []byte(t.Target),
		From:        []byte(t.From),
		Source:      []byte(t.Source),
		SourceAddrs: addrsToBytes(t.SourceAddrs),
		Expires:     uint64(t.Expires.UnixMilli()),
		Trace:       boundedTrace(t.Trace),
	}, t.From, key, ticketText.DecodedLen(MaxTicketSize))
	if err != nil {
		return "", err
	}
	return ticketText.EncodeToString(sealed), nil
}

// boundedTrace is b, or nothing if it is longer than a trace is.
func boundedTrace(b []byte) []byte {
	if len(b) == 0 || len(b) > tracing.MaxWire {
		return nil
	}
	return b
}

var ticketText = base64.RawURLEncoding.Strict()

// OpenTicket checks s and returns the ticket inside it. self is the node it was
// shown to. A ticket can be shown more than once; [ledger.Ledger.Claim] takes its
// lease only once.
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed], [capacity.ErrForged] if From did not
// sign it, [capacity.ErrWrongTarget] if it is meant for another node, [capacity.ErrExpired] if it
// ran out more than MaxClockSkew before now, or [capacity.ErrFromFuture] if it is good
// for longer than a ticket may be.
func OpenTicket(s string, self peer.ID, now time.Time) (capacity.Ticket, error) {
	t, err := openTicket(s, self, now)
	if err != nil {
		return capacity.Ticket{}, fmt.Errorf("open ticket: %w", err)
	}
	return t, nil
}

func openTicket(s string, self peer.ID, now time.Time) (capacity.Ticket, error) {
	if len(s) > MaxTicketSize {
		return capacity.Ticket{}, fmt.Errorf("%w: %d bytes, at most %d", capacity.ErrTooLarge, len(s), MaxTicketSize)
	}
	sealed, err := ticketText.DecodeString(s)
	if err != nil {
		return capacity.Ticket{}, fmt.Errorf("%w: %w", capacity.ErrMalformed, err)
	}
	var m pb.Ticket
	signer, err := open(ticketKind, sealed, &m, MaxTicketSize)
	if err != nil {
		return capacity.Ticket{}, err
	}
	if len(m.SourceAddrs) > capacity.MaxAddrs {
		return capacity.Ticket{}, capacity.Malformed("source_addrs", "%d addresses, at most %d", len(m.SourceAddrs), capacity.MaxAddrs)
	}
	t := capacity.Ticket{Lease: m.Lease, Stream: m.Stream, Trace: boundedTrace(m.Trace)}
	if t.Purpose, err = purposeFromProto(m.Purpose); err != nil {
		return capacity.Ticket{}, err
	}
	if t.Target, err = idFromBytes("target", m.Target); err != nil {
		return capacity.Ticket{}, err
	}
	if t.From, err = idFromBytes("from", m.From); err != nil {
		return capacity.Ticket{}, err
	}
	if len(m.Source) > 0 {
		if t.Source, err = idFromBytes("source", m.Source); err != nil {
			return capacity.Ticket{}, err
		}
	}
	if t.SourceAddrs, err = addrsFromBytes("source_addrs", m.SourceAddrs); err != nil {
		return capacity.Ticket{}, err
	}
	if t.Expires, err = timeFromProto("expires", m.Expires); err != nil {
		return capacity.Ticket{}, err
	}
	if err := t.Check(); err != nil {
		return capacity.Ticket{}, err
	}
	if signer != t.From {
		return capacity.Ticket{}, fmt.Errorf("%w: names %s, signed by %s", capacity.ErrForged, t.From, signer)
	}
	if t.Target != self {
		return capacity.Ticket{}, fmt.Errorf("%w: %s", capacity.ErrWrongTarget, t.Target)
	}
	return t, checkExpiry(t.Expires, now, capacity.TicketTime)
}
