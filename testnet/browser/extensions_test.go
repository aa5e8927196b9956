package browser

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"

	"weir/sfu/sdp"
)

// publishExtended publishes the test clip, each packet with these header
// extensions, until the test ends.
func publishExtended(t *testing.T, url string, values map[string][]byte) {
	t.Helper()
	media := &webrtc.MediaEngine{}
	vp8 := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	err := media.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: vp8, PayloadType: 96}, webrtc.RTPCodecTypeVideo)
	for uri := range values {
		if err == nil {
			err = media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeVideo)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	track, err := webrtc.NewTrackLocalStaticRTP(vp8, "video", "extended")
	if err != nil {
		t.Fatal(err)
	}
	sender, err := pc.AddTrack(track)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	resp, err := http.Post(url, "application/sdp", strings.NewReader(strings.ReplaceAll(pc.LocalDescription().SDP, "a=sendrecv", "a=sendonly")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)}); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-done
		_ = pc.GracefulClose()
	})
	clip := pictures(t)
	go func() {
		defer close(done)
		packets := rtp.NewPacketizer(1200, 96, 1, &codecs.VP8Payloader{}, rtp.NewFixedSequencer(1), 90000)
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		for n := 0; ; n++ {
			for _, p := range packets.Packetize(clip[n%len(clip)], 3000) {
				for _, e := range sender.GetParameters().HeaderExtensions {
					if v := values[e.URI]; v != nil {
						_ = p.SetExtension(uint8(e.ID), v) // fits
					}
				}
				_ = track.WriteRTP(p) // fails once the connection is closed
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
}

// pictures are the frames of the test clip, of which the first is a keyframe.
func pictures(t *testing.T) (all [][]byte) {
	t.Helper()
	file, err := os.Open("../../sfu/client/clip/pattern.ivf")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	frames, _, err := ivfreader.NewWith(file)
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, _, err := frames.ParseNextFrame()
		if err != nil {
			return all
		}
		all = append(all, frame)
	}
}

// Chromium at another node turns the picture and waits with it as the publisher
// says in header extensions.
func TestHeaderExtensionsReachChromium(t *testing.T) {
	setUp(t)
	a, b := world.net.Node(nodeA), world.net.Node(nodeB)
	publishExtended(t, a.HTTP+"/whip/extended", map[string][]byte{
		sdp.Orientation:  {1},                // by 90°
		sdp.PlayoutDelay: {0x03, 0x20, 0x3c}, // 500 to 600 ms
	})
	viewer := open(t, world.chromium)
	viewer.Go(a.HTTP + "/play/none")
	viewer.Expect(notThere)
	Eval[any](viewer, fmt.Sprintf(attend, b.HTTP+"/whep/extended"))
	viewer.Until(`[...document.querySelectorAll('video'), window.picture].some(v => v && v.videoHeight > v.videoWidth && v.videoWidth > 0)`)
	viewer.Until(`window.delay = window.delay ?? 0, window.viewing.getStats().then(all => { for (const s of all.values()) if (s.type === 'inbound-rtp' && s.framesDecoded > 30) window.delay = s.jitterBufferTargetDelay / s.jitterBufferEmittedCount; }), window.delay > 0.4`)
}
