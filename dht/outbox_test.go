package dht

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/pb"
)

func amend(t testing.TB, n *testNode, base []byte, r capacity.Record) []byte {
	t.Helper()
	b, err := signed.SealUpdate(capacity.Record{}, base, r, n.key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What amends a record is taken only where that very record is held, and from
// its node only.
func TestHoldAmendments(t *testing.T) {
	holder, from := newTestNode(t, nil), newTestNode(t, nil)
	now := time.Now()
	base := capacity.Record{Node: from.ID(), Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL, Sessions: capacity.Usage{Limit: 10}}
	sealed := seal(t, base, from.key)
	next := base
	next.Seq, next.Sessions.Used = 2, 3
	entry := &pb.Entry{Topic: string(testHome), Amendment: amend(t, from, sealed, next)}

	if err := holder.hold(now, from.ID(), entry); !errors.Is(err, errNothingToAmend) {
		t.Errorf("with nothing held: %v", err)
	}
	if err := holder.hold(now, from.ID(), &pb.Entry{Topic: string(testHome), Sealed: sealed}); err != nil {
		t.Fatal(err)
	}
	if err := holder.hold(now, holder.ID(), entry); !errors.Is(err, errNothingToAmend) {
		t.Errorf("from another: %v", err)
	}
	late := next
	late.Issued = base.Issued.Add(-capacity.MaxClockSkew - time.Minute)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"of another record": {amend(t, from, seal(t, next, from.key), next), capacity.ErrForged},
		"expired":           {amend(t, from, sealed, late), capacity.ErrExpired},
		"nonsense":          {[]byte("x"), capacity.ErrMalformed},
	} {
		if err := holder.hold(now, from.ID(), &pb.Entry{Topic: string(testHome), Amendment: c.b}); !errors.Is(err, c.want) {
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
	// Whoever asks gets what is signed, as amended.
	if r, err := signed.OpenRecord(h.Sealed, soon); err != nil || r.Seq != 2 || r.Sessions.Used != 3 {
		t.Errorf("opened: %+v, %v", r, err)
	}
	if err := holder.hold(soon, from.ID(), &pb.Entry{Topic: string(testHome), Sealed: sealed}); err == nil {
		t.Error("the base came back in the place of what amends it")
	}
}

// A holder that has lost a record is sent all of it, once it says so.
func TestHolderThatLacksTheBaseIsSentAllOfIt(t *testing.T) {
	nodes := newTestNetwork(t, 2)
	from, holder := nodes[0], nodes[1]
	topic := from.sharding.Home()
	holds := func(seq uint64) error {
		if h := holder.table.Get(time.Now(), topic, from.ID()); h == nil || h.Record.Seq < seq {
			return fmt.Errorf("the holder has not got record %d", seq)
		}
		return nil
	}
	amended := func() bool {
		from.outbox.mu.Lock()
		defer from.outbox.mu.Unlock()
		own := from.outbox.own[topic]
		return own != nil && own.amendment != nil && from.outbox.confirmed[confirmedAt{holder.ID(), topic}].base == own.base.Seq
	}
	publish := func() uint64 {
		r, _ := from.sample()
		from.publish([]claim{{topic, r}})
		return from.outbox.seqNow()
	}
	eventually(t, func() error { // the base is confirmed
		publish()
		if !amended() {
			return errors.New("not amended yet")
		}
		return nil
	})
	eventually(t, from.outbox.atRest)
	holder.table.Forget(topic)
	seq := publish() // by datagram, which nobody is to confirm
	eventually(t, func() error { return holds(seq) })
}

// A split notice that waits for a holder to answer is not lost to the record that
// comes after it, nor the other way round.
func TestSplitNoticesAndRecordsShareAnEntry(t *testing.T) {
	post, look := parcel{&pb.Entry{Topic: "t", Deeper: true}, 0}, parcel{&pb.Entry{Topic: "t"}, 0}
	record, withdrawal := parcel{&pb.Entry{Topic: "t", Sealed: []byte("r"), Known: []byte("k")}, 3}, parcel{&pb.Entry{Topic: "t", Seq: 7}, 0}
	amendment := parcel{&pb.Entry{Topic: "t", Amendment: []byte("a"), Known: []byte("k")}, 3}
	for _, c := range []struct {
		name   string
		first  parcel
		then   parcel
		sealed string
		seq    uint64
		deeper bool
		base   uint64
	}{
		{"a post, then a record", post, record, "r", 0, true, 3},
		{"a record, then a post", record, post, "r", 0, true, 3},
		{"a post, then a withdrawal", post, withdrawal, "", 7, true, 0},
		{"a withdrawal, then a post", withdrawal, post, "", 7, true, 0},
		{"a record, then a withdrawal", record, withdrawal, "", 7, false, 0},
		{"a withdrawal, then a record", withdrawal, record, "r", 0, false, 3},
		{"a record, then a look", record, look, "r", 0, false, 3},
		{"a record, then an amendment of it", record, amendment, "", 0, false, 3},
		{"an amendment, then a post", amendment, post, "", 0, true, 3},
		{"an amendment, then a withdrawal", amendment, withdrawal, "", 7, false, 0},
	} {
		m := merged(c.first, c.then)
		if string(m.Sealed) != c.sealed || m.Seq != c.seq || m.Deeper != c.deeper || m.base != c.base || (m.base > 0) != (len(m.Sealed)+len(m.Amendment) > 0) {
			t.Errorf("%s: %v", c.name, m)
		}
	}
	if post.Sealed != nil || record.Deeper || withdrawal.Deeper {
		t.Error("an entry that others share was changed")
	}
}
