package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/problem"
	"weir/testnet/printed"
)

// operating is the text of a section of the operator's guide.
func operating(t *testing.T, section string) string {
	t.Helper()
	b, err := os.ReadFile("../../.github/docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the operator's guide has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// block is the code block of a language in Markdown.
func block(t *testing.T, markdown, language string) string {
	t.Helper()
	_, text, found := strings.Cut(markdown, "```"+language+"\n")
	text, _, closed := strings.Cut(text, "```")
	if !found || !closed {
		t.Fatalf("there is no block of %s", language)
	}
	return text
}

// inFront runs a program until the test ends, and waits until it accepts
// connections at addr.
func inFront(t *testing.T, addr, program string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed in the end
	}()
	t.Cleanup(sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Logf("%s said: %s", program, &out)
		}
	}))
	eventually(t, program+" listens", func() bool {
		if isClosed(ended) {
			t.Fatalf("%s has ended: %s", program, &out)
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// nginx runs an nginx in front of a node, with the given server block.
func nginx(t *testing.T, server, before string) (url string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("there is no nginx: testnet/deps.sh nginx")
	}
	dir, addr := t.TempDir(), freePort(t)
	server = replaced(t, server, `listen 80;`, "listen "+addr+";")
	server = replaced(t, server, `http://127\.0\.0\.1:8080`, before)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // the directory's owner
	}
	var temp strings.Builder
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s;\n", what, dir, what)
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off;\nworker_processes 1;\npid %s/pid;\n%sevents {}\nhttp {\naccess_log off;\n%s%s}\n", dir, user, &temp, server)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	inFront(t, addr, program, "-p", dir, "-c", conf, "-e", "stderr")
	return "http://" + addr
}

// haproxy runs an HAProxy in front of a node, with the given configuration.
func haproxy(t *testing.T, conf, before string) (url string) {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("there is no haproxy: testnet/deps.sh haproxy")
	}
	addr, path := freePort(t), filepath.Join(t.TempDir(), "haproxy.cfg")
	conf = replaced(t, conf, `bind :80`, "bind "+addr)
	conf = replaced(t, conf, `127\.0\.0\.1:8080`, strings.TrimPrefix(before, "http://"))
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	inFront(t, addr, program, "-db", "-f", path)
	return "http://" + addr
}

func replaced(t *testing.T, text, old, by string) string {
	t.Helper()
	re := regexp.MustCompile(old)
	if !re.MatchString(text) {
		t.Fatalf("%q has no %s", text, old)
	}
	return re.ReplaceAllString(text, by)
}

// from is a client at another address of this machine.
func from(t *testing.T, ip string) *http.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// viewFrom has a foreign client view url, and returns it with the answer's
// header once media flows.
func viewFrom(t *testing.T, web *http.Client, url string) http.Header {
	t.Helper()
	v := &handViewer{t: t, pc: newPeer(t)}
	v.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		buf := make([]byte, 2048)
		for {
			if _, _, err := track.Read(buf); err != nil {
				return
			}
			v.packets.Add(1)
		}
	})
	resp, err := web.Post(url, "application/sdp", strings.NewReader(offerOf(t, v.pc, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s, %s, %v", url, resp.Status, text, err)
	}
	v.answered(string(text))
	v.flows()
	return resp.Header
}

// flagsOf are the flags of the i-th command in a section.
func flagsOf(t *testing.T, section string, i int) []string {
	t.Helper()
	lines := printed.Lines(section)
	if i >= len(lines) {
		t.Fatalf("the commands are %q", lines)
	}
	_, flags, found := strings.Cut(lines[i], "weir node ")
	if !found {
		t.Fatalf("%q is not of weir node", lines[i])
	}
	return strings.Fields(flags)
}

// The guide's configurations of nginx and HAProxy work: media flows by WHIP and
// WHEP through them, and the node distinguishes its clients.
func TestBehindProxies(t *testing.T) {
	guide := operating(t, "Behind a proxy")
	w := up(t, 3, func(i int) []string {
		return [][]string{flagsOf(t, guide, 0), flagsOf(t, guide, 1), {"--trusted-proxy", "127.0.0.1"}}[i-1]
	})
	shown, lines, plain := w.n(1), w.n(2), w.n(3)
	viewer := func(n node) string {
		for _, s := range n.sessions(t) {
			if s.Kind == "whep" {
				return s.Remote
			}
		}
		return ""
	}

	// nginx, with a node that has no --public-url: it uses the URL of its clients.
	url := nginx(t, block(t, guide, "nginx"), plain.HTTP)
	p := publish(t, url+"/whip/demo")
	if p.NodeURL() == "" || plain.serves(p.NodeURL()) || !strings.HasPrefix(p.NodeURL(), url) {
		t.Errorf("the publisher's session is at %s, want one at %s", p.NodeURL(), url)
	}
	log := plain.follow(t)
	header := viewFrom(t, from(t, "127.0.0.2"), url+"/whep/demo")
	if at := header.Get("Location"); !strings.HasPrefix(at, url+"/session/") {
		t.Errorf("the viewer's session is at %s", at)
	}
	if got := viewer(plain); got != "127.0.0.2" {
		t.Errorf("the viewer is known as %q", got)
	}
	eventually(t, "an event names the viewer", func() bool {
		for _, e := range log.of(event.SessionOpened, "demo") {
			if e.Client == "127.0.0.2" {
				return true
			}
		}
		return false
	})
	req, err := http.NewRequest(http.MethodDelete, header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := from(t, "127.0.0.2").Do(req); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("DELETE through the proxy: %v, %v", resp, err)
	}

	// nginx, as in the guide.
	w.see(t)
	shown.finds(t, "demo")
	url = nginx(t, block(t, guide, "nginx"), shown.HTTP)
	header = viewFrom(t, from(t, "127.0.0.2"), url+"/whep/demo")
	if at := header.Get("Location"); !strings.HasPrefix(at, "https://live.example.org/session/") {
		t.Errorf("the session is at %s", at)
	}
	// A client's own forwarding headers are ignored, and no request through the
	// proxy counts as local.
	resp, body := send(t, http.MethodGet, url+"/console/state", "", "", map[string]string{"X-Forwarded-For": "127.0.0.1"})
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"limited":true`) {
		t.Errorf("the console shows through the proxy: %s, %.200s", resp.Status, body)
	}

	// HAProxy, as in the guide.
	lines.finds(t, "demo")
	url = haproxy(t, block(t, guide, "haproxy"), lines.HTTP)
	viewFrom(t, from(t, "127.0.0.2"), url+"/whep/demo")
	if got := viewer(lines); !strings.HasPrefix(got, "127.0.0.2:") {
		t.Errorf("behind HAProxy the viewer is known as %q", got)
	}
	resp, body = send(t, http.MethodGet, url+"/console/state", "", "", nil)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"limited":true`) {
		t.Errorf("the console shows through HAProxy: %s, %.200s", resp.Status, body)
	}
	for _, c := range []struct {
		name, from, how string
		path            string
		status          string
		code            problem.Code
	}{
		{"the proxy, with a header", "127.0.0.1", "--haproxy-protocol", "/play/demo", "200", ""},
		{"the proxy, without one", "127.0.0.1", "", "/play/demo", "400", problem.BadProxyHeader},
		{"the proxy, without one, checking health", "127.0.0.1", "", "/readyz", "200", ""},
		{"another, with a header", "127.0.0.3", "--haproxy-protocol", "/healthz", "403", problem.UntrustedProxy},
		{"another, without one", "127.0.0.3", "", "/play/demo", "200", ""},
	} {
		series := fmt.Sprintf(`weir_client_refusals_total{reason=%q}`, strings.ReplaceAll(string(c.code), "-", "_"))
		before := lines.metric(t, series)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		args := append(strings.Fields(c.how), "--silent", "--interface", c.from, "--write-out", "%{http_code}", lines.HTTP+c.path)
		out, err := exec.CommandContext(ctx, "curl", args...).CombinedOutput()
		cancel()
		if err != nil || !strings.HasSuffix(string(out), c.status) || !strings.Contains(string(out), string(c.code)) {
			t.Errorf("%s: %s, %v; want %s, %s", c.name, out, err, c.status, c.code)
		}
		if now := lines.metric(t, series); c.code != "" && now != before+1 {
			t.Errorf("%s: %s went from %v to %v", c.name, series, before, now)
		}
	}
}
