package browser

import (
	"fmt"
	"strings"
	"testing"
)

// sendLayers publishes a changing canvas in three layers, as an application
// with simulcast does, and returns the offer.
const sendLayers = `(async () => {
	const canvas = document.createElement('canvas');
	canvas.width = 640; canvas.height = 360;
	const g = canvas.getContext('2d');
	let n = 0;
	setInterval(() => {
		n++;
		for (let i = 0; i < 16; i++) {
			g.fillStyle = (n + i) %% 2 ? '#eee' : '#246';
			g.fillRect(i * 40, 0, 40, 360);
		}
		g.fillStyle = 'hsl(' + n * 7 %% 360 + ' 80%% 50%%)';
		g.fillRect(n * 9 %% 600, 100, 80, 80);
	}, 33);
	const stream = canvas.captureStream(30);
	const sound = await navigator.mediaDevices.getUserMedia({audio: true});
	const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
	pc.addTransceiver(sound.getAudioTracks()[0], {direction: 'sendonly'});
	pc.addTransceiver(stream.getVideoTracks()[0], {direction: 'sendonly', sendEncodings: %s});
	const offer = await pc.createOffer();
	await pc.setLocalDescription(offer);
	const answer = await fetch(%q, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: offer.sdp});
	if (answer.status !== 201) throw new Error(answer.status + ' ' + await answer.text());
	await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
	window.layers = pc;
	return offer.sdp;
})()`

// An offer of several layers without declared SSRCs is answered without
// simulcast: the browser then sends only its first layer, and that is
// forwarded, also to another node.
func TestSimulcastOfferFlows(t *testing.T) {
	setUp(t)
	for _, c := range []struct{ first, encodings string }{
		{"h", `[{rid: 'h'}, {rid: 'm', scaleResolutionDownBy: 2}, {rid: 'l', scaleResolutionDownBy: 4}]`},
		{"l", `[{rid: 'l', scaleResolutionDownBy: 4}, {rid: 'm', scaleResolutionDownBy: 2}, {rid: 'h'}]`},
	} {
		t.Run(c.first+" first", func(t *testing.T) {
			stream := "layers/" + c.first
			publisher := open(t, world.chromium)
			publisher.Go(world.net.Node(nodeA).HTTP + "/play/none")
			publisher.Expect(notThere)
			offer := Eval[string](publisher, fmt.Sprintf(sendLayers, c.encodings, world.net.Node(nodeA).HTTP+"/whip/"+stream))
			if !strings.Contains(offer, "a=simulcast:send ") || strings.Contains(offer[strings.Index(offer, "m=video"):], "a=ssrc:") {
				t.Errorf("the offer is not what this test is about:\n%s", offer)
			}
			player := play(t, world.chromium, nodeB, stream)
			moves(t, player, false)
			checkSound(t, player)
			sent := Eval[[]string](publisher, `window.layers.getStats().then(stats => [...stats.values()].filter(s => s.type === 'outbound-rtp' && s.framesSent > 0).map(s => s.rid))`)
			if len(sent) != 1 || sent[0] != c.first {
				t.Errorf("the browser sends the layers %q, want %q alone", sent, c.first)
			}
			for _, s := range get[[]struct {
				Kind, Stream string
				Sections     []struct{ Kind, State string }
				NotForwarded map[string]int64 `json:"not_forwarded"`
			}](t, nodeA, "/sessions") {
				if s.Stream != stream || s.Kind != "whip" {
					continue
				}
				delete(s.NotForwarded, "duplicate") // the browser's bandwidth probes
				if len(s.Sections) != 2 || s.Sections[0].State != "flowing" || s.Sections[1].State != "flowing" || len(s.NotForwarded) > 0 {
					t.Errorf("the node says %+v, want two sections that flow and nothing that is not forwarded", s)
				}
			}
			Eval[any](publisher, "window.layers.close()")
		})
	}
}
