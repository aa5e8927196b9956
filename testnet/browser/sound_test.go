package browser

import (
	"fmt"
	"testing"
)

// A stream without video is played by a node's own page, whose offer has a
// section of video first. The page ends loading, and says what it plays.
func TestSoundAloneIsPlayed(t *testing.T) {
	setUp(t)
	publisher := open(t, world.chromium)
	publisher.Go(world.net.Node(nodeA).HTTP + "/play/none")
	publisher.Expect(notThere)
	Eval[string](publisher, fmt.Sprintf(preferAudio, true, `['opus']`, world.net.Node(nodeA).HTTP+"/whip/sound"))
	publisher.Until(`window.last.connectionState === 'connected'`)
	player := open(t, world.chromium)
	player.Go(world.net.Node(nodeB).HTTP + "/play/sound") // returns once the page is loaded
	player.Until(`Promise.all(window.connections.map(c => c.getStats())).then(all => all.flatMap(stats => [...stats.values()])
		.some(s => s.type === 'inbound-rtp' && s.kind === 'audio' && s.totalSamplesReceived > 48000 && s.totalAudioEnergy > 0))`)
	player.Until(`document.querySelector('#status').textContent.includes('no picture')`)
	player.Shoot("sound")
}
