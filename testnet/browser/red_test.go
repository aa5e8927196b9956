package browser

import (
	"fmt"
	"strings"
	"testing"
)

// preferAudio sends, or receives, the audio of a stream with these codecs, the
// preferred one first, and returns the answer.
const preferAudio = `(async () => {
	const sends = %t, names = %s;
	const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
	let source = 'audio';
	if (sends) source = (await navigator.mediaDevices.getUserMedia({audio: true})).getAudioTracks()[0];
	const tr = pc.addTransceiver(source, {direction: sends ? 'sendonly' : 'recvonly'});
	const side = sends ? RTCRtpSender : RTCRtpReceiver;
	const codecs = side.getCapabilities('audio').codecs;
	tr.setCodecPreferences(names.flatMap(name => codecs.filter(c => c.mimeType.toLowerCase() === 'audio/' + name)));
	await pc.setLocalDescription(await pc.createOffer());
	const answer = await fetch(%q, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
	if (answer.status !== 201) throw new Error(answer.status + ' ' + await answer.text());
	const sdp = await answer.text();
	await pc.setRemoteDescription({type: 'answer', sdp});
	window.last = pc;
	return sdp;
})()`

// Redundant audio of Chromium reaches Chromium at another node, which uses it,
// and is plain Opus to one that does not name it.
func TestRedundantAudioFlows(t *testing.T) {
	setUp(t)
	tab := open(t, world.chromium)
	tab.Go(world.net.Node(nodeA).HTTP + "/play/none")
	tab.Expect(notThere)
	const red, opus = `['red', 'opus']`, `['opus']`
	audio := func(sends bool, names, url string) string {
		return Eval[string](tab, fmt.Sprintf(preferAudio, sends, names, url))
	}
	// heard waits until the last receiver plays a second of sound.
	heard := func(mime string, least int) {
		tab.Until(fmt.Sprintf(`window.last.getStats().then(stats => {
			const all = [...stats.values()], audio = all.find(s => s.type === 'inbound-rtp');
			const codec = audio && all.find(s => s.id === audio.codecId);
			return !!codec && codec.mimeType === %q && (audio.fecPacketsReceived || 0) >= %d && audio.totalSamplesReceived > 48000 && audio.totalAudioEnergy > 0;
		})`, mime, least))
	}
	a, b := world.net.Node(nodeA).HTTP, world.net.Node(nodeB).HTTP
	if answer := audio(true, red, a+"/whip/red"); !strings.Contains(answer, " 63 111\r\n") {
		t.Errorf("redundant audio was not taken\n%s", answer)
	}
	audio(false, red, b+"/whep/red")
	heard("audio/red", 50)
	audio(false, opus, b+"/whep/red")
	heard("audio/opus", 0)
}
