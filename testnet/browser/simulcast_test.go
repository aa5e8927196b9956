package browser

import (
	"fmt"
	"slices"
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

// A section is one of a publisher, as the admin API has it.
type section struct{ Kind, State, Layer string }

// A publisherSession is the session of one.
type publisherSession struct {
	ID, Kind, Stream string
	Sections         []section
	NotForwarded     map[string]int64 `json:"not_forwarded"`
}

// publisherOf returns the publisher of a stream at a node.
func publisherOf(t *testing.T, node, stream string) (found publisherSession) {
	t.Helper()
	for _, s := range get[[]publisherSession](t, node, "/sessions") {
		if s.Stream == stream && s.Kind == "whip" {
			found = s
		}
	}
	return found
}

// An offer of several layers is answered with all of them, in either order of
// preference: what the browser sends is forwarded, and the best layer also to
// another node.
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
			// Chromium sends two layers of a picture of this size.
			eventually(t, "sound and two layers that flow, and nothing that is not forwarded", func() bool {
				p := publisherOf(t, nodeA, stream)
				delete(p.NotForwarded, "duplicate") // the browser's bandwidth probes
				flowing := slices.DeleteFunc(slices.Clone(p.Sections), func(s section) bool { return s.State != "flowing" })
				return len(p.Sections) == 4 && len(flowing) == 3 && flowing[1].Layer == c.first && flowing[2].Layer == "m" && len(p.NotForwarded) == 0
			})
			Eval[any](publisher, "window.layers.close()")
		})
	}
}
