package browser

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	// Firefox uses no loopback address for media, so this test has a network of
	// its own, with one machine in it.
	firefoxHost = "10.77.0.1"
	inNamespace = "WEIR_FIREFOX_TEST_NAMESPACE"
	makeNetwork = "ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add " + firefoxHost +
		"/24 dev v0 && ip link set v0 up && ip link set v1 up && exec \"$0\" -test.run '^TestFirefox$' -test.v -test.timeout 5m"
)

// Firefox publishes to and plays from Chromium, over a cascade link, and its
// simulcast is taken, of which one layer flows.
func TestFirefox(t *testing.T) {
	if testing.Short() {
		t.Skip("two browsers and two nodes are too slow for -short")
	}
	if os.Getenv(inNamespace) == "" {
		if os.Getuid() != 0 {
			t.Skip("only root may make a network namespace, and Firefox uses no loopback address for media")
		}
		run := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", makeNetwork, os.Args[0])
		run.Env = append(os.Environ(), inNamespace+"=1")
		out, err := run.CombinedOutput()
		if t.Log(string(out)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := readSources(); err != nil {
		t.Fatal(err)
	}
	a, b := twoNodes(t)

	chromium, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chromium.Close(); err != nil {
			t.Error(err)
		}
	})
	firefox, err := StartFirefox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := firefox.Close(); err != nil {
			t.Error(err)
		}
	})
	page := func(url string) *Page {
		t.Helper()
		p, err := firefox.Open(url)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	until := func(p *Page, what, expression string) {
		t.Helper()
		defer func() {
			var says string
			if t.Failed() && p.Eval(`JSON.stringify(window.weir) + ' ' + (document.querySelector('#status')?.textContent ?? '')`, &says) == nil {
				t.Log("the page says", says)
			}
		}()
		eventually(t, "in Firefox: "+what, func() bool {
			var ok bool
			if err := p.Eval(expression, &ok); err != nil {
				t.Fatal(err)
			}
			return ok
		})
	}
	watch := func(url string) *Tab {
		tb := open(t, chromium)
		tb.Expect(notThere)
		tb.Expect("Cross-Origin-Opener-Policy") // browsers want https for it
		tb.Go(url)
		tb.Until("window.weir.state === 'live' && window.weir.framesDecoded > 20 && window.weir.width > 0")
		return tb
	}

	publisher := page(a + "/publish?stream=firefox/pattern")
	until(publisher, "a publish page", `Boolean(document.querySelector('#start') && window.weir)`)
	if err := publisher.Eval(`(document.querySelector('#start').click(), true)`, new(bool)); err != nil {
		t.Fatal(err)
	}
	until(publisher, "a live stream", `window.weir.state === 'live' && window.weir.framesEncoded > 10`)
	moves(t, watch(b+"/play/firefox/pattern"), true)

	viewer := page(b + "/play/firefox/pattern")
	until(viewer, "frames that rise", `window.weir && window.weir.state === 'live' && window.weir.framesDecoded > 20 && window.weir.hops === 1`)
	if err := viewer.Close(); err != nil {
		t.Error(err)
	}

	// Three layers by RID, whose SSRCs its offer need not name.
	simulcast := page(a + "/play")
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

// readyNode is what a node says of itself once it is ready.
type readyNode struct {
	P2P  []string `json:"p2p"`
	HTTP string   `json:"http"`
}

// twoNodes starts two nodes of one network and returns their URLs.
func twoNodes(t *testing.T) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	weir := filepath.Join(dir, "weir")
	if out, err := exec.Command("go", "build", "-o", weir, "weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	start := func(name string, more ...string) readyNode {
		t.Helper()
		ready := filepath.Join(dir, name+".json")
		cmd := exec.Command(weir, append([]string{
			"node", "--insecure-open", "--console", "public", "--network", "firefox", "--name", name, "--data-dir", filepath.Join(dir, name), "--ready-file", ready,
			"--listen", "/ip4/" + firefoxHost + "/tcp/0", "--http", firefoxHost + ":0", "--admin", "127.0.0.1:0", "--media-port", firefoxHost + ":0",
		}, more...)...)
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
				t.Log(name, log.String())
			}
		})
		var node readyNode
		eventually(t, name+" is ready", func() bool {
			b, err := os.ReadFile(ready)
			return err == nil && json.Unmarshal(b, &node) == nil
		})
		return node
	}
	first := start("a")
	second := start("b", "--bootstrap", first.P2P[0])
	return first.HTTP, second.HTTP
}
