package capacity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity/pb"
	"weir/capacity/tracing"
)

const (
	// LeaseTime is how long a lease promises room.
	LeaseTime = 10 * time.Second
	// TicketTime is the longest a ticket may be good for: its bearer follows
	// a redirect at once.
	TicketTime = 60 * time.Second
	// MaxTicketSize bounds a ticket, in bytes of text, as it travels in a URL.
	MaxTicketSize = 1024

	maxLeaseSize = 1024
)

// SealLease signs l with key, the target's, and returns a libp2p signed
// envelope. The error wraps [ErrMalformed], [ErrForged] or [ErrTooLarge] as
// that of [Seal] does.
func SealLease(l Lease, key crypto.PrivKey) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("seal lease: %w", err)
	}
	sealed, err := seal(leaseKind, &pb.Lease{
		Id:     l.ID,
		Target: []byte(l.Target),
		From:   []byte(l.From),
		Need: &pb.Need{
			Purpose: pb.Purpose(l.Need.Purpose),
			Stream:  l.Need.Stream,
			Uplink:  uint64(l.Need.Uplink),
			Packets: uint64(l.Need.Packets),
			Region:  l.Need.Region,
		},
		Expires: uint64(l.Expires.UnixMilli()),
	}, l.Target, key, maxLeaseSize)
	if err != nil {
		return nil, fmt.Errorf("seal lease: %w", err)
	}
	return sealed, nil
}

// OpenLease checks sealed and returns the lease inside it. Whether it answers
// our request (Target, From, ID, Need) is for the caller to compare.
//
// The error wraps [ErrTooLarge], [ErrMalformed], [ErrForged] if the target did
// not sign it, [ErrExpired] if it ran out more than MaxClockSkew before now, or
// [ErrFromFuture] if it ends later than a lease given now could.
func OpenLease(sealed []byte, now time.Time) (Lease, error) {
	l, err := openLease(sealed, now)
	if err != nil {
		return Lease{}, fmt.Errorf("open lease: %w", err)
	}
	return l, nil
}

func openLease(sealed []byte, now time.Time) (Lease, error) {
	var m pb.Lease
	signer, err := open(leaseKind, sealed, &m, maxLeaseSize)
	if err != nil {
		return Lease{}, err
	}
	l := Lease{ID: m.Id}
	if l.Target, err = idFromBytes("target", m.Target); err != nil {
		return Lease{}, err
	}
	if l.From, err = idFromBytes("from", m.From); err != nil {
		return Lease{}, err
	}
	if l.Need.Purpose, err = purposeFromProto(m.Need.GetPurpose()); err != nil {
		return Lease{}, err
	}
	if m.Need.GetUplink() > maxNeed || m.Need.GetPackets() > maxNeed {
		return Lease{}, malformed("need", "more than %d", int64(maxNeed))
	}
	if l.Expires, err = timeFromProto("expires", m.Expires); err != nil {
		return Lease{}, err
	}
	l.Need.Stream = m.Need.GetStream()
	l.Need.Uplink = int64(m.Need.GetUplink())
	l.Need.Packets = int64(m.Need.GetPackets())
	l.Need.Region = m.Need.GetRegion()
	if err := l.check(); err != nil {
		return Lease{}, err
	}
	if signer != l.Target {
		return Lease{}, fmt.Errorf("%w: names target %s, signed by %s", ErrForged, l.Target, signer)
	}
	return l, checkExpiry(l.Expires, now, LeaseTime)
}

func (l *Lease) check() error {
	if err := checkRequestID(l.ID); err != nil {
		return malformed("id", "%w", err)
	}
	if err := checkID("target", l.Target); err != nil {
		return err
	}
	if err := checkID("from", l.From); err != nil {
		return err
	}
	if err := l.Need.check(); err != nil {
		return err
	}
	return checkTime("expires", l.Expires)
}

func (n *Need) check() error {
	if n.Purpose > Cascade {
		return malformed("purpose", "%d is unknown", n.Purpose)
	}
	if n.Stream != "" {
		if err := ValidStreamName(n.Stream); err != nil {
			return malformed("stream", "%w", err)
		}
	}
	if n.Uplink < 0 || n.Uplink > maxNeed {
		return malformed("uplink", "%d bit/s is not within 0…%d", n.Uplink, int64(maxNeed))
	}
	if n.Packets < 0 || n.Packets > maxNeed {
		return malformed("packets", "%d/s is not within 0…%d", n.Packets, int64(maxNeed))
	}
	if err := checkLabel(n.Region, MaxLabel); err != nil {
		return malformed("region", "%w", err)
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

// SealTicket signs t with key, From's, and returns URL-safe text of at most
// MaxTicketSize bytes. The error wraps [ErrMalformed], [ErrForged] or
// [ErrTooLarge] as that of [Seal] does.
func SealTicket(t Ticket, key crypto.PrivKey) (string, error) {
	if err := t.check(); err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	text, err := sealTicket(t, key)
	if errors.Is(err, ErrTooLarge) && len(t.Trace) > 0 {
		t.Trace = nil
		text, err = sealTicket(t, key)
	}
	if err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	return text, nil
}

func sealTicket(t Ticket, key crypto.PrivKey) (string, error) {
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
// shown to. A ticket can be shown more than once; [Ledger.Claim] takes its
// lease only once.
//
// The error wraps [ErrTooLarge], [ErrMalformed], [ErrForged] if From did not
// sign it, [ErrWrongTarget] if it is meant for another node, [ErrExpired] if it
// ran out more than MaxClockSkew before now, or [ErrFromFuture] if it is good
// for longer than a ticket may be.
func OpenTicket(s string, self peer.ID, now time.Time) (Ticket, error) {
	t, err := openTicket(s, self, now)
	if err != nil {
		return Ticket{}, fmt.Errorf("open ticket: %w", err)
	}
	return t, nil
}

func openTicket(s string, self peer.ID, now time.Time) (Ticket, error) {
	if len(s) > MaxTicketSize {
		return Ticket{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(s), MaxTicketSize)
	}
	sealed, err := ticketText.DecodeString(s)
	if err != nil {
		return Ticket{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var m pb.Ticket
	signer, err := open(ticketKind, sealed, &m, MaxTicketSize)
	if err != nil {
		return Ticket{}, err
	}
	if len(m.SourceAddrs) > MaxAddrs {
		return Ticket{}, malformed("source_addrs", "%d addresses, at most %d", len(m.SourceAddrs), MaxAddrs)
	}
	t := Ticket{Lease: m.Lease, Stream: m.Stream, Trace: boundedTrace(m.Trace)}
	if t.Purpose, err = purposeFromProto(m.Purpose); err != nil {
		return Ticket{}, err
	}
	if t.Target, err = idFromBytes("target", m.Target); err != nil {
		return Ticket{}, err
	}
	if t.From, err = idFromBytes("from", m.From); err != nil {
		return Ticket{}, err
	}
	if len(m.Source) > 0 {
		if t.Source, err = idFromBytes("source", m.Source); err != nil {
			return Ticket{}, err
		}
	}
	if t.SourceAddrs, err = addrsFromBytes("source_addrs", m.SourceAddrs); err != nil {
		return Ticket{}, err
	}
	if t.Expires, err = timeFromProto("expires", m.Expires); err != nil {
		return Ticket{}, err
	}
	if err := t.check(); err != nil {
		return Ticket{}, err
	}
	if signer != t.From {
		return Ticket{}, fmt.Errorf("%w: names %s, signed by %s", ErrForged, t.From, signer)
	}
	if t.Target != self {
		return Ticket{}, fmt.Errorf("%w: %s", ErrWrongTarget, t.Target)
	}
	return t, checkExpiry(t.Expires, now, TicketTime)
}

func (t *Ticket) check() error {
	if err := checkRequestID(t.Lease); err != nil {
		return malformed("lease", "%w", err)
	}
	if err := ValidStreamName(t.Stream); err != nil {
		return malformed("stream", "%w", err)
	}
	if t.Purpose != View && t.Purpose != Publish {
		return malformed("purpose", "%s is not for tickets", t.Purpose)
	}
	if err := checkID("target", t.Target); err != nil {
		return err
	}
	if err := checkID("from", t.From); err != nil {
		return err
	}
	if t.Purpose == Publish && (t.Source != "" || len(t.SourceAddrs) > 0) {
		return malformed("source", "a publisher has none")
	}
	if t.Source != "" {
		if err := checkID("source", t.Source); err != nil {
			return err
		}
	}
	if err := checkAddrs("source_addrs", t.SourceAddrs); err != nil {
		return err
	}
	return checkTime("expires", t.Expires)
}

func purposeFromProto(p pb.Purpose) (Purpose, error) {
	if p < 0 || p > pb.Purpose(Cascade) {
		return 0, malformed("purpose", "%d is unknown", p)
	}
	return Purpose(p), nil
}

func timeFromProto(field string, ms uint64) (time.Time, error) {
	if ms > maxUnixMilli {
		return time.Time{}, malformed(field, "%d ms is past the year 9999", ms)
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
}

// checkExpiry allows for clocks that differ by MaxClockSkew. life is the
// longest that something made now would last.
func checkExpiry(expires, now time.Time, life time.Duration) error {
	if past := now.Sub(expires); past > MaxClockSkew {
		return fmt.Errorf("%w %v ago", ErrExpired, past.Round(time.Millisecond))
	}
	if ahead := expires.Sub(now); ahead > life+MaxClockSkew {
		return fmt.Errorf("%w: expires in %v, at most %v makes sense", ErrFromFuture, ahead.Round(time.Millisecond), life)
	}
	return nil
}
