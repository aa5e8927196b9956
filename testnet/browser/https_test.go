package browser

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weir/testnet"
)

// A browser that trusts the development CA, set up as weir testnet up --tls
// prints, opens the pages over https without a warning, sends its camera there,
// and plays from another node.
func TestPagesOverHTTPS(t *testing.T) {
	setUp(t)
	dir, home := filepath.Join(t.TempDir(), "net"), t.TempDir()
	t.Setenv("HOME", home)
	up := exec.CommandContext(t.Context(), world.weir, "testnet", "up", "-n", "2", "--tls", "--dir", dir)
	out, err := up.CombinedOutput()
	t.Cleanup(func() {
		if out, err := exec.Command(world.weir, "testnet", "down", "--dir", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	trust := regexp.MustCompile(`(?m)^Chromium +(.*)$`).FindSubmatch(out)
	if trust == nil {
		t.Fatalf("weir testnet up --tls does not say how Chromium trusts it:\n%s", out)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", string(trust[1]))
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", trust[1], err, out)
	}
	if _, err := os.Stat(filepath.Join(home, ".pki", "nssdb", "cert9.db")); err != nil {
		t.Fatal(err)
	}
	net, err := testnet.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Node("n1"), net.Node("n2")
	chromium := startChromium(t)

	publisher := open(t, chromium)
	publisher.Go(a.HTTP + "/publish?stream=secure")
	if !Eval[bool](publisher, "isSecureContext && location.protocol === 'https:'") {
		t.Error("the publish page is no secure context")
	}
	publisher.Click("#source-camera")
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.framesEncoded > 0 && window.weir.bytesSent > 0")
	if at := Eval[string](publisher, "window.weir.sessionURL"); !strings.HasPrefix(at, a.HTTP+"/session/") {
		t.Errorf("the session is at %s", at)
	}

	player := open(t, chromium)
	player.Go(b.HTTP + "/play/secure?wait=10s")
	player.Until("window.weir.state === 'live' && window.weir.framesDecoded > 0 && window.weir.firstFrame > 0")
	moves(t, player, false)

	console := open(t, chromium)
	console.Go(strings.Replace(a.HTTP, "127.0.0.1", "localhost", 1) + "/")
	console.Until("document.body.innerText.includes('n2')")
	if protocol := Eval[string](console, "performance.getEntriesByType('navigation')[0].nextHopProtocol"); protocol != "h2" {
		t.Errorf("the console comes by %s", protocol)
	}
}
