package survey

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/cmd/weir/api"
)

func TestNodesThatAreGoneAreRemembered(t *testing.T) {
	now := time.Unix(1e9, 0)
	entry := func(id, name string) api.Record {
		return api.Record{Node: peer.ID(id), Record: &capacity.Record{Node: peer.ID(id), Name: name}}
	}
	m := nodeMemory{}
	if gone := m.gone(now, []api.Record{entry("a", "n1"), entry("b", "n2"), {Node: "c"}}, false); len(gone) != 0 {
		t.Fatalf("gone at once: %v", gone)
	}
	gone := m.gone(now.Add(20*time.Second), []api.Record{entry("a", "n1")}, true)
	if len(gone) != 1 || !gone[0].Unsure {
		t.Fatalf("gone = %+v while a holder is silent, want it unsure", gone)
	}
	gone = m.gone(now.Add(30*time.Second), []api.Record{entry("a", "n1")}, false)
	if len(gone) != 1 || gone[0].Node != "b" || gone[0].Name != "n2" || gone[0].For != 30000 || gone[0].Unsure {
		t.Fatalf("gone = %+v, want n2 for 30 s", gone)
	}
	if gone := m.gone(now.Add(40*time.Second), []api.Record{entry("a", "n1"), entry("b", "n2")}, false); len(gone) != 0 {
		t.Errorf("gone after it came back: %+v", gone)
	}
	if gone := m.gone(now.Add(40*time.Second+goneShown+time.Millisecond), []api.Record{entry("a", "n1")}, false); len(gone) != 0 || len(m) != 1 {
		t.Errorf("gone = %+v and %d remembered after %v, want nothing and one", gone, len(m), goneShown)
	}
}

func TestByStream(t *testing.T) {
	at := func(node, stream string, depth int) capacity.Record {
		return capacity.Record{Node: peer.ID(node), Carries: &capacity.StreamInfo{Stream: stream, Origin: depth == 0, Depth: depth, Viewers: 2}}
	}
	got := byStream([]capacity.Record{at("x", "b", 1), at("y", "a", 0), at("z", "b", 0)})
	if len(got) != 2 || got[0].Stream != "a" || got[1].Viewers != 4 || !got[1].Carriers[0].Origin {
		t.Errorf("got %+v", got)
	}
}

// A record is described for people: its content, its signer, and its faults.
func TestInspectGarbage(t *testing.T) {
	for name, sealed := range map[string][]byte{
		"nothing": nil, "noise": []byte("not a record"), "too long": make([]byte, 4096),
	} {
		e := Inspect(sealed, time.Now())
		if e.Valid || e.Error == "" || e.Record != nil || e.Bytes != len(sealed) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
