package browser

import "testing"

// Firefox publishes to and plays from Chromium, over a cascade link, and its
// simulcast is accepted, with one layer forwarded. It uses no loopback address
// for media.
func TestFirefox(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a, b := twoNodes(t)
	chromium, firefox := startChromium(t), startFirefox(t)
	watch := func(url string) *Tab {
		tb := open(t, chromium)
		tb.Expect(notThere)
		tb.Expect("Cross-Origin-Opener-Policy") // browsers require https for it
		tb.Go(url)
		tb.Until("window.weir.state === 'live' && window.weir.framesDecoded > 20 && window.weir.width > 0")
		return tb
	}

	publisher := openPage(t, firefox, a+"/publish?stream=firefox/pattern")
	until(t, publisher, "a publish page", `document.querySelector('#start') && window.weir`)
	if err := publisher.Eval(`(document.querySelector('#start').click(), true)`, new(bool)); err != nil {
		t.Fatal(err)
	}
	until(t, publisher, "a live stream", `window.weir.state === 'live' && window.weir.framesEncoded > 10`)
	moves(t, watch(b+"/play/firefox/pattern"), true)

	viewer := openPage(t, firefox, b+"/play/firefox/pattern")
	until(t, viewer, "frames that rise", `window.weir && window.weir.state === 'live' && window.weir.framesDecoded > 20 && window.weir.hops === 1`)
	if err := viewer.Close(); err != nil {
		t.Error(err)
	}

	// Three layers by RID, whose SSRCs its offer need not name.
	simulcast := openPage(t, firefox, a+"/play")
	if err := simulcast.Eval(`(async () => {
		const canvas = document.createElement('canvas');
		[canvas.width, canvas.height] = [640, 360];
		const g = canvas.getContext('2d');
		setInterval(() => { g.fillStyle = 'hsl(' + Math.random() * 360 + ' 80% 50%)'; g.fillRect(0, 0, 640, 360); }, 50);
		const pc = window.pc = new RTCPeerConnection();
		pc.addTransceiver(canvas.captureStream(20).getVideoTracks()[0], {direction: 'sendonly', sendEncodings: [
			{rid: 'h'}, {rid: 'm', scaleResolutionDownBy: 2}, {rid: 'l', scaleResolutionDownBy: 4}]});
		await pc.setLocalDescription();
		const response = await fetch('/whip/firefox/simulcast', {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
		const body = await response.text();
		if (response.status !== 201) throw new Error(response.status + ' ' + body);
		await pc.setRemoteDescription({type: 'answer', sdp: body});
		return true;
	})()`, new(bool)); err != nil {
		t.Fatal(err)
	}
	watch(b + "/play/firefox/simulcast")
}
