package dht

import (
	"errors"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/pb"
)

func sealUpdate(t testing.TB, n *testNode, base []byte, r capacity.Record) []byte {
	t.Helper()
	b, err := signed.SealUpdate(capacity.Record{}, base, r, n.key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What updates a record is taken only where that very record is held, and from
// its node only.
func TestHoldUpdates(t *testing.T) {
	holder, from := newTestNode(t, nil), newTestNode(t, nil)
	now := time.Now()
	base := capacity.Record{Node: from.ID(), Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL, Sessions: capacity.Usage{Limit: 10}}
	sealed := seal(t, base, from.key)
	next := base
	next.Seq, next.Sessions.Used = 2, 3
	entry := &pb.Entry{Topic: string(testHome), Update: sealUpdate(t, from, sealed, next)}

	if err := holder.hold(now, from.ID(), entry); !errors.Is(err, errNothingToUpdate) {
		t.Errorf("with nothing held: %v", err)
	}
	if err := holder.hold(now, from.ID(), &pb.Entry{Topic: string(testHome), Sealed: sealed}); err != nil {
		t.Fatal(err)
	}
	if err := holder.hold(now, holder.ID(), entry); !errors.Is(err, errNothingToUpdate) {
		t.Errorf("from another: %v", err)
	}
	late := next
	late.Issued = base.Issued.Add(-capacity.MaxClockSkew - time.Minute)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"of another record": {sealUpdate(t, from, seal(t, next, from.key), next), capacity.ErrForged},
		"expired":           {sealUpdate(t, from, sealed, late), capacity.ErrExpired},
		"nonsense":          {[]byte("x"), capacity.ErrMalformed},
	} {
		if err := holder.hold(now, from.ID(), &pb.Entry{Topic: string(testHome), Update: c.b}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if h := holder.table.Get(now, testHome, from.ID()); h.Record.Seq != 1 || h.Record.Sessions.Used != 0 {
		t.Errorf("held: %+v", h.Record)
	}
	soon := now.Add(5 * time.Second)
	if err := holder.hold(soon, from.ID(), entry); err != nil {
		t.Fatal(err)
	}
	h := holder.table.Get(soon, testHome, from.ID())
	if h == nil || h.Record.Seq != 2 || h.Record.Sessions.Used != 3 || !h.Expires.Equal(soon.Add(capacity.DefaultTTL)) {
		t.Fatalf("held: %+v", h)
	}
	// Whoever asks gets what is signed, as updated.
	if r, err := signed.OpenRecord(h.Sealed, soon); err != nil || r.Seq != 2 || r.Sessions.Used != 3 {
		t.Errorf("opened: %+v, %v", r, err)
	}
	if err := holder.hold(soon, from.ID(), &pb.Entry{Topic: string(testHome), Sealed: sealed}); err == nil {
		t.Error("the base came back in the place of what updates it")
	}
}
