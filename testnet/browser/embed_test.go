package browser

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// servePage serves a page of another origin than any node's, at addr, and
// returns its URL. The body is read at each request.
func servePage(t *testing.T, addr string, body *string) string {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNoContent) // the icon
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>A page of somebody else's</title>\n%s\n</html>", *body)
	}))
	s.Listener.Close()
	s.Listener = listener
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// noteEvents is a script that records the events of a page's player.
const noteEvents = `<script>
	window.events = [];
	for (const type of ['playing', 'stalled', 'moved', 'ended', 'error']) {
		document.querySelector('weir-player').addEventListener(type, ({detail}) => window.events.push({type, ...detail}));
	}
	window.number = () => {
		const {video} = document.querySelector('weir-player');
		const canvas = document.createElement('canvas');
		const g = canvas.getContext('2d', {willReadFrequently: true});
		[canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
		if (canvas.width <= 2) return -1;
		g.drawImage(video, 0, 0);
		let number = 0;
		for (let i = 0; i < 16; i++) number = number * 2 + (g.getImageData((i + 0.5) * canvas.width / 16, canvas.height * 0.94, 1, 1).data[1] > 127 ? 1 : 0);
		return number;
	};
</script>`

// In pages of another site, in Chromium and in Firefox, playback continues from
// another node when the player's own is killed, though the page names only one.
func TestPlayerOutlivesItsNode(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a, b := startTwo(t)
	chromium, firefox := startChromium(t), startFirefox(t)
	publisher := open(t, chromium)
	publisher.Expect("Cross-Origin-Opener-Policy") // browsers require https for it
	publisher.Expect("Failed to load resource")    // its requests for the nodes' state fail
	publisher.Go(a.HTTP + "/publish?stream=hall/one")
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.framesEncoded > 0")

	body := fmt.Sprintf(
		`<h1>A page of somebody else's</h1><script type="module" src="%[1]s/weir-player.js"></script><weir-player src="%[1]s/whep/hall/one" muted></weir-player>%[2]s`, b.HTTP, noteEvents)
	page := servePage(t, ownHost+":0", &body)
	const player = "document.querySelector('weir-player')"
	ready := fmt.Sprintf("%[1]s.playing && %[1]s.node === %[2]q && %[1]s.alternatives.includes(%[3]q) && %[1]s.latency > 0 && window.number() > 0", player, b.HTTP, a.HTTP)
	inChromium := open(t, chromium)
	inChromium.Expect("Failed to load resource|ERR_") // from the killed node
	inChromium.Go(page)
	inChromium.Until(ready)
	inFirefox := openPage(t, firefox, page)
	until(t, inFirefox, "a picture from the second node", ready)

	if err := b.process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	moved := fmt.Sprintf("%[1]s.playing && window.events.some(e => e.type === 'moved' && e.from === %[2]q && e.to === %[3]q) && window.events.at(-1).type === 'playing'", player, b.HTTP, a.HTTP)
	inChromium.Until(moved)
	until(t, inFirefox, "a picture from the first node", moved)

	n := Eval[int](inChromium, "window.number()")
	inChromium.Until(fmt.Sprintf("window.number() > %d", n+10))
	if err := inFirefox.Eval("window.number()", &n); err != nil {
		t.Fatal(err)
	}
	until(t, inFirefox, "frames that count up", fmt.Sprintf("window.number() > %d", n+10))
	inChromium.Shoot("embed-foreign")
}

// The README's line for a page plays the stream that the README's commands
// publish.
func TestReadmeLineForAPage(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^<script .*</weir-player>$`).Find(readme)
	if line == nil {
		t.Fatal("the README shows no line for a page")
	}
	dir := t.TempDir()
	weir := filepath.Join(dir, "weir")
	if out, err := exec.Command("go", "build", "-o", weir, "weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	for _, want := range [][]string{{"node", "--dev"}, {"publish", "--pattern", "http://127.0.0.1:8080/whip/demo"}} {
		if !strings.Contains(string(readme), "bin/weir "+strings.Join(want, " ")) {
			t.Fatalf("the README does not say weir %q", want)
		}
		cmd := exec.Command(weir, want...)
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(dir, "data"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var log strings.Builder
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			if t.Failed() {
				t.Log(want, log.String())
			}
		})
		eventually(t, "the node is ready", func() bool {
			res, err := http.Get("http://127.0.0.1:8080/readyz")
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == http.StatusOK
		})
	}
	tb := open(t, startChromium(t))
	tb.Expect(notThere) // before the stream is live
	body := string(line)
	tb.Go(servePage(t, "127.0.0.1:0", &body))
	tb.Until("document.querySelector('weir-player').playing && document.querySelector('weir-player').latency > 0")
}

// A node's embed page plays in a frame of another site, unless the node
// restricts framing to other sites.
func TestEmbedPage(t *testing.T) {
	setUp(t)
	const stream = "embed/frame"
	publisher := publish(t, world.chromium, nodeA, stream, source{kind: "pattern"})
	defer publisher.Click("#stop")
	frame := func(node string) *Tab {
		tb := open(t, world.chromium)
		tb.Inject(`window.told = []; if (window === top) addEventListener('message', ({data}) => window.told.push(data))`)
		body := fmt.Sprintf(`<h1>A frame</h1><iframe width="640" height="360" allow="autoplay; fullscreen; picture-in-picture" src="%s/embed/%s?muted=1"></iframe>`, world.net.Node(node).HTTP, stream)
		tb.Go(servePage(t, "127.0.0.1:0", &body))
		return tb
	}
	tb := frame(nodeB)
	tb.Until("window.told.some(m => m.weir === 'playing')")
	tb.Shoot("embed-page")
	before := sessions(t, nodeFull, "whep", stream)
	refused := frame(nodeFull)
	refused.UntilSaid("frame-ancestors")
	if got := sessions(t, nodeFull, "whep", stream); got != before {
		t.Errorf("in a frame that is refused %d players play", got-before)
	}
	if got := Eval[int](refused, "window.told.length"); got != 0 {
		t.Errorf("the refused frame says %d things", got)
	}
}
