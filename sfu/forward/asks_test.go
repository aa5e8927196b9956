package forward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
)

// However often one viewer requests keyframes, the publisher gets one request a
// second.
func TestKeyframeRequestsOfOneViewerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		track := vp8Track()
		src := track.Attach(fakeReceiver(func() bool { asked++; return true }))
		d := NewDownTrack(track)
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			d.RTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: 1}}, time.Now())
		}
		src.Close()
		if most := keyframeAsksBurst + 10*keyframeAsks + 1; asked > most || asked < most/2 {
			t.Errorf("asked %d times in 10 s, want at most %d", asked, most)
		}
	})
}
