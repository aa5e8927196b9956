package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Two players at B share one pull of a stream published at A, and learn of its
// end.
func TestPatternOverACascade(t *testing.T) {
	setUp(t)
	const stream = "cascade/pattern"
	a, b := world.net.Node(nodeA), world.net.Node(nodeB)
	publisher := publish(t, world.chromium, nodeA, stream, source{kind: "pattern"})
	players := []*Tab{play(t, world.chromium, nodeB, stream)}
	checkSound(t, players[0])
	checkReports(t, players[0])
	watchLips(players[0])
	players = append(players, play(t, world.chromium, nodeB, stream))
	for _, p := range players {
		moves(t, p, true)
		p.Until(fmt.Sprintf("window.weir.hops === 1 && window.weir.node === %q", b.PeerID))
		if got := p.Text("#served"); !strings.HasSuffix(got, "this node, 1 hop from where it is published.") {
			t.Errorf("the page says %q", got)
		}
	}

	link, pulls := pull(t, nodeB, stream)
	if pulls != 1 || link.Peer != a.PeerID {
		t.Fatalf("%d pulls for two players, the last from %s; want 1 from %s", pulls, link.Peer, a.PeerID)
	}
	eventually(t, "more packets over the link", func() bool {
		now, _ := pull(t, nodeB, stream)
		return now.PacketsIn > link.PacketsIn+100
	})
	given := 0
	for _, l := range get[[]struct{ PullsOut []string }](t, nodeA, "/links") {
		given += len(l.PullsOut)
	}
	if _, self := pull(t, nodeA, stream); given > 1 || self != 0 {
		t.Errorf("A gives %d pulls and takes %d of its own stream", given, self)
	}

	// All nodes have the records, so ask one that does not carry the stream.
	var tree string
	eventually(t, "the tree of the stream, with both viewers", func() bool {
		out, err := command(t, nodeFull, "streams", "tree", stream)
		tree = out
		return err == nil && strings.Contains(out, "relay  2 viewers")
	})
	lines := strings.Split(tree, "\n")
	if len(lines) != 3 ||
		!strings.HasPrefix(lines[1], "└─ ") || !strings.Contains(lines[1], a.HTTP+"  origin") ||
		!strings.HasPrefix(lines[2], "   └─ ") || !strings.Contains(lines[2], b.HTTP+"  relay") {
		t.Errorf("the tree is\n%s\nwant B below A and nothing else", tree)
	}

	checkLips(t, players[0])
	shootCascade(t, publisher, players[0])

	for _, p := range players {
		p.Expect(notThere)
	}
	publisher.Click("#stop")
	for _, p := range players {
		p.Until("window.weir.state === 'waiting' && window.weir.status === 409")
		want := fmt.Sprintf("No longer live|stream %q is not live: try again when it is published|", stream)
		if got := Eval[string](p, "[..."+inPlayer+".querySelector('#error').children].map(e => e.textContent).join('|')"); !strings.HasPrefix(got, want) {
			t.Errorf("the player says %q, want %q and when it tries again", got, want)
		}
		if got := p.Text("#status"); got != "No longer live. Trying again by itself." {
			t.Errorf("the player's status is %q", got)
		}
	}
	players[0].Shoot("e2e-ended")
	eventually(t, "no session, no pull and no stream left", func() bool {
		_, pulls := pull(t, nodeB, stream)
		_, err := command(t, nodeA, "streams", "tree", stream)
		return pulls == 0 && err != nil && sessions(t, nodeA, "whip", stream)+sessions(t, nodeB, "whep", stream) == 0
	})
}

// checkSound has the player play sound, and fails the test if none comes.
func checkSound(t *testing.T, tb *Tab) {
	t.Helper()
	// Muted sound counts as silence, whatever is received.
	if Eval[bool](tb, "document.querySelector('#player').muted") {
		tb.ClickIn("#player", "#unmute")
	}
	type audio struct {
		PacketsReceived                        int
		TotalAudioEnergy, TotalSamplesDuration float64
	}
	const inbound = `connections.at(-1).getStats().then(stats => {
		const {packetsReceived, totalAudioEnergy, totalSamplesDuration} = [...stats.values()].find(s => s.type === 'inbound-rtp' && s.kind === 'audio');
		return {packetsReceived, totalAudioEnergy, totalSamplesDuration};
	})`
	before := Eval[audio](tb, inbound)
	eventually(t, "sound", func() bool {
		now := Eval[audio](tb, inbound)
		return now.PacketsReceived > before.PacketsReceived+50 && now.TotalAudioEnergy > before.TotalAudioEnergy && now.TotalSamplesDuration > before.TotalSamplesDuration
	})
}

// checkReports fails the test unless sender reports of both tracks arrive with
// the publisher's time, whose clock is this machine's too.
func checkReports(t *testing.T, tb *Tab) {
	t.Helper()
	const most = 250 // ms of delay, on a busy machine
	var late map[string]float64
	eventually(t, "sender reports", func() bool {
		late = Eval[map[string]float64](tb, `connections.at(-1).getStats().then(stats => Object.fromEntries(
			[...stats.values()].filter(s => s.type === 'remote-outbound-rtp').map(s => [s.kind, s.timestamp - s.remoteTimestamp])))`)
		return len(late) == 2
	})
	for kind, ms := range late {
		if ms < -most || ms > most {
			t.Errorf("the sender report of %s is %.0f ms late", kind, ms)
		}
	}
}

// watchLips makes the page record when the pattern's flashes are shown and when
// its tones are heard, both by performance.now(). The page must have been
// clicked on to hear anything.
//
// Chromium 156 does not report estimatedPlayoutTimestamp of getStats, which has
// this, for a connection that only receives.
func watchLips(tb *Tab) {
	tb.t.Helper()
	Eval[any](tb, `(async () => {
		const video = document.querySelector('#player').video;
		const seen = window.lips = {Flashes: [], Tones: []};

		const g = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
		let lit = true;
		const frame = (now, {expectedDisplayTime}) => {
			const [width, height] = [video.videoWidth, video.videoHeight];
			g.drawImage(video, 0.4 * width, 0.125 * height, 0.2 * width, 0.01 * height, 0, 0, 1, 1);
			const was = lit;
			lit = g.getImageData(0, 0, 1, 1).data[1] > 127;
			if (lit && !was) seen.Flashes.push(expectedDisplayTime);
			video.requestVideoFrameCallback(frame);
		};
		video.requestVideoFrameCallback(frame);

		const audio = new AudioContext();
		await audio.resume();
		const analyser = new AnalyserNode(audio, {fftSize: 8192});
		audio.createMediaStreamSource(video.srcObject).connect(analyser);
		const samples = new Float32Array(analyser.fftSize);
		let quiet = false;
		setInterval(() => {
			analyser.getFloatTimeDomainData(samples);
			const now = performance.now();
			const first = samples.findIndex(v => Math.abs(v) > 0.02);
			if (first > 0 && quiet) seen.Tones.push(now - (samples.length - first) / audio.sampleRate * 1000);
			quiet = first < 0;
		}, 10);
	})()`)
}

// checkLips fails the test if flashes and tones do not become synchronous.
//
// Chromium shifts one against the other by the sender reports, by about 80 ms
// each second: wrong reports show only after a while, and so does the
// correction of a busy machine's buffers. The median of several beats counts,
// since single frames are painted late.
func checkLips(t *testing.T, tb *Tab) {
	t.Helper()
	const first, last, few, apart, most = 12, 16, 5, time.Second, 200 * time.Millisecond
	type lips struct{ Flashes, Tones []float64 }
	var skew time.Duration
	eventually(t, "flashes and tones", func() bool {
		seen := Eval[lips](tb, "window.lips")
		var skews []time.Duration
		for _, tone := range seen.Tones {
			for _, flash := range seen.Flashes {
				if d := time.Duration((tone - flash) * float64(time.Millisecond)); d.Abs() < apart/2 {
					skews = append(skews, d.Round(time.Millisecond))
				}
			}
		}
		if len(skews) < first {
			return false
		}
		skew = slices.Sorted(slices.Values(skews[len(skews)-few:]))[few/2]
		if len(skews) > last {
			t.Fatalf("sound and picture are %v apart, want at most %v; at each beat %v", skew, most, skews)
		}
		return skew.Abs() <= most
	})
	t.Logf("the tone is heard %v after the flash is seen", skew)
}

func TestCameraOverACascade(t *testing.T) {
	setUp(t)
	const stream = "camera"
	publish(t, world.chromium, nodeA, stream, source{kind: "camera"})
	player := play(t, world.chromium, nodeB, stream)
	moves(t, player, false)
	checkSound(t, player)
	if _, pulls := pull(t, nodeB, stream); pulls != 1 {
		t.Errorf("B pulls the stream %d times, want once", pulls)
	}
	player.Shoot("e2e-camera")
}

// A full node redirects players and publishers, and the pages say so.
func TestRedirect(t *testing.T) {
	setUp(t)
	const stream, other = "redirect", "redirect-other"
	full := world.net.Node(nodeFull)
	host := strings.TrimPrefix(full.HTTP, "http://")
	publish(t, world.chromium, nodeFull, stream, source{kind: "pattern"})
	here := play(t, world.chromium, nodeFull, stream)
	if got := nodeAt(t, here); got != nodeFull {
		t.Fatalf("the player is at %s, want %s while that has room", got, nodeFull)
	}

	player := play(t, world.chromium, nodeFull, stream)
	helper := nodeAt(t, player)
	if helper == nodeFull {
		t.Fatalf("%s takes more than %d sessions", nodeFull, fullSessions)
	}
	moves(t, player, true)
	player.Until("window.weir.hops === 1")
	if got, want := player.Text("#served"), fmt.Sprintf("(%s handed you on), 1 hop from where it is published.", host); !strings.HasSuffix(got, want) {
		t.Errorf("the player says %q, want %q", got, want)
	}
	if link, pulls := pull(t, helper, stream); pulls != 1 || link.Peer != full.PeerID {
		t.Errorf("%s pulls the stream %d times, want once, from %s", helper, pulls, nodeFull)
	}
	player.ShootAll("e2e-redirected")

	publisher := publish(t, world.chromium, nodeFull, other, source{kind: "pattern"})
	if got := nodeAt(t, publisher); got == nodeFull {
		t.Fatalf("%s takes more than %d sessions", nodeFull, fullSessions)
	}
	publisher.Until(fmt.Sprintf("document.querySelector('#served').textContent.endsWith(': %s handed you on to it.')", host))
	moves(t, play(t, world.chromium, nodeFull, other), true) // redirected to the carrier
	publisher.Shoot("e2e-publish-redirected")
	shootNetwork(t, nodeFull)
}

// Every codec that this Chromium can encode is decoded by another one behind a
// cascade link.
func TestCodecs(t *testing.T) {
	t.Parallel() // in parallel with the next, which mostly waits
	setUp(t)
	for _, codec := range []string{"VP8", "H264", "VP9", "AV1"} {
		t.Run(codec, func(t *testing.T) {
			stream := "codec-" + codec
			publish(t, world.chromium, nodeA, stream, source{kind: "pattern", codec: codec})
			player := play(t, world.chromium, nodeB, stream)
			moves(t, player, true)
			const decoded = `connections.at(-1).getStats().then(stats => stats.get([...stats.values()].find(s => s.type === 'inbound-rtp' && s.kind === 'video').codecId).mimeType)`
			if got, want := Eval[string](player, decoded), "video/"+codec; got != want {
				t.Errorf("the player decodes %s, want %s", got, want)
			}
			if _, pulls := pull(t, nodeB, stream); pulls != 1 {
				t.Errorf("B pulls the stream %d times, want once", pulls)
			}
		})
	}
}

// A killed browser sends nothing: nodes detect it by its silence.
func TestKilledBrowserIsReaped(t *testing.T) {
	t.Parallel()
	setUp(t)
	// consent is the latest time at which a client without connectivity checks
	// is ended: sfu's consentTimeout and the interval of its checks.
	const consent = 35 * time.Second
	const stream = "killed"
	victim, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := victim.Close(); err != nil {
			t.Error(err)
		}
	})
	publish(t, victim, nodeA, stream, source{kind: "pattern"})
	play(t, victim, nodeB, stream)
	play(t, victim, nodeA, stream)
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	within(t, consent, "no session, no pull and no stream of the killed browser", func() bool {
		_, pulls := pull(t, nodeB, stream)
		_, err := command(t, nodeA, "streams", "tree", stream)
		return pulls == 0 && err != nil &&
			sessions(t, nodeA, "whip", stream)+sessions(t, nodeA, "whep", stream)+sessions(t, nodeB, "whep", stream) == 0
	})
	t.Logf("the killed browser's sessions were gone after %v", time.Since(killed).Round(time.Millisecond))
}

// shootCascade saves pictures of all pages during a cascade, if requested.
func shootCascade(t *testing.T, publisher, player *Tab) {
	t.Helper()
	publisher.ShootAll("e2e-publish")
	player.ShootAll("e2e-play")
	shootNetwork(t, nodeB)
}

func shootNetwork(t *testing.T, node string) {
	t.Helper()
	tb := open(t, world.chromium)
	tb.Go(world.net.Node(node).HTTP)
	tb.Until("document.querySelector('#feed').textContent === 'Live' && document.querySelectorAll('#nodes tbody .row').length === 3 && document.querySelector('.link')")
	tb.NoOverflow()
	tb.ShootAll("e2e-network-" + node)
}
