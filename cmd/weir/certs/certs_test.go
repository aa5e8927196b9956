package certs

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/capacity"
	"weir/capacity/durable"
	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/dht/inspect"
	"weir/testnet"
)

// A pairDir is a directory with the files of --tls-cert and --tls-key.
type pairDir struct {
	t         *testing.T
	ca        *testnet.Authority
	cert, key string
}

func newPairDir(t *testing.T) *pairDir {
	t.Helper()
	ca, err := testnet.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &pairDir{t, ca, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// issue makes a pair for names that is valid for d from now or, if d is
// negative, expired -d ago.
func (p *pairDir) issue(d time.Duration, names ...string) (cert, key []byte) {
	p.t.Helper()
	now := time.Now()
	from, until := now.Add(-time.Hour), now.Add(d)
	if d < 0 {
		from = now.Add(2 * d)
	}
	cert, key, err := p.ca.Issue(from, until, names...)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert, key
}

func (p *pairDir) write(cert, key []byte) {
	p.t.Helper()
	for path, b := range map[string][]byte{p.cert: cert, p.key: key} {
		if b != nil {
			if err := durable.Replace(path, b, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// told collects events in their order.
type told struct {
	mu  sync.Mutex
	all []event.Event
}

func (o *told) add(e event.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, e)
}

// list is a copy of the events; take removes them as well.
func (o *told) list() []event.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

func (o *told) take() []event.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.all
	o.all = nil
	return all
}

// open reads the pair, and collects the later events of the certificates.
func (p *pairDir) open() (*Certificates, *told) {
	p.t.Helper()
	c, err := newCertificates(p.cert, p.key, slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	noted := &told{}
	c.event = noted.add
	return c, noted
}

// A mistake in a pair is reported with the file and how to fix it.
func TestPairsThatAreWrong(t *testing.T) {
	p := newPairDir(t)
	cert, key := p.issue(time.Hour, "a.localhost")
	otherCert, otherKey := p.issue(time.Hour, "b.localhost")
	expired, expiredKey := p.issue(-time.Hour, "a.localhost")
	early, earlyKey, err := p.ca.Issue(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour), "a.localhost")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	locked := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("0")})
	lockedOld := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("0")})
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("nonsense")})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	oldStyle := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	for name, c := range map[string]struct {
		cert, key    []byte
		reason, says string
	}{
		"the key is another certificate's":       {cert, otherKey, pairMismatch, "is not the key of the certificate in"},
		"the key is of another kind":             {cert, oldStyle, pairMismatch, "which is a.localhost"},
		"the intermediate comes first":           {slices.Concat(otherCert, cert), key, pairMismatch, "is the file's number 2: put it first"},
		"they are swapped":                       {key, cert, pairMalformed, "swapped?"},
		"the certificate is binary":              {block.Bytes, key, pairMalformed, "openssl x509 -inform der"},
		"the key is binary":                      {cert, keyBlock.Bytes, pairMalformed, "openssl pkey -inform der"},
		"the key has a passphrase":               {cert, locked, pairMalformed, "passphrase"},
		"the key has a passphrase, as once":      {cert, lockedOld, pairMalformed, "openssl pkey -in"},
		"the certificate is empty":               {[]byte{}, key, pairMalformed, "no certificate in it"},
		"the key is empty":                       {cert, []byte{}, pairMalformed, "no private key in it"},
		"the certificate is a page of HTML":      {[]byte("<html>"), key, pairMalformed, "BEGIN CERTIFICATE"},
		"the certificate is broken":              {broken, key, pairMalformed, "certificate number 1"},
		"the certificate has expired":            {expired, expiredKey, pairExpired, "expired at"},
		"the certificate is of tomorrow":         {early, earlyKey, pairNotYetValid, "clock"},
		"the file has no end":                    {slices.Repeat([]byte("x"), maxPEM+1), key, pairUnreadable, "more than"},
		"the key has a line break of Windows":    {cert, []byte(strings.ReplaceAll(string(key), "\n", "\r\n")), "", ""},
		"there are words around the certificate": {slices.Concat([]byte("subject=CN\n"), cert, []byte("bye\n")), key, "", ""},
		"both are in one file":                   {slices.Concat(key, cert), slices.Concat(key, cert), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p.write(c.cert, c.key)
			_, err := newCertificates(p.cert, p.key, slog.New(slog.DiscardHandler))
			var pair *pairError
			switch {
			case c.reason == "" && err != nil:
				t.Errorf("got %v", err)
			case c.reason == "":
			case !errors.As(err, &pair) || pair.reason != c.reason || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--tls-"):
				t.Errorf("got %v; want reason %s, with a word of %q", err, c.reason, c.says)
			}
		})
	}
	for name, path := range map[string]string{"there is none": filepath.Join(t.TempDir(), "none"), "it is a directory": t.TempDir(), "it is a device": "/dev/zero"} {
		var pair *pairError
		if _, err := newCertificates(path, p.key, nil); !errors.As(err, &pair) || pair.reason != pairUnreadable || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A changed pair is put in force; an invalid one is reported once, by event and
// metric, and the one before stays in force.
func TestCertificatesAreReadAgain(t *testing.T) {
	p := newPairDir(t)
	cert, key := p.issue(time.Hour, "a.localhost")
	p.write(cert, key)
	c, told := p.open()
	inForce := func(want string) {
		t.Helper()
		got, err := c.config().GetCertificate(&tls.ClientHelloInfo{})
		if err != nil || called509(got.Leaf) != want {
			t.Fatalf("in force is %v, %v; want %s", got.Leaf.DNSNames, err, want)
		}
	}
	events := func(want ...event.Kind) {
		t.Helper()
		var kinds []event.Kind
		all := told.take()
		for _, e := range all {
			kinds = append(kinds, e.Kind)
		}
		if !slices.Equal(kinds, want) {
			t.Fatalf("told %+v, want %v", all, want)
		}
	}
	look := func() { _ = c.look(time.Now(), false) }
	look()
	look()
	events()

	newCert, newKey := p.issue(time.Hour, "b.localhost")
	p.write(newCert, nil)
	look() // only one of the two files has changed
	events()
	p.write(nil, newKey)
	look()
	events(event.CertificateApplied)
	inForce("b.localhost")

	p.write(cert, nil)
	look()
	events()
	look()
	if e := told.list()[0]; e.Reason != pairMismatch || !strings.Contains(e.Detail, "the one of b.localhost stays, until") {
		t.Errorf("told %+v", e)
	}
	events(event.CertificateFailed)
	look()
	events() // once
	inForce("b.localhost")
	if err := c.Reload(); err == nil {
		t.Error("reload of what is still wrong finds nothing wrong")
	}
	events() // not again

	expired, expiredKey := p.issue(-time.Hour, "c.localhost")
	p.write(expired, expiredKey)
	var pair *pairError
	if err := c.Reload(); !errors.As(err, &pair) || pair.reason != pairExpired {
		t.Errorf("reload of an expired one: %v", err)
	}
	events(event.CertificateFailed)
	if err := os.Remove(p.key); err != nil {
		t.Fatal(err)
	}
	look()
	look()
	events(event.CertificateFailed)
	inForce("b.localhost")

	p.write(newCert, newKey) // the old pair again
	look()
	events(event.CertificateApplied)
	for reason, want := range map[string]float64{"mismatch": 1, "expired": 1, "unreadable": 1, "malformed": 0} {
		if got := testutil.ToFloat64(c.failures.WithLabelValues(reason)); got != want {
			t.Errorf("failures for %s: %v, want %v", reason, got, want)
		}
	}
	if got := (*Certificates)(nil).Reload(); got != nil {
		t.Errorf("reload without https: %v", got)
	}
}

// An expiring certificate is reported once before and once after it has expired.
func TestCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPairDir(t)
		now := time.Now()
		cert, key, err := p.ca.Issue(now, now.Add(time.Minute), "a.localhost")
		if err != nil {
			t.Fatal(err)
		}
		p.write(cert, key)
		c, told := p.open()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx) }()
		at := func(d time.Duration, want int, reason string) {
			t.Helper()
			time.Sleep(time.Until(now.Add(d)) + time.Millisecond)
			synctest.Wait()
			if all := told.list(); len(all) != want || want > 0 && (all[want-1].Kind != event.CertificateExpiring || all[want-1].Reason != reason) {
				t.Errorf("after %v: told %+v, want %d", d, all, want)
			}
		}
		at(49*time.Second, 0, "")
		at(52*time.Second, 1, "")
		at(60*time.Second, 1, "")
		at(62*time.Second, 2, pairExpired)
		at(120*time.Second, 2, pairExpired)
		if check := c.Check("https://a.localhost", time.Now()); check.Outcome != inspect.Failure || !strings.Contains(check.Do, "renew") {
			t.Errorf("doctor says %+v", check)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v", err)
		}
	})
}

// Without --public-url the certificate determines the URL for clients, if it
// has a single name.
func TestURLByCertificate(t *testing.T) {
	p := newPairDir(t)
	for _, c := range []struct {
		names, at  string
		want, says string
	}{
		{"127.0.0.1 localhost", "127.0.0.1:8443", "", ""},
		{"weir.example.org", "192.0.2.1:8443", "https://weir.example.org:8443", ""},
		{"weir.example.org", "0.0.0.0:443", "https://weir.example.org", ""},
		{"192.0.2.1", "0.0.0.0:443", "", ""},
		{"a.example.org b.example.org", "192.0.2.1:443", "", "give --public-url"},
		{"*.example.org", "192.0.2.1:8443", "", "such as https://weir.example.org:8443"},
		{"example.org *.example.org", "192.0.2.1:443", "", "give --public-url"},
	} {
		p.write(p.issue(time.Hour, strings.Fields(c.names)...))
		certs, _ := p.open()
		got, err := certs.ClientURL(netip.MustParseAddrPort(c.at))
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("of %s at %s: %q, %v; want %q", c.names, c.at, got, err, c.want)
		}
	}
}

// Oddities of a certificate are reported, and a good one has none.
func TestAdviceOnCertificates(t *testing.T) {
	p := newPairDir(t)
	p.write(p.issue(time.Hour, "weir.localhost"))
	c, _ := p.open()
	for base, says := range map[string]string{
		"https://weir.localhost":  "does not trust its issuer",
		"https://other.localhost": "it is of weir.localhost, and clients are told https://other.localhost",
	} {
		if got := strings.Join(c.advice(base), "; "); !strings.Contains(got, says) {
			t.Errorf("at %s: %q; want a word of %q", base, got, says)
		}
	}
	if err := os.Chmod(p.key, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := c.keyAdvice(); !strings.Contains(got, "chmod 600 "+p.key) {
		t.Errorf("of a key that all may read: %q", got)
	}
	if check := c.Check("https://weir.localhost", time.Now()); check.Outcome != inspect.Warning || !strings.Contains(check.Seen, "of weir.localhost, until") {
		t.Errorf("doctor says %+v", check)
	}
}

// Plain http nodes are reported, as browsers block requests to them from an
// https page, except on this machine.
func TestNodesWithoutHTTPS(t *testing.T) {
	entry := func(url string, valid bool) api.Record {
		return api.Record{Valid: valid, Record: &capacity.Record{URL: url}}
	}
	fine := []api.Record{entry("https://a.example.org", true), entry("http://127.0.0.1:8080", true), entry("http://old.example.org", false), entry("", true), {Valid: true}}
	if c := CheckMixed(fine); c.Outcome != inspect.Fine {
		t.Errorf("of nodes where browsers go: %+v", c)
	}
	if c := CheckMixed(append(fine, entry("http://b.example.org:8080", true))); c.Outcome != inspect.Warning || !strings.Contains(c.Seen, "1 other node (http://b.example.org:8080)") {
		t.Errorf("of a plain one: %+v", c)
	}
}

// HSTS is sent for all names except those local to this machine.
func TestStrictTransportSecurity(t *testing.T) {
	p := newPairDir(t)
	p.write(p.issue(time.Hour, "localhost"))
	c, _ := p.open()
	h := c.Handler(http.NotFoundHandler())
	for host, want := range map[string]string{
		"weir.example.org": "max-age=31536000", "weir.example.org:8443": "max-age=31536000",
		"127.0.0.1:8443": "", "[::1]:8443": "", "localhost:8443": "", "weir.localhost": "",
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Host = host
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

// The plain port redirects to https with the method kept, whatever host the
// client names; it refuses tokens sent in clear.
func TestRedirection(t *testing.T) {
	h := redirection(func() string { return "https://weir.example.org:8443" })
	for _, c := range []struct {
		method, target, token string
		status                int
		location              string
	}{
		{"GET", "/", "", 308, "https://weir.example.org:8443/"},
		{"POST", "/whip/demo?wait=1s", "", 308, "https://weir.example.org:8443/whip/demo?wait=1s"},
		{"GET", "/play/a%2Fb", "", 308, "https://weir.example.org:8443/play/a%2Fb"},
		{"GET", "//evil.example/", "", 308, "https://weir.example.org:8443//evil.example/"},
		{"GET", "http://evil.example/x", "", 308, "https://weir.example.org:8443/x"},
		{"POST", "/whip/demo", "Bearer x", 403, ""},
		{"POST", "/whep/demo?token=x", "", 403, ""},
		{"POST", "/whep/demo?ticket=x", "", 403, ""},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, c.target, nil)
		r.Host = "evil.example"
		if c.token != "" {
			r.Header.Set("Authorization", c.token)
		}
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != c.status || got != c.location {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.target, w.Code, got, c.status, c.location)
		}
		if w.Code == 403 && !strings.Contains(w.Body.String(), "https-required") {
			t.Errorf("%s %s: %s", c.method, c.target, w.Body)
		}
	}
}

// Any content of the files gives a working pair or an error.
func FuzzPair(f *testing.F) {
	ca, err := testnet.NewAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	cert, key, err := ca.Issue(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), "localhost")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert, key)
	f.Add(key, cert)
	f.Add(slices.Concat(cert, key), slices.Concat(key, cert))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), key)
	f.Add([]byte{0x30, 0x82}, []byte{0x30, 0x82})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		pair, err := parsePair("cert.pem", cert, "key.pem", key, time.Now())
		var why *pairError
		switch {
		case err == nil && (pair.Leaf == nil || pair.PrivateKey == nil):
			t.Error("half a pair")
		case err != nil && (!errors.As(err, &why) || !slices.Contains(pairReasons(), why.reason)):
			t.Errorf("%v has no reason", err)
		}
	})
}
