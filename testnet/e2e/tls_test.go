package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weir/capacity/event"
	"weir/sfu/client"
	"weir/testnet"
)

// trusting is a client that trusts the CA in a file, and follows no redirect.
func trusting(t *testing.T, file string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s has no certificate", file)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// secureView views url with the given client, and returns once a frame has come.
func secureView(t *testing.T, hc *http.Client, url string) *client.Viewer {
	t.Helper()
	return viewBy(t, client.ViewConfig{URL: url, HTTP: hc})
}

func securePublish(t *testing.T, hc *http.Client, url string) *client.Publisher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := client.Publish(ctx, client.PublishConfig{URL: url, Media: clip, HTTP: hc})
	if err != nil {
		t.Fatal(err)
	}
	running, end := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(running) }()
	t.Cleanup(func() {
		end()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Logf("the publisher at %s: %v", p.NodeURL(), err)
		}
		_ = p.Close()
	})
	return p
}

// All URLs given to clients are https: in Location, in redirects, in records
// and in the console; over HTTP/2, and by way of the plain port too. The admin
// API stays plain.
func TestHTTPS(t *testing.T) {
	w := upWith(t, testnet.Config{N: 2, TLS: true, NodeFlags: only(1, "--session-limit", "2", "--http-redirect", "127.0.0.1:0")})
	full, helper := w.n(1), w.n(2)
	hc := trusting(t, w.Authority())
	for _, n := range []node{full, helper} {
		if !strings.HasPrefix(n.HTTP, "https://127.0.0.1:") || !strings.HasPrefix(n.Admin, "http://127.0.0.1:") {
			t.Fatalf("%s is ready at %s and %s", n.Name, n.HTTP, n.Admin)
		}
	}
	resp, err := hc.Get(full.HTTP + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.TLS == nil || resp.TLS.Version < tls.VersionTLS12 {
		t.Errorf("the answer is %s, %+v", resp.Proto, resp.TLS)
	}

	var s struct {
		Record struct{ URL string }
		TLS    struct {
			Names    []string
			NotAfter time.Time `json:"not_after"`
			Redirect string
		}
	}
	s.Record.URL = "unread"
	if err := full.Get(t.Context(), "/status", &s); err != nil {
		t.Fatal(err)
	}
	if s.Record.URL != full.HTTP || len(s.TLS.Names) != 3 || s.TLS.NotAfter.Before(time.Now()) || !strings.HasPrefix(s.TLS.Redirect, "http://127.0.0.1:") {
		t.Errorf("status says %+v", s)
	}
	says(t, cli(t, "status", "--admin", full.Admin).out, "localhost, 127.0.0.1, ::1, until ")

	// A WHIP client that knows only the plain port is redirected to https, and
	// its session is there.
	p := securePublish(t, hc, s.TLS.Redirect+"/whip/demo")
	if !full.serves(p.NodeURL()) {
		t.Errorf("the publisher is at %s", p.NodeURL())
	}
	created, _ := exchangeSDP(t, hc, full.whep("demo"))
	if at := created.Header.Get("Location"); created.StatusCode != http.StatusCreated || !strings.HasPrefix(at, full.HTTP+"/session/") {
		t.Errorf("%s, at %q", created.Status, at)
	}
	w.see(t)
	helper.finds(t, "demo")
	sent, _ := exchangeSDP(t, hc, full.whep("demo"))
	if at := sent.Header.Get("Location"); sent.StatusCode != http.StatusTemporaryRedirect || !strings.HasPrefix(at, helper.HTTP+"/whep/demo?ticket=") {
		t.Errorf("%s, to %q", sent.Status, at)
	}
	v := secureView(t, hc, full.whep("demo"))
	if !helper.serves(v.NodeURL()) {
		t.Errorf("the viewer is at %s", v.NodeURL())
	}
	flows(t, v)

	// Events reach the console over HTTP/2 as they happen.
	watching, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	req, err := http.NewRequestWithContext(watching, http.MethodGet, full.HTTP+"/console/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	events, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	if events.ProtoMajor != 2 {
		t.Errorf("the events come by %s", events.Proto)
	}
	for lines := bufio.NewScanner(events.Body); ; {
		if !lines.Scan() {
			t.Fatalf("the console was not told of the redirect: %v", lines.Err())
		}
		if strings.Contains(lines.Text(), `"kind":"redirect"`) {
			break
		}
	}
	if expires := full.metric(t, "weir_tls_certificate_expiry_timestamp_seconds"); expires < float64(time.Now().Unix()) {
		t.Errorf("the certificate expires at %v, by the metrics", expires)
	}
}

// exchangeSDP posts a viewer's offer.
func exchangeSDP(t *testing.T, hc *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := hc.Post(url, "application/sdp", strings.NewReader(viewerOffer(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// weir publish and view trust a given CA, and explain how to trust an unknown one.
func TestCommandsOverHTTPS(t *testing.T) {
	t.Parallel()
	w := upWith(t, testnet.Config{N: 1, TLS: true})
	a, ca := w.n(1), w.Authority()
	securePublish(t, trusting(t, ca), a.whip("demo"))
	for _, command := range []string{"publish", "view"} {
		args := []string{command, "--duration", "1s"}
		if command == "publish" {
			args = append(args, "--pattern")
		}
		url := map[string]string{"publish": a.whip("other"), "view": a.whep("demo")}[command]
		if r := cli(t, append(args, "--ca", ca, url)...); r.code != ok {
			t.Errorf("%s --ca: exit code %d: %s", command, r.code, r.errout)
		}
		fails(t, noConnection, []string{"does not know who signed it", "give --ca FILE or set SSL_CERT_FILE"}, append(args, url)...)
		// A small request is answered in clear before the connection is closed.
		plain := cli(t, append(args, strings.Replace(url, "https:", "http:", 1))...)
		if plain.code != noConnection && plain.code != refused {
			t.Errorf("%s over http: exit code %d", command, plain.code)
		}
		says(t, plain.errout, "say https:// instead of http://")
		fails(t, badInput, []string{"--ca", "no such file"}, append(args, "--ca", "/nowhere/ca.pem", url)...)
		fails(t, badInput, []string{"has no certificate in it"}, append(args, "--ca", a.Log, url)...)
	}
	t.Run("by SSL_CERT_FILE", func(t *testing.T) {
		r := cliIn(t, []string{"SSL_CERT_FILE=" + ca}, "view", "--duration", "1s", a.whep("demo"))
		if r.code != ok {
			t.Errorf("exit code %d: %s", r.code, r.errout)
		}
	})
	says(t, cli(t, "doctor", "--admin", a.Admin).out, "certificate", "does not trust its issuer")
}

// The commands that weir testnet up --tls prints, for publishing and for
// trusting its CA, work unchanged.
func TestTrustAsPrinted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a net") // a name that needs quotes
	out := cli(t, "testnet", "up", "-n", "1", "--tls", "--dir", dir).out
	t.Cleanup(func() {
		if out, err := exec.Command(weir, "testnet", "down", "--dir", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	line := func(program string) string {
		t.Helper()
		m := regexp.MustCompile("(?m)^" + program + " +(.*)$").FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("there is no line for %s in\n%s", program, out)
		}
		return m[1]
	}
	url := line("console")
	for what, script := range map[string]string{
		"publish":         line("publish") + " --duration 1s",
		"weir, by its CA": line("weir") + " && weir publish --pattern --duration 1s " + url + "/whip/other",
		"curl, by its CA": line("curl") + " && curl --silent --fail --max-time 30 " + url + "/healthz",
	} {
		sh := exec.CommandContext(t.Context(), "sh", "-c", script)
		sh.Env = append(cleanEnv(), "PATH="+filepath.Dir(weir)+":"+os.Getenv("PATH"))
		if out, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v: %s", what, script, err, out)
		}
	}
}

// A pair that becomes invalid while the node runs affects no client and is
// reported everywhere; the next valid one is in force for new connections.
func TestCertificateChangesWhileRunning(t *testing.T) {
	t.Parallel()
	w := upWith(t, testnet.Config{N: 1, TLS: true})
	a := w.n(1)
	hc := trusting(t, w.Authority())
	securePublish(t, hc, a.whip("demo"))
	v := secureView(t, hc, a.whep("demo"))
	log := a.follow(t)
	cert, key := filepath.Join(w.Dir(), "tls.pem"), filepath.Join(w.Dir(), "tls-key.pem")
	ca, err := testnet.OpenAuthority(w.Dir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	before := inForce(t, hc, a)

	newCert, newKey, err := ca.Issue(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), "127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	replace(t, cert, newCert) // without its key
	eventually(t, "it is told of", func() bool { return len(log.of(event.CertificateFailed, "")) == 1 })
	says(t, log.of(event.CertificateFailed, "")[0].Detail, "is not the key of the certificate in "+cert, "stays, until")
	if got := a.metric(t, `weir_tls_certificate_failures_total{reason="mismatch"}`); got != 1 {
		t.Errorf("%v mismatches are counted", got)
	}
	if now := inForce(t, hc, a); !now.Equal(before) {
		t.Errorf("the certificate until %v was replaced by a bad one", before)
	}
	replace(t, key, newKey)
	eventually(t, "the new one is in force", func() bool { return len(log.of(event.CertificateApplied, "")) == 1 })
	if now := inForce(t, hc, a); now.Equal(before) {
		t.Error("new connections get the old certificate")
	}
	flows(t, v)
	if err := v.Close(); err != nil { // its DELETE uses a new connection or the old one
		t.Error(err)
	}
	text, err := os.ReadFile(a.Log)
	if err != nil {
		t.Fatal(err)
	}
	says(t, string(text), "certificate not applied; the one before stays in force", "certificate in force")
}

// inForce is the expiry of the certificate that a new connection gets.
func inForce(t *testing.T, hc *http.Client, n node) time.Time {
	t.Helper()
	hc.CloseIdleConnections()
	resp, err := hc.Get(n.HTTP + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.TLS.PeerCertificates[0].NotAfter
}

func replace(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// An invalid pair, or a conflict of two ports, keeps a node from starting, with
// an explanation; a node whose certificate has one name uses that name.
func TestNodeAndItsCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := testnet.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, from, until time.Duration, hosts ...string) (cert, key string) {
		t.Helper()
		certPEM, keyPEM, err := ca.Issue(time.Now().Add(from), time.Now().Add(until), hosts...)
		if err != nil {
			t.Fatal(err)
		}
		cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
		replace(t, cert, certPEM)
		replace(t, key, keyPEM)
		return cert, key
	}
	cert, key := write("good", -time.Hour, time.Hour, "weir.localhost")
	_, otherKey := write("other", -time.Hour, time.Hour, "weir.localhost")
	expired, expiredKey := write("expired", -2*time.Hour, -time.Hour, "weir.localhost")
	two, twoKey := write("two", -time.Hour, time.Hour, "a.localhost", "b.localhost")
	fails(t, badInput, []string{otherKey, "is not the key of the certificate in"}, nodeArgs(t, "--tls-cert", cert, "--tls-key", otherKey)...)
	fails(t, badInput, []string{"expired at", "renew it"}, nodeArgs(t, "--tls-cert", expired, "--tls-key", expiredKey)...)
	fails(t, badInput, []string{"--tls-key", "no such file"}, nodeArgs(t, "--tls-cert", cert, "--tls-key", filepath.Join(dir, "none"))...)
	fails(t, badInput, []string{"a.localhost, b.localhost", "give --public-url"}, nodeArgs(t, "--tls-cert", two, "--tls-key", twoKey)...)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fails(t, failure, []string{"--http-redirect", "is in use by another process"}, nodeArgs(t, "--tls-cert", cert, "--tls-key", key, "--http-redirect", taken.Addr().String())...)
	same := "127.0.0.1:" + port(t, freePort(t))
	fails(t, badInput, []string{"--http " + same + " and --http-redirect " + same + " are the same port"}, nodeArgs(t, "--http", same, "--tls-cert", cert, "--tls-key", key, "--http-redirect", same)...)

	p := runNode(t, nil, nodeArgs(t, "--tls-cert", cert, "--tls-key", key)[1:]...)
	if !strings.HasPrefix(p.HTTP, "https://weir.localhost:") {
		t.Errorf("the node is at %s", p.HTTP)
	}
}
