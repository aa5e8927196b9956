package browser

import (
	"fmt"
	"strings"
	"testing"
)

// foreign is a client that is not weir's own page: it offers a data channel
// besides its media, as other servers' players do, and its audio codec is
// G.711.
const foreign = `(async (url, send) => {
	const pc = window.foreign = new RTCPeerConnection();
	const direction = send ? 'sendonly' : 'recvonly';
	if (send) {
		const media = await navigator.mediaDevices.getUserMedia({audio: true, video: {width: 320, height: 180}});
		for (const track of media.getTracks()) pc.addTransceiver(track, {direction, streams: [media]});
		const sound = pc.getTransceivers().find(t => t.sender.track.kind === 'audio');
		sound.setCodecPreferences(RTCRtpSender.getCapabilities('audio').codecs.filter(c => c.mimeType === 'audio/PCMA'));
	} else {
		pc.addTransceiver('audio', {direction});
		pc.addTransceiver('video', {direction});
	}
	pc.createDataChannel('control');
	await pc.setLocalDescription(await pc.createOffer());
	const answer = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
	const text = await answer.text();
	if (answer.status !== 201) throw new Error(answer.status + ' ' + text);
	await pc.setRemoteDescription({type: 'answer', sdp: text});
	return text;
})(%q, %v)`

// received is the media that a foreign viewer gets within 30 s.
const received = `(async () => {
	let got = '';
	for (const began = performance.now(); performance.now() - began < 30000; await new Promise(done => setTimeout(done, 100))) {
		const stats = await window.foreign.getStats();
		const all = [...stats.values()].filter(s => s.type === 'inbound-rtp');
		const video = all.find(s => s.kind === 'video'), audio = all.find(s => s.kind === 'audio');
		if (video?.framesDecoded > 10 && audio?.packetsReceived > 50) return stats.get(audio.codecId).mimeType + ' and a picture';
		got = JSON.stringify(all);
	}
	return got;
})()`

// Offers with a data channel are answered, and G.711 beside video reaches a
// viewer at another node.
func TestForeignOffers(t *testing.T) {
	setUp(t)
	a, b := world.net.Node(nodeA), world.net.Node(nodeB)
	const stream = "foreign/alaw"
	for _, c := range []struct {
		url  string
		send bool
	}{{a.HTTP + "/whip/" + stream, true}, {b.HTTP + "/whep/" + stream, false}} {
		tab := open(t, world.chromium)
		tab.Go(a.HTTP + "/play/none")
		tab.Expect(notThere)
		answer := Eval[string](tab, fmt.Sprintf(foreign, c.url, c.send))
		if !strings.Contains(answer, "m=application 0 ") || strings.Contains(answer, "m=audio 0") || strings.Contains(answer, "m=video 0") {
			t.Fatalf("the answer:\n%s", answer)
		}
		tab.Until(`window.foreign.connectionState === 'connected'`)
		if c.send {
			continue
		}
		if got := Eval[string](tab, received); got != "audio/PCMA and a picture" {
			t.Errorf("the viewer got %s", got)
		}
	}
}
