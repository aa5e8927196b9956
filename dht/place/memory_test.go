package place

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

// A replayed older record is not used, and does not replace the newer known
// one.
func TestReplayedRecordIsNotUsed(t *testing.T) {
	old := capacity.Record{Node: "node", Seq: 1000, Issued: time.Now(), TTL: capacity.DefaultTTL}
	fresh := old
	fresh.Seq, fresh.State = 1001, capacity.Full
	m := NewMemory()
	now := time.Now()
	m.See(now, fresh, []byte("fresh"))
	if r, sealed, ok := m.See(now, old, []byte("old")); !ok || r.Seq != fresh.Seq || string(sealed) != "fresh" {
		t.Errorf("after seq 1001, seq 1000 yields seq %d, want the newer one", r.Seq)
	}
	other := old
	other.Carries = &capacity.StreamInfo{Stream: "s"}
	if r, _, _ := m.See(now, other, []byte("other")); r.Seq != old.Seq {
		t.Errorf("a record of another topic yields seq %d, want its own", r.Seq)
	}
	late := now.Add(capacity.DefaultTTL)
	if _, _, ok := m.See(late, fresh, []byte("fresh")); ok {
		t.Error("a record is used for longer than its TTL")
	}
	if _, _, ok := m.See(late, old, []byte("old")); ok {
		t.Error("once the newer record has run out, an older one is used")
	}
	if r, _, ok := m.See(late.Add(rememberAfter), old, []byte("old")); !ok || r.Seq != old.Seq {
		t.Error("a node whose clock was set back is shut out for ever")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := NewMemory()
	now := time.Now()
	for i := range maxRemembered + 10 {
		r := capacity.Record{Node: peer.ID("node"), Seq: uint64(i), TTL: time.Minute, Carries: &capacity.StreamInfo{Stream: string(rune('a' + i))}}
		m.See(now, r, nil)
	}
	if n := m.seen.Len(); n != maxRemembered {
		t.Errorf("%d records are remembered, want %d", n, maxRemembered)
	}
}
