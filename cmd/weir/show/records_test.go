package show

import (
	"bytes"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/term"
	"weir/dht"
)

func TestHeldByInWords(t *testing.T) {
	for want, e := range map[string]api.Record{
		"0":             {},
		"1 (2.0 s)":     {HeldBy: make([]peer.ID, 1), HeldFor: []float64{2000}},
		"3 (0.5–2.0 s)": {HeldBy: make([]peer.ID, 3), HeldFor: []float64{2000, 500, 700}},
		"2 (1.0 s)":     {HeldBy: make([]peer.ID, 2), HeldFor: []float64{1000, 1010}},
		"0 + 1 older":   {Copies: []api.RecordCopy{{Old: true}}},
	} {
		if got := heldBy(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Holders that are behind are counted apart, and marked.
func TestCopiesInWords(t *testing.T) {
	home, straddle := dht.ShardTopic("r1", ""), dht.ShardTopic("r1", "0")
	e := api.Record{
		Node: "b", Record: &capacity.Record{}, HeldBy: []peer.ID{"a", "b"}, HeldFor: []float64{100, 1200},
		Copies: []api.RecordCopy{
			{Holder: "a", Topic: home, HeldFor: 100, Seq: 9}, {Holder: "b", Topic: home, HeldFor: 1200, Seq: 9},
			{Holder: "c", Topic: home, HeldFor: 6000, Seq: 8, Old: true}, {Holder: "b", Topic: straddle, HeldFor: 500, Seq: 10},
		},
	}
	if got, want := heldBy(e), "2 (0.1–1.2 s) + 1 older"; got != want {
		t.Errorf("held by %q, want %q", got, want)
	}
	var out bytes.Buffer
	printCopies(term.Terminal{Writer: &out}, []api.Record{e})
	if lines := strings.Count(out.String(), "\n"); lines != 5 || !strings.Contains(out.String(), "not the newest") || !strings.Contains(out.String(), "itself") {
		t.Errorf("got\n%s", &out)
	}
}
