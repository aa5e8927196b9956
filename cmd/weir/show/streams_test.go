package show

import (
	"bytes"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/cmd/weir/api"
	"weir/cmd/weir/term"
)

// Records are seconds old and may contradict each other; the tree is drawn
// nevertheless, with every carrier once.
func TestPrintTree(t *testing.T) {
	carrier := func(id, parent string, depth int) api.Carrier {
		return api.Carrier{Node: peer.ID(id), Parent: peer.ID(parent), Origin: depth == 0, Depth: depth, Viewers: 1, URL: "http://" + id}
	}
	draw := func(all ...api.Carrier) string {
		var b bytes.Buffer
		PrintTree(term.Terminal{Writer: &b}, api.Stream{Stream: "demo", Tracks: []string{"video/VP8"}, Viewers: len(all), Carriers: all})
		return b.String()
	}
	got := draw(carrier("a", "", 0), carrier("b", "a", 1), carrier("c", "a", 1), carrier("d", "b", 2))
	var order []string
	for line := range strings.Lines(got) {
		if _, url, ok := strings.Cut(line, "http://"); ok {
			order = append(order, url[:1])
		}
	}
	if strings.Join(order, "") != "abdc" {
		t.Errorf("drawn in order %v:\n%s", order, got)
	}
	if got := draw(carrier("b", "gone", 1)); !strings.Contains(got, "http://b") {
		t.Errorf("a carrier without its parent is not drawn:\n%s", got)
	}
}
