package browser

import (
	"fmt"
	"path/filepath"
	"testing"

	"weir/testnet"
)

// If nodes admit only pages of one site, such pages are redirected to another
// node as others are, though browsers then send the origin "null"; so are the
// nodes' own pages. All can end their sessions there.
func TestNamedOriginsAreHandedOn(t *testing.T) {
	setUp(t)
	const stream = "origins"
	var body string
	page := servePage(t, "127.0.0.1:0", &body)
	net, err := testnet.Up(t.Context(), testnet.Config{Dir: filepath.Join(t.TempDir(), "net"), N: 2, Binary: world.weir, NodeFlags: func(i int) []string {
		flags := []string{"--cors-origin", page}
		if i == 1 {
			flags = append(flags, "--session-limit", "1")
		}
		return flags
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := net.AwaitRecords(t.Context()); err != nil {
		t.Fatal(err)
	}
	full, other := net.Node("n1"), net.Node("n2")
	publisher := open(t, world.chromium)
	publisher.Go(full.HTTP + "/publish?stream=" + stream)
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.bytesSent > 0")

	viewers := func() int {
		var all []session
		if err := other.Get(t.Context(), "/sessions", &all); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range all {
			if s.Kind == "whep" {
				n++
			}
		}
		return n
	}
	played := fmt.Sprintf("document.querySelector('weir-player')?.playing && document.querySelector('weir-player').node === %q", other.HTTP)
	markup := fmt.Sprintf(`<script type="module" src="%[1]s/weir-player.js"></script><weir-player src="%[1]s/whep/%[2]s" muted></weir-player>`, full.HTTP, stream)
	body = markup
	for _, url := range []string{page, full.HTTP + "/play/" + stream} {
		tb := open(t, world.chromium)
		tb.Go(url)
		tb.Until(played)
		Eval[any](tb, "document.querySelector('weir-player').remove(), 1")
		eventually(t, "no viewer at the other node", func() bool { return viewers() == 0 })
	}

	// A page of another site is refused with a message.
	stranger := open(t, world.chromium)
	stranger.Expect("CORS|ERR_FAILED")
	stranger.Go(servePage(t, "127.0.0.1:0", &markup))
	stranger.Until("document.querySelector('weir-player')?.words.startsWith('Not connected')")
	if viewers() != 0 {
		t.Error("a page of another site plays")
	}
}
