package sfu

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
	"weir/sfu/sdp"
)

// withExtensions puts a=extmap lines with IDs from first into the last section
// of an offer, after those of other that its peer wrote.
func withExtensions(mixed bool, first int, uris ...string) func(string) string {
	return func(offer string) string {
		var b strings.Builder
		for line := range strings.Lines(offer) {
			if !strings.HasPrefix(line, "a=extmap") {
				b.WriteString(line)
			}
			if strings.HasPrefix(line, "t=0 0") && mixed {
				b.WriteString("a=extmap-allow-mixed\r\n")
			}
		}
		for i, uri := range uris {
			fmt.Fprintf(&b, "a=extmap:%d %s\r\n", first+i, uri)
		}
		return b.String()
	}
}

// Header extensions that publisher and viewer both name go through with their
// values, under the viewer's IDs, also over a link, and where they need the form
// of two bytes.
func TestHeaderExtensions(t *testing.T) {
	t.Parallel()
	audio := []string{sdp.AudioLevel, sdp.CaptureTime, psdp.SDESMidURI}
	video := []string{sdp.CaptureTime, sdp.DependencyDescriptor, sdp.Orientation, sdp.PlayoutDelay, sdp.ColorSpace, psdp.SDESMidURI}
	values := map[string][]byte{
		sdp.AudioLevel:           {0x80 | 23},                               // RFC 6464
		sdp.CaptureTime:          {0xe6, 1, 2, 3, 4, 5, 6, 7},               // an NTP time
		sdp.DependencyDescriptor: bytes.Repeat([]byte{0x80, 0x01, 0x7f}, 9), // longer than an extension of one byte
		sdp.Orientation:          {0x01},                                    // rotated by 90°
		sdp.PlayoutDelay:         {0x00, 0xa0, 0x14},                        // 100 to 200 ms
		sdp.ColorSpace:           {9, 16, 9, 0x20},                          // BT.2020, PQ
		psdp.SDESMidURI:          nil,                                       // the viewer's own
	}
	for _, c := range []struct {
		name      string
		mime      string
		uris      []string
		payload   []byte
		published int // first ID of the publisher
		viewed    int // of the viewer
		mixed     bool
		leftOut   string // at the viewer
	}{
		{"audio", webrtc.MimeTypeOpus, audio, []byte{0xf8}, 1, 5, true, ""},
		{"video", webrtc.MimeTypeVP8, video, []byte{0x10, 0, 0x9d, 1, 0x2a}, 1, 6, true, ""},
		{"video with high IDs", webrtc.MimeTypeVP8, video, []byte{0x10, 0, 0x9d, 1, 0x2a}, 20, 100, true, ""},
		{"high IDs, never mixed", webrtc.MimeTypeVP8, video, []byte{0x10, 0, 0x9d, 1, 0x2a}, 1, 20, false, ""},
		{"one byte only", webrtc.MimeTypeVP8, video, []byte{0x10, 0, 0x9d, 1, 0x2a}, 20, 1, false, sdp.DependencyDescriptor},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
			codec := param(c.mime, 100, "")
			track := publishRaw(t, a, "s", withExtensions(true, c.published, c.uris...), codec)[0]
			track.mu.Lock()
			track.h.Extension, track.h.ExtensionProfile = true, rtp.ExtensionProfileTwoByte
			for i, uri := range c.uris {
				if v := values[uri]; v != nil {
					if err := track.h.SetExtension(uint8(c.published+i), v); err != nil {
						t.Fatal(err)
					}
				}
			}
			track.mu.Unlock()
			every(t, func() { track.send(c.payload, true, 900) })
			for _, node := range []*meshNode{a, b} {
				pc := plainPeer(t, codec)
				packets := incoming(t, pc, sdp.KindOf(c.mime))
				answer := dialPeer(t, pc, node.web.URL+"/whep/s", withExtensions(c.mixed, c.viewed, c.uris...))
				p := next(t, packets)
				if mixed := strings.Contains(answer, "a=extmap-allow-mixed"); mixed != c.mixed {
					t.Errorf("mixed forms: %v, want %v", mixed, c.mixed)
				}
				for i, uri := range c.uris {
					want := values[uri]
					if uri == psdp.SDESMidURI {
						want = []byte(pc.GetTransceivers()[0].Mid())
					}
					if uri == c.leftOut || uri == psdp.SDESMidURI && p.GetExtension(uint8(c.viewed+i)) == nil {
						want = nil // the first packets alone have the MID, and may be lost
					}
					if got := p.GetExtension(uint8(c.viewed + i)); !bytes.Equal(got, want) {
						t.Errorf("%s is % x as %d, want % x", uri, got, c.viewed+i, want)
					}
					if !strings.Contains(answer, fmt.Sprintf("a=extmap:%d %s\r\n", c.viewed+i, uri)) {
						t.Errorf("%s is not in the answer:\n%s", uri, answer)
					}
				}
			}
		})
	}
}
