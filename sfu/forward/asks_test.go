package sfu

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// everyTick is a far end that asks for a keyframe a hundred times a second.
type everyTick struct{ n int }

func (r *everyTick) Read(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond) // in a bubble
	if r.n--; r.n < 0 {
		return 0, io.EOF
	}
	p, err := rtcp.Marshal([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: 1}})
	return copy(b, p), err
}

// However often one viewer asks for keyframes, the publisher hears of it once
// a second.
func TestKeyframeRequestsOfOneViewerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		track := &Track{Codec: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
		src := newSource(track.Codec, func() bool { asked++; return true })
		track.attach(src)
		o := newOut(track, "weir", nil)
		readRTCP(&everyTick{n: 1000}, func() *out { return o })
		src.close()
		if most := keyframeAsksBurst + 10*keyframeAsks + 1; asked > most || asked < most/2 {
			t.Errorf("asked %d times in 10 s, want at most %d", asked, most)
		}
	})
}
