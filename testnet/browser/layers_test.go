package browser

import (
	"fmt"
	"testing"
	"time"
)

// layered publishes a picture of 1280 × 720 as codec, with sendEncodings.
const layered = `(async () => {
	const canvas = document.createElement('canvas');
	canvas.width = 1280; canvas.height = 720;
	const g = canvas.getContext('2d');
	let n = 0;
	setInterval(() => {
		n++;
		g.fillStyle = '#246';
		g.fillRect(0, 0, 1280, 720);
		g.fillStyle = 'hsl(' + n * 7 %% 360 + ' 80%% 50%%)';
		g.fillRect(n * 18 %% 1120, 200, 160, 160);
		g.fillStyle = '#eee';
		g.font = '120px sans-serif';
		g.fillText(n, 100, 620);
	}, 66);
	const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
	const video = pc.addTransceiver(canvas.captureStream(15).getVideoTracks()[0], {direction: 'sendonly', sendEncodings: %s});
	video.setCodecPreferences(RTCRtpSender.getCapabilities('video').codecs.filter(c => ['video/%s', 'video/rtx'].includes(c.mimeType)));
	await pc.setLocalDescription();
	const answer = await fetch(%q, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
	if (answer.status !== 201) throw new Error(answer.status + ' ' + await answer.text());
	await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
	window.layers = pc;
	return '';
})()`

// watchGaps makes a player's page note the longest time between two pictures, and
// how many there were.
const watchGaps = `(() => {
	const video = document.querySelector('#player').video;
	const gaps = window.gaps = {longest: 0, pictures: 0, last: 0};
	const each = (now) => {
		if (gaps.last) gaps.longest = Math.max(gaps.longest, now - gaps.last);
		gaps.last = now;
		gaps.pictures++;
		video.requestVideoFrameCallback(each);
	};
	video.requestVideoFrameCallback(each);
	return true;
})()`

type gaps struct {
	Longest  float64 // ms
	Pictures int
}

// Two viewers watch one publisher, of whom one chooses its layer by hand, with
// simulcast and with scalable video. What it sees goes on while it switches, as
// for the other one, who does not.
func TestLayersChosenByHand(t *testing.T) {
	setUp(t)
	const three = `[{rid: 'h', maxBitrate: 800000}, {rid: 'm', scaleResolutionDownBy: 2, maxBitrate: 300000}, {rid: 'l', scaleResolutionDownBy: 4, maxBitrate: 100000}]`
	byRID := []string{`{rid: 'l'}`, `{rid: 'm'}`, `{rid: 'h'}`}
	bySpatial := []string{`{spatialLayerId: 0}`, `{spatialLayerId: 1}`, `{spatialLayerId: 2}`}
	for _, c := range []struct {
		name, codec, encodings string
		choices                []string // of a quarter, a half and all of the picture's width
	}{
		{"simulcast", "VP8", three, byRID},
		{"simulcast-H264", "H264", three, byRID},
		{"scalable", "VP9", `[{scalabilityMode: 'L3T3_KEY', maxBitrate: 1200000}]`, bySpatial},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := "chosen/" + c.name
			publisher := open(t, world.chromium)
			publisher.Go(world.net.Node(nodeA).HTTP + "/play/none")
			publisher.Expect(notThere)
			Eval[string](publisher, fmt.Sprintf(layered, c.encodings, c.codec, world.net.Node(nodeA).HTTP+"/whip/"+stream))
			defer Eval[any](publisher, "window.layers.close()")
			steady, chooser := play(t, world.chromium, nodeA, stream), play(t, world.chromium, nodeA, stream)
			width := func(tb *Tab) int { return Eval[int](tb, `document.querySelector('#player').video.videoWidth`) }
			choose := func(choice string, share int) {
				t.Helper()
				Eval[bool](chooser, fmt.Sprintf(`(async () => {
					const answer = await fetch(window.weir.sessionURL + '/layer', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(%s)});
					if (!answer.ok) throw new Error(await answer.text());
					return true;
				})()`, choice))
				eventually(t, fmt.Sprintf("a picture of 1/%d by %s", share, choice), func() bool { return width(chooser)*share == width(steady) })
			}
			eventually(t, "the whole picture", func() bool { return width(steady) >= 640 && width(chooser) == width(steady) })
			choose(c.choices[0], 4) // layers may begin late
			for _, tb := range []*Tab{steady, chooser} {
				Eval[bool](tb, watchGaps)
			}
			for range 2 {
				choose(c.choices[1], 2)
				choose(c.choices[2], 1)
				choose(c.choices[0], 4)
			}
			if c.name == "simulcast" {
				steady.Shoot("layers-best")
				chooser.Shoot("layers-chosen")
				byAddress := play(t, world.chromium, nodeA, stream+"?layer=m")
				eventually(t, "the layer of the address", func() bool { return width(byAddress)*2 == width(steady) })
			}
			still, moved := Eval[gaps](steady, `window.gaps`), Eval[gaps](chooser, `window.gaps`)
			t.Logf("who stays: %d pictures, at most %.0f ms apart; who switches: %d, %.0f ms", still.Pictures, still.Longest, moved.Pictures, moved.Longest)
			if moved.Longest > max(300, 2*still.Longest) {
				t.Errorf("the picture stood still for %v while its layer changed, that of the other viewer for %v",
					time.Duration(moved.Longest)*time.Millisecond, time.Duration(still.Longest)*time.Millisecond)
			}
			if moved.Pictures < still.Pictures*3/4 {
				t.Errorf("%d pictures were shown, %d to the viewer who did not switch", moved.Pictures, still.Pictures)
			}
		})
	}
}
