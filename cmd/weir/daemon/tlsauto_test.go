package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/capacity/event"
	"weir/cmd/weir/certs"
	"weir/dht/inspect"
	"weir/testnet"
	"weir/testnet/acme"
)

const acmePatience = 90 * time.Second

// awaitEvent waits for an event of n that ok accepts.
func awaitEvent(t *testing.T, n *node, what string, ok func(event.Event) bool) event.Event {
	t.Helper()
	last, next, cancel := n.events.Subscribe()
	defer cancel()
	if i := slices.IndexFunc(last, ok); i >= 0 {
		return last[i]
	}
	deadline := time.NewTimer(acmePatience)
	defer deadline.Stop()
	for {
		select {
		case e, open := <-next:
			if !open {
				t.Fatalf("the events ended before %s", what)
			}
			if ok(e) {
				return e
			}
		case <-deadline.C:
			t.Fatalf("not within %v: %s; told %+v", acmePatience, what, n.events.Kept())
		}
	}
}

// freeTCPPort is a loopback port that was free just now.
func freeTCPPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// runACME starts a node that gets its certificate for domain from ca. certmagic
// keeps the challenges of a process by domain: nodes that run at the same time
// need different ones, or one answers with the other's.
func runACME(t *testing.T, ca *acme.Server, domain, dir string, port int, more ...string) *node {
	t.Helper()
	cfg, err := parse(t, append([]string{"--data-dir", dir, "--http", "127.0.0.1:" + strconv.Itoa(port), "--admin", "127.0.0.1:0", "--media-port", "0", "--log-level", "error",
		"--tls-auto", domain, "--acme-url", ca.URL, "--acme-ca", ca.CAFile}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	cfg.tls.Auto.Every = 100 * time.Millisecond
	n, err := newNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v", err)
		}
	})
	return n
}

// served is the certificate that a new connection to port gets; it is valid for
// domain under ca.
func served(t *testing.T, ca *acme.Server, domain string, port int) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port), &tls.Config{InsecureSkipVerify: true, ServerName: domain, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state := conn.ConnectionState()
	leaf, between := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	// A busy machine may be too slow for the short life, so the expiry is not
	// checked.
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: domain, Roots: ca.Roots(), Intermediates: between, CurrentTime: leaf.NotBefore.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	if state.NegotiatedProtocol != "h2" {
		t.Errorf("the protocol is %q", state.NegotiatedProtocol)
	}
	return leaf
}

// A certificate is obtained, and renewed, by a challenge at the public port;
// when renewal fails the current one stays in force, with an event and a
// metric, and after a restart as well.
func TestCertificateByACME(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts an ACME server")
	}
	t.Parallel()
	const domain = "renewed.example.org"
	port, dir := freeTCPPort(t), t.TempDir()
	ca, err := acme.Start(t.Context(), acme.Config{Dir: t.TempDir(), TLSPort: port, Life: 12 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	n := runACME(t, ca, domain, dir, port)
	if want := "https://" + domain + ":" + strconv.Itoa(port); n.ports.base() != want || n.ready().HTTP != want {
		t.Errorf("clients are told %s, the console is at %s; want %s", n.ports.base(), n.ready().HTTP, want)
	}
	applied := func(after uint64) event.Event {
		return awaitEvent(t, n, "a certificate", func(e event.Event) bool { return e.Kind == event.CertificateApplied && e.Seq > after })
	}
	first := applied(0)
	if !strings.Contains(first.Detail, "of "+domain+", until") {
		t.Errorf("told %+v", first)
	}
	leaf := served(t, ca, domain, port)
	info, err := os.Stat(filepath.Join(dir, certs.ACMEDir))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("keys are kept in %v, %v", info, err)
	}

	second := applied(first.Seq)
	renewed := served(t, ca, domain, port)
	if renewed.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Errorf("told of a new certificate (%+v), and the old one is served", second)
	}

	ca.Close()
	failed := awaitEvent(t, n, "that ACME fails", func(e event.Event) bool { return e.Kind == event.CertificateFailed && e.Seq > second.Seq })
	if failed.Reason != certs.PairACME || !strings.Contains(failed.Detail, "no certificate for "+domain+" from 127.0.0.1:") || !strings.Contains(failed.Detail, "stays, until") {
		t.Errorf("told %+v", failed)
	}
	// Asked about a moment when the certificate is valid: see served.
	if check := n.cfg.tls.Check(n.ports.base(), served(t, ca, domain, port).NotBefore.Add(time.Second)); check.Outcome == inspect.Fine || !strings.Contains(check.Do, "port 443") || !strings.Contains(check.Seen, "no other one was taken: no certificate for") {
		t.Errorf("doctor says %+v", check)
	}
}

// If the domain's port 443 does not lead here, the challenge comes to the plain
// port, which redirects all other clients to https. With the CA gone, a
// restarted node serves its stored certificate.
func TestACMEByThePlainPort(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts an ACME server")
	}
	t.Parallel()
	const domain = "plain.example.org"
	port, plain, dir := freeTCPPort(t), freeTCPPort(t), t.TempDir()
	ca, err := acme.Start(t.Context(), acme.Config{Dir: t.TempDir(), TLSPort: freeTCPPort(t), HTTPPort: plain, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	redirect := []string{"--http-redirect", "127.0.0.1:" + strconv.Itoa(plain)}
	var leaf *x509.Certificate
	t.Run("first", func(t *testing.T) {
		n := runACME(t, ca, domain, dir, port, redirect...)
		awaitEvent(t, n, "a certificate", func(e event.Event) bool { return e.Kind == event.CertificateApplied })
		leaf = served(t, ca, domain, port)
		hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := hc.Get("http://127.0.0.1:" + strconv.Itoa(plain) + "/play/demo")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if at := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || at != n.ports.base()+"/play/demo" {
			t.Errorf("%s, to %q", resp.Status, at)
		}
	})
	ca.Close()
	t.Run("again", func(t *testing.T) {
		n := runACME(t, ca, domain, dir, port, redirect...)
		deadline := time.Now().Add(acmePatience)
		for n.cfg.tls.Leaf() == nil {
			if time.Now().After(deadline) {
				t.Fatal("the certificate that was kept is not in force")
			}
			<-time.After(20 * time.Millisecond)
		}
		if again := served(t, ca, domain, port); !again.Equal(leaf) {
			t.Error("another certificate is in force")
		}
	})
}

// An unreachable CA, and an unwritable directory, are reported; the node runs,
// has no certificate, and leaves nothing behind when it ends.
func TestACMEThatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		says  string
	}{
		"nobody answers":      {func(string) error { return nil }, "no certificate for weir.example.org from 127.0.0.1:"},
		"nothing can be kept": {func(dir string) error { return os.WriteFile(filepath.Join(dir, certs.ACMEDir), nil, 0o600) }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			dir := t.TempDir()
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			port := freeTCPPort(t)
			nobody := &acme.Server{URL: fmt.Sprintf("https://127.0.0.1:%d/dir", freeTCPPort(t)), CAFile: ownCA(t)}
			t.Run("runs", func(t *testing.T) {
				n := runACME(t, nobody, "weir.example.org", dir, port)
				e := awaitEvent(t, n, "that ACME fails", func(e event.Event) bool { return e.Kind == event.CertificateFailed })
				if e.Reason != certs.PairACME || !strings.Contains(e.Detail, c.says) || !strings.Contains(e.Detail, "there is none yet") {
					t.Errorf("told %+v", e)
				}
				if _, err := tls.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port), &tls.Config{InsecureSkipVerify: true, ServerName: "weir.example.org"}); err == nil {
					t.Error("clients are served by some certificate")
				}
				if check := n.cfg.tls.Check(n.ports.base(), time.Now()); check.Outcome != inspect.Failure || !strings.Contains(check.Seen, "there is none yet") {
					t.Errorf("doctor says %+v", check)
				}
			})
			// The goroutine that maintains a lock notices within seconds that
			// the lock is gone.
			if err := goleak.Find(leaks, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh")); err != nil {
				t.Error(err)
			}
		})
	}
}

// ownCA is the file of a CA that has signed nothing.
func ownCA(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := testnet.OpenAuthority(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, testnet.AuthorityFile)
}

func TestACMEFlagsThatAreWrong(t *testing.T) {
	certFile, keyFile := pairFiles(t, "localhost")
	for _, c := range []struct{ args, says string }{
		{"--acme-url https://127.0.0.1/dir", "--acme-url is for --tls-auto"},
		{"--acme-ca " + certFile, "--acme-ca is for --tls-auto"},
		{"--tls-auto weir.example.org --tls-cert " + certFile + " --tls-key " + keyFile, "not both ways"},
		{"--tls-auto https://weir.example.org", "want the domain name of this node alone"},
		{"--tls-auto weir.example.org:443", "want the domain name"},
		{"--tls-auto *.example.org", "want the domain name"},
		{"--tls-auto 192.0.2.1", "for an address give --tls-cert"},
		{"--tls-auto localhost", "no public CA gives certificates"},
		{"--tls-auto weir", "no public CA gives certificates"},
		{"--tls-auto nas.local", "no public CA gives certificates"},
		{"--tls-auto weir.example.org --acme-url http://127.0.0.1/dir", "want the https URL of an ACME directory"},
		{"--tls-auto weir.example.org --acme-url nonsense", "want the https URL"},
		{"--tls-auto weir.example.org --acme-ca /nowhere", "--acme-ca: "},
		{"--tls-auto weir.example.org --acme-ca " + keyFile, "has no certificate in it"},
		{"--tls-auto weir.example.org --public-url http://weir.example.org", "speaks https"},
	} {
		if _, err := parse(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want a word of %q", c.args, err, c.says)
		}
	}
	for given, want := range map[string]string{"weir.example.org": "weir.example.org", "weir.example.org.": "weir.example.org", "WEIR.Example.org": "weir.example.org", "wehr.bücher.example": "wehr.xn--bcher-kva.example"} {
		if cfg, err := parse(t, "--tls-auto", given); err != nil || cfg.tls.Auto.Domain != want {
			t.Errorf("%s: %+v, %v; want %s", given, cfg.tls, err, want)
		}
	}
}
