package sfu

import (
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
	"weir/sfu/client"
)

// A viewer begins with what the node has, also if the publisher answers no
// keyframe request: it gets none, but where the node has no keyframe.
func TestViewerBeginsWithoutThePublisher(t *testing.T) {
	t.Parallel()
	n := newMesh(t).add(ledger.Limits{}, nil)
	video := publishRaw(t, n, "demo", nil, param(webrtc.MimeTypeVP8, 96, ""))[0]
	// VP8 payloads; see RFC 7741, sections 4.2 and 4.3.
	key, delta := []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}, []byte{0x10, 0x31, 0x02, 0x00}
	rest := append([]byte{0x00}, make([]byte, 1000)...)
	var mu sync.Mutex // a keyframe is sent in one piece
	every(t, func() {
		mu.Lock()
		defer mu.Unlock()
		video.send(delta, true, 900)
	})
	view := func() *client.Viewer {
		v, err := client.View(t.Context(), client.ViewConfig{URL: n.web.URL + "/whep/demo"})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	early := view()
	eventually(t, "a keyframe is requested", func() bool { return n.Feedback().KeyframesOut > 0 })
	if err := early.Close(); err != nil {
		t.Fatal(err)
	}
	begins := func() bool {
		asked := n.Feedback().KeyframesOut
		mu.Lock()
		video.send(key, false, 900)
		for i := range 40 {
			video.send(rest, i == 39, 0)
		}
		mu.Unlock()
		v := view()
		defer v.Close()
		select {
		case <-v.FirstFrame():
			flows(t, v, 10)
			t.Logf("first frame after %v, connected after %v", v.Stats().FirstFrame, v.Stats().Connected)
			return n.Feedback().KeyframesOut == asked
		case <-time.After(3 * time.Second): // the keyframe is too old by now
			return false
		}
	}
	for attempt := 1; !begins(); attempt++ { // a viewer may take long to connect
		t.Logf("attempt %d failed", attempt)
		if attempt == 5 {
			t.Fatalf("no frame in %d attempts", attempt)
		}
	}
}
