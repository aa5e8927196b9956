package browser

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weir/testnet"
)

// A page opened with a token sends it to its node, which admits it and vouches
// for it when it redirects it; the address bar no longer has the token.
func TestTokenOfAPage(t *testing.T) {
	setUp(t)
	dir := t.TempDir()
	key, keys, secret := filepath.Join(dir, "token.key"), filepath.Join(dir, "keys.json"), filepath.Join(dir, "tickets")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(world.weir, args...).Output()
		if err != nil {
			t.Fatalf("weir %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	run("token", "key", "--public", keys, key)
	run("token", "secret", secret)
	net, err := testnet.Up(t.Context(), testnet.Config{Dir: filepath.Join(dir, "net"), N: 2, Binary: world.weir, NodeFlags: func(i int) []string {
		flags := []string{"--auth-keys", keys, "--ticket-secret", secret}
		if i == 1 {
			flags = append(flags, "--session-limit", "1")
		}
		return flags
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := net.AwaitRecords(t.Context()); err != nil {
		t.Fatal(err)
	}
	full, other := net.Node("n1"), net.Node("n2")

	publisher := open(t, world.chromium)
	publisher.Go(full.HTTP + "/publish?stream=demo#token=" + run("token", "new", "--key", key, "--publish", "demo"))
	publisher.Click("#source-pattern")
	publisher.Click("#start")
	publisher.Until("window.weir.state === 'live' && window.weir.bytesSent > 0")
	if at := Eval[string](publisher, "location.href"); at != full.HTTP+"/publish?stream=demo" {
		t.Errorf("the publish page is at %s", at)
	}

	stranger := open(t, world.chromium)
	stranger.Expect("status of 401")
	stranger.Go(full.HTTP + "/play/demo")
	stranger.Until("window.weir.state === 'failed'")
	if said := Eval[string](stranger, inPlayer+".querySelector('#error').textContent"); !strings.Contains(said, "token") {
		t.Errorf("without a token the page says %q", said)
	}

	token := run("token", "new", "--key", key, "--view", "demo")
	for _, address := range []string{"/play/demo?token=%s", "/play/demo#token=%s"} {
		player := open(t, world.chromium)
		player.Go(full.HTTP + fmt.Sprintf(address, token))
		player.Until("window.weir.state === 'live' && window.weir.framesDecoded > 0")
		if at := Eval[string](player, "location.href"); at != full.HTTP+"/play/demo" {
			t.Errorf("the page is at %s", at)
		}
		if kept := Eval[string](player, "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, document.documentElement.outerHTML])"); strings.Contains(kept, token) {
			t.Error("the page keeps its token elsewhere than in memory")
		}
		if node := Eval[string](player, "window.weir.sessionURL"); !strings.HasPrefix(node, other.HTTP+"/") {
			t.Errorf("its session is %s, want one at %s", node, other.Name)
		}
	}
	// The same holds in a page of another site whose player is given a token.
	foreign := open(t, world.chromium)
	foreign.Expect("status of 401")
	body := fmt.Sprintf(
		`<script type="module" src="%[1]s/weir-player.js"></script><weir-player src="%[1]s/whep/demo" muted></weir-player>%[2]s`, full.HTTP, noteEvents)
	foreign.Go(servePage(t, "127.0.0.1:0", &body))
	foreign.Until("window.events.some(e => e.type === 'error' && e.status === 401 && e.code === 'unauthorized')")
	Eval[any](foreign, fmt.Sprintf("document.querySelector('weir-player').setAttribute('token', %q), 1", token))
	foreign.Until(fmt.Sprintf("document.querySelector('weir-player').playing && document.querySelector('weir-player').node === %q", other.HTTP))
}
