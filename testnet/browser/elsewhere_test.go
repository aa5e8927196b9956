package browser

import (
	"fmt"
	"testing"
	"time"
)

// Left and right channels arrive as published: browsers send and play stereo
// only if both descriptions ask for it.
func TestSoundIsStereo(t *testing.T) {
	setUp(t)
	const stream = "stereo"
	publisher := publish(t, world.chromium, nodeA, stream, source{kind: "pattern"})
	defer publisher.Click("#stop")
	player := play(t, world.chromium, nodeA, stream)
	player.ClickIn("#player", "#unmute")
	Eval[any](player, `(async () => {
		const audio = new AudioContext();
		await audio.resume();
		const split = audio.createChannelSplitter(2);
		audio.createMediaStreamSource(document.querySelector('#player').video.srcObject).connect(split);
		const sides = [0, 1].map((side) => {
			const analyser = new AnalyserNode(audio, {fftSize: 4096});
			split.connect(analyser, side);
			return analyser;
		});
		const samples = new Float32Array(4096);
		const loudest = (analyser) => {
			analyser.getFloatTimeDomainData(samples);
			return samples.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
		};
		window.sides = {left: 0, right: 0};
		setInterval(() => {
			const [left, right] = sides.map(loudest);
			if (left > 0.05 && right < left / 8) window.sides.left++;
			if (right > 0.05 && left < right / 8) window.sides.right++;
		}, 20);
	})()`)
	// The pattern's tone alternates between left and right.
	player.Until("window.sides.left > 3 && window.sides.right > 3")
}

// A viewer whose node stops answering is served by another one soon, and sees
// the last picture until then.
func TestPlayerGoesOnElsewhere(t *testing.T) {
	setUp(t)
	const stream = "elsewhere"
	publisher := publish(t, world.chromium, nodeA, stream, source{kind: "pattern"})
	defer publisher.Click("#stop")
	player := play(t, world.chromium, nodeB, stream)
	moves(t, player, true)
	// The page comes from B too, so it has to know the other nodes in advance.
	player.Until(fmt.Sprintf("window.weir.node === %q && document.querySelector('#player').alternatives.length > 0", world.net.Node(nodeB).PeerID))
	Eval[any](player, `(() => {
		window.stills = [];
		const still = document.querySelector('#player').shadowRoot.querySelector('#still');
		new MutationObserver(() => {
			if (still.hidden) return;
			const copy = new OffscreenCanvas(still.width, still.height).getContext('2d', {willReadFrequently: true});
			copy.drawImage(still, 0, 0);
			const rgba = copy.getImageData(0, 0, still.width, still.height).data;
			let sum = 0;
			for (let i = 1; i < rgba.length; i += 400) sum += rgba[i];
			window.stills.push({width: still.width, mean: sum / (rgba.length / 400)});
		}).observe(still, {attributes: true, attributeFilter: ['hidden']});
	})()`)
	player.Expect("Failed to load resource|ERR_")

	if err := world.net.Pause(nodeB); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	defer func() {
		if err := world.net.Resume(nodeB); err != nil {
			t.Error(err)
		}
		if err := world.net.AwaitRecords(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	player.Until(fmt.Sprintf("window.weir.state === 'live' && window.weir.node && window.weir.node !== %q && window.weir.firstFrame > 0 && document.querySelector('#player').shadowRoot.querySelector('#still').hidden", world.net.Node(nodeB).PeerID))
	t.Logf("a picture from another node %v after the viewer's own was stopped", time.Since(paused).Round(10*time.Millisecond))
	moves(t, player, true)
	type still struct{ Width, Mean float64 }
	stills := Eval[[]still](player, "window.stills")
	if len(stills) == 0 || stills[0].Width < 160 || stills[0].Mean < 30 {
		t.Errorf("while the player waited it showed %+v, want the last picture", stills)
	}
}
