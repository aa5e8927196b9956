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

// ownHost is the address of the only machine in a test's own network.
const ownHost = "10.77.0.1"

// inOwnNetwork marks a process that runs in that network.
const inOwnNetwork = "WEIR_BROWSER_TEST_NETWORK"

// ownNetwork runs the calling test in a network namespace with loopback,
// ownHost and the results of the commands in more. It returns true inside the
// namespace; false means that the test has run there already, and this test has
// the same outcome.
func ownNetwork(t *testing.T, more ...string) bool {
	t.Helper()
	if testing.Short() {
		t.Skip("two browsers and two nodes are too slow for -short")
	}
	if os.Getenv(inOwnNetwork) != "" {
		if err := readSources(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	commands := append([]string{
		"ip link set lo up", "ip link add v0 type veth peer name v1", "ip addr add " + ownHost + "/24 dev v0", "ip link set v0 up", "ip link set v1 up",
	}, more...)
	commands = append(commands, `exec "$0" -test.run "^$1$" -test.v -test.timeout 5m`)
	run := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", strings.Join(commands, " && "), os.Args[0], t.Name())
	run.Env = append(os.Environ(), inOwnNetwork+"=1")
	out, err := run.CombinedOutput()
	if t.Log(string(out)); err != nil {
		t.Fatal(err)
	}
	return false
}

// startChromium starts a Chromium for this test.
func startChromium(t *testing.T) *Chromium {
	t.Helper()
	c, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// startFirefox starts a Firefox for this test.
func startFirefox(t *testing.T) *Firefox {
	t.Helper()
	f, err := StartFirefox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// openPage opens url in a new tab of f.
func openPage(t *testing.T, f *Firefox, url string) *Page {
	t.Helper()
	p, err := f.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until waits until an expression is true in a page of Firefox.
func until(t *testing.T, p *Page, what, expression string) {
	t.Helper()
	defer func() {
		var says string
		if t.Failed() && p.Eval(`JSON.stringify(window.weir) + ' ' + (document.querySelector('#status')?.textContent ?? '')`, &says) == nil {
			t.Log("the page says", says)
		}
	}()
	eventually(t, "in Firefox: "+what, func() bool {
		var ok bool
		if err := p.Eval("Boolean("+expression+")", &ok); err != nil {
			t.Fatal(err)
		}
		return ok
	})
}

// readyNode is the content of a node's ready file.
type readyNode struct {
	P2P  []string `json:"p2p"`
	HTTP string   `json:"http"`

	process *os.Process
}

// twoNodes starts two nodes of one network and returns their URLs.
func twoNodes(t *testing.T) (a, b string) {
	t.Helper()
	first, second := startTwo(t)
	return first.HTTP, second.HTTP
}

// startTwo starts two nodes of one network.
func startTwo(t *testing.T) (first, second readyNode) {
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
			"--listen", "/ip4/" + ownHost + "/tcp/0", "--http", ownHost + ":0", "--admin", "127.0.0.1:0", "--media-port", ownHost + ":0",
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
		node.process = cmd.Process
		return node
	}
	first = start("a")
	return first, start("b", "--bootstrap", first.P2P[0])
}
