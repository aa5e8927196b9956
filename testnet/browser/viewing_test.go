package browser

import (
	"fmt"
	"strings"
	"testing"
)

// speak publishes camera and microphone, with G.722 or another codec of sound.
const speak = `(async (url, codec) => {
	const pc = window.speaking = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
	const media = await navigator.mediaDevices.getUserMedia({audio: true, video: {width: 320, height: 180}});
	for (const track of media.getTracks()) pc.addTransceiver(track, {direction: 'sendonly', streams: [media]});
	const sound = pc.getTransceivers().find(t => t.sender.track.kind === 'audio');
	sound.setCodecPreferences(RTCRtpSender.getCapabilities('audio').codecs.filter(c => c.mimeType === codec));
	window.tracks = media.getTracks();
	for (const t of pc.getTransceivers()) t.setHeaderExtensionsToNegotiate(t.getHeaderExtensionsToNegotiate().map(e => e.uri.endsWith('abs-capture-time') ? {...e, direction: 'sendrecv'} : e));
	await pc.setLocalDescription(await pc.createOffer());
	const answer = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
	if (answer.status !== 201) throw new Error(answer.status + ' ' + await answer.text());
	await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
})(%q, %q)`

// attend views a stream, and follows the events of its session in window.events.
const attend = `(async (url) => {
	const pc = window.viewing = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
	for (const kind of ['audio', 'video']) pc.addTransceiver(kind, {direction: 'recvonly'});
	for (const t of pc.getTransceivers()) t.setHeaderExtensionsToNegotiate(t.getHeaderExtensionsToNegotiate().map(e => e.uri.endsWith('abs-capture-time') ? {...e, direction: 'sendrecv'} : e));
	for (const {receiver} of pc.getTransceivers()) {
		const element = document.createElement(receiver.track.kind); // what nobody plays is not decoded
		element.muted = true;
		if (receiver.track.kind === 'video') window.picture = element;
		element.srcObject = new MediaStream([receiver.track]);
		element.play().catch(() => 0); // sound waits for a click, and is decoded all the same
	}
	await pc.setLocalDescription(await pc.createOffer());
	const answer = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
	if (answer.status !== 201) throw new Error(answer.status + ' ' + await answer.text());
	window.session = answer.headers.get('Location');
	await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
	const entry = answer.headers.get('Link').split(/,\s*(?=<)/).find(l => l.includes('server-sent-events')).match(/<([^>]+)>/)[1];
	const made = await fetch(entry, {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '["active","inactive","viewercount","layers"]'});
	window.events = [];
	const source = window.source = new EventSource(made.headers.get('Location'));
	for (const kind of ['active', 'inactive', 'viewercount', 'layers']) source.addEventListener(kind, e => window.events.push(kind + ' ' + e.data));
	window.look = async () => {
		const all = [...(await pc.getStats()).values()];
		const of = kind => all.find(s => s.type === 'inbound-rtp' && s.kind === kind);
		const codec = all.find(s => s.id === of('audio')?.codecId);
		return {frames: of('video')?.framesDecoded ?? 0, sound: of('audio')?.packetsReceived ?? 0, codec: codec?.mimeType ?? ''};
	};
})(%q)`

// looks waits for a condition on window.look() in the page.
func looks(tab *Tab, condition string) {
	tab.t.Helper()
	if !Eval[bool](tab, `(async () => {
		for (const began = performance.now(); performance.now() - began < 30000; await new Promise(done => setTimeout(done, 50))) {
			const now = await window.look();
			if (`+condition+`) return true;
		}
		return false;
	})()`) {
		tab.t.Fatalf("%s did not come true: %v, events %q", condition, Eval[any](tab, "window.look()"), Eval[[]string](tab, "window.events"))
	}
}

// A viewer at another node hears by EventSource how the stream is, pauses its
// picture and gets it again, and learns from header extensions how loud each
// sound is; in every codec of sound that browsers have.
func TestForeignViewer(t *testing.T) {
	setUp(t)
	a, b := world.net.Node(nodeA), world.net.Node(nodeB)
	for _, codec := range []string{"audio/opus", "audio/G722", "audio/PCMU"} {
		t.Run(strings.TrimPrefix(codec, "audio/"), func(t *testing.T) {
			stream := "viewing/" + strings.ToLower(codec)
			publisher, viewer := open(t, world.chromium), open(t, world.chromium)
			for _, tab := range []*Tab{publisher, viewer} {
				tab.Go(a.HTTP + "/play/none")
				tab.Expect(notThere)
			}
			Eval[any](publisher, fmt.Sprintf(speak, a.HTTP+"/whip/"+stream, codec))
			publisher.Until(`window.speaking.connectionState === 'connected'`)
			Eval[any](viewer, fmt.Sprintf(attend, b.HTTP+"/whep/"+stream))
			looks(viewer, `now.frames > 10 && now.sound > 50 && now.codec === '`+codec+`'`)
			viewer.Until(`window.events.includes('active {}') && window.events.includes('viewercount {"viewercount":1}') && window.events.some(e => e.startsWith('layers {"1":[{'))`)
			if codec != "audio/opus" {
				return
			}
			viewer.Until(`window.viewing.getReceivers()[0].getSynchronizationSources()[0]?.audioLevel > 0`)
			viewer.Until(`window.viewing.getReceivers().every(r => r.getSynchronizationSources()[0]?.captureTimestamp > 0)`)
			const set = `fetch(window.session + '/media', {method: 'PATCH', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({video: %v})}).then(r => r.text())`
			if got := Eval[string](viewer, fmt.Sprintf(set, false)); strings.TrimSpace(got) != `{"audio":true,"video":false}` {
				t.Errorf("paused: %s", got)
			}
			looks(viewer, `window.still?.frames === now.frames && now.sound > window.still.sound + 20 || (window.still = window.still?.frames === now.frames ? window.still : now, false)`)
			Eval[string](viewer, fmt.Sprintf(set, true))
			looks(viewer, `now.frames > window.still.frames + 10`)

			Eval[any](publisher, `Promise.all(window.speaking.getSenders().map(s => s.replaceTrack(null)))`)
			viewer.Until(`window.events.at(-1) === 'inactive {}' || window.events.includes('inactive {}')`)
			Eval[any](publisher, `Promise.all(window.speaking.getTransceivers().map(t => t.sender.replaceTrack(window.tracks.find(k => k.kind === t.receiver.track.kind))))`)
			viewer.Until(`window.events.filter(e => e === 'active {}').length === 2`)
			Eval[any](viewer, `fetch(window.session, {method: 'DELETE'}).then(() => window.source.close())`)
			viewer.Expect(`event-stream|404|ERR_`)
		})
	}
}
