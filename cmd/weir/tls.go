package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"weir/capacity/event"
	"weir/capacity/scope"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/doctor"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/term"
	"weir/dht/inspect"
	"weir/sfu/client"
	"weir/sfu/problem"
)

const (
	// maxPEM bounds what is read of a certificate's or key's file, in bytes. A
	// chain of five takes 10 KiB.
	maxPEM = 256 << 10
	// pairCheck is how often these files are looked at, and whether the
	// certificate in force expires soon.
	pairCheck = time.Second
	// expirySoon is when a certificate is said to expire soon, and shareSoon the
	// last part of its life that is so for one that lives shorter: those of 90
	// days are renewed a month before by custom, those of 6 days half-way.
	expirySoon = 14 * 24 * time.Hour
	shareSoon  = 6
	// hstsAge is how long browsers keep to https for a name, in seconds.
	hstsAge = 365 * 24 * 60 * 60
)

// tlsFlags are those of https.
func tlsFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` of a certificate and its intermediates (PEM), by which --http speaks https; read again when it changes", EnvVars: cmdline.Env("TLS_CERT")},
		&cli.StringFlag{Name: "tls-key", Usage: "`FILE` of its private key (PEM)", EnvVars: cmdline.Env("TLS_KEY")},
		&cli.StringFlag{Name: "http-redirect", Usage: "`HOST:PORT` of a plain port that leads browsers to https, such as :80", EnvVars: cmdline.Env("HTTP_REDIRECT")},
	}, autoFlags()...)
}

// tlsConfigOf reads tlsFlags. The certificates are nil where --http stays plain.
func tlsConfigOf(c *cli.Context, log *slog.Logger) (*certificates, error) {
	cert, key := c.String("tls-cert"), c.String("tls-key")
	auto, err := automaticOf(c)
	switch {
	case err != nil:
		return nil, err
	case auto != nil && (cert != "" || key != ""):
		return nil, errors.New("--tls-auto and --tls-cert: a certificate comes by ACME or from a file, not both ways")
	case auto != nil:
		return &certificates{auto: auto, log: log, failures: newPairFailures()}, nil
	case cert == "" && key == "":
		if c.IsSet("http-redirect") {
			return nil, errors.New("--http-redirect leads to https: give --tls-cert and --tls-key too, or --tls-auto")
		}
		return nil, nil
	case cert == "":
		return nil, errors.New("--tls-key: give --tls-cert FILE too, the certificate of this key")
	case key == "":
		return nil, errors.New("--tls-cert: give --tls-key FILE too, the private key of this certificate")
	}
	return newCertificates(cert, key, log)
}

// A pairError says why a certificate and its key are not used. Reason is a word
// of a bounded set, for metrics and events.
type pairError struct {
	reason string
	err    error
}

func (e *pairError) Error() string { return e.err.Error() }
func (e *pairError) Unwrap() error { return e.err }

// Reasons of pairErrors.
const (
	pairUnreadable  = "unreadable"    // a file
	pairMalformed   = "malformed"     // or not of the kind that it should be
	pairMismatch    = "mismatch"      // the key is another certificate's
	pairExpired     = "expired"       // by this machine's clock
	pairNotYetValid = "not-yet-valid" // likewise
	pairACME        = "acme"          // there is none, since ACME failed
)

func pairReasons() []string {
	return []string{pairUnreadable, pairMalformed, pairMismatch, pairExpired, pairNotYetValid, pairACME}
}

func unusable(reason, format string, args ...any) error {
	return &pairError{reason, fmt.Errorf(format, args...)}
}

// certificates are what --http speaks https with: the one in force, which new
// connections get, and where others come from. Connections that there are keep
// what they began with. A nil one is plain HTTP.
type certificates struct {
	certFile, keyFile string
	auto              *automatic // nil: by those files

	log      *slog.Logger
	event    func(event.Event) // nil: events are logged
	redirect net.Listener      // nil without --http-redirect
	failures *prometheus.CounterVec
	inForce  atomic.Pointer[tls.Certificate]
	wrong    atomic.Pointer[string] // with what would be in force instead; nil: nothing

	mu   sync.Mutex
	last string // sum of the files when they were judged last
	seen string // … and at the last look

	told expiry // of the certificate in force; run's own
}

// newCertificates reads a pair, and those to come from the same files.
func newCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log, failures: newPairFailures()}
	sum, cert, err := c.read(time.Now())
	if err != nil {
		return nil, err
	}
	c.last, c.seen = sum, sum
	c.inForce.Store(cert)
	return c, nil
}

func newPairFailures() *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "weir", Name: "tls_certificate_failures_total",
		Help: "Certificates that were not put in force, by reason: the one before stays.",
	}, []string{"reason"})
	for _, reason := range pairReasons() {
		v.WithLabelValues(snake(reason))
	}
	return v
}

// read reads the files. Sum stands for what they say, or for why they cannot be
// read: looks at them are compared by it.
func (c *certificates) read(now time.Time) (sum string, _ *tls.Certificate, err error) {
	certPEM, err := readPEM(c.certFile)
	if err != nil {
		return err.Error(), nil, unusable(pairUnreadable, "--tls-cert: %w", err)
	}
	keyPEM, err := readPEM(c.keyFile)
	if err != nil {
		return err.Error(), nil, unusable(pairUnreadable, "--tls-key: %w", err)
	}
	cert, err := parsePair(c.certFile, certPEM, c.keyFile, keyPEM, now)
	of := sha256.Sum256(slices.Concat(certPEM, []byte{0}, keyPEM))
	return string(of[:]), cert, err
}

// readPEM reads a whole file of bounded size, which can be read again.
func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: let the user that weir runs as read it", err)
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s has more than %d bytes: that is no certificate or key", path, maxPEM)
	}
	return b, err
}

// parsePair returns the certificate in certPEM with the key in keyPEM, if it is
// valid now. The error is a [*pairError] that says what is wrong and what to do.
func parsePair(certFile string, certPEM []byte, keyFile string, keyPEM []byte, now time.Time) (*tls.Certificate, error) {
	certs, _, err := blocks("--tls-cert", certFile, certPEM)
	if err != nil {
		return nil, err
	}
	_, keys, err := blocks("--tls-key", keyFile, keyPEM)
	switch {
	case err != nil:
		return nil, err
	case len(certs) == 0 && bytes.Contains(certPEM, []byte("PRIVATE KEY-----")):
		return nil, unusable(pairMalformed, "--tls-cert %s has a private key and no certificate: are --tls-cert and --tls-key swapped?", certFile)
	case len(certs) == 0:
		return nil, unusable(pairMalformed, "--tls-cert %s has no certificate in it: want PEM, with -----BEGIN CERTIFICATE-----", certFile)
	case keys == 0:
		return nil, unusable(pairMalformed, "--tls-key %s has no private key in it: want PEM, with -----BEGIN PRIVATE KEY-----", keyFile)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		if key := publicOf(keyPEM); key != nil && !key.Equal(certs[0].PublicKey) {
			if i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return key.Equal(c.PublicKey) }); i > 0 {
				return nil, unusable(pairMismatch, "--tls-cert %s: the certificate of the key in %s is the file's number %d: put it first, and then the intermediates", certFile, keyFile, i+1)
			}
			return nil, unusable(pairMismatch, "--tls-key %s is not the key of the certificate in %s, which is %s: give the two that were made together", keyFile, certFile, called509(certs[0]))
		}
		return nil, unusable(pairMalformed, "--tls-cert %s, --tls-key %s: %w", certFile, keyFile, err)
	}
	pair.Leaf = certs[0]
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		return nil, unusable(pairExpired, "--tls-cert %s: the certificate of %s expired at %s: renew it (or is this machine's clock wrong? it says %s)", certFile, called509(leaf), stamp(leaf.NotAfter), stamp(now))
	case now.Before(leaf.NotBefore):
		return nil, unusable(pairNotYetValid, "--tls-cert %s: the certificate of %s is valid from %s on: is this machine's clock wrong? it says %s", certFile, called509(leaf), stamp(leaf.NotBefore), stamp(now))
	}
	return &pair, nil
}

// blocks are the certificates in a file, and how many private keys it has.
func blocks(flag, file string, text []byte) (certs []*x509.Certificate, keys int, err error) {
	const der = "%s %s is not PEM but binary: convert it, for example by openssl %s -inform der -in %s -out %s.pem"
	if len(text) > 1 && text[0] == 0x30 && text[1] >= 0x80 { // ASN.1 SEQUENCE
		what := map[string]string{"--tls-cert": "x509", "--tls-key": "pkey"}[flag]
		return nil, 0, unusable(pairMalformed, der, flag, file, what, file, file)
	}
	for len(text) > 0 {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		switch {
		case b.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, 0, unusable(pairMalformed, "%s %s: certificate number %d: %w", flag, file, len(certs)+1, err)
			}
			certs = append(certs, c)
		case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "":
			return nil, 0, unusable(pairMalformed, "%s %s is protected by a passphrase, which nobody is there to type: take it off by openssl pkey -in %s -out FILE, and let nobody but weir's user read that", flag, file, file)
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			keys++
		}
	}
	return certs, keys, nil
}

// A publicKey is of any kind that the standard library has.
type publicKey interface {
	Equal(crypto.PublicKey) bool
}

// publicOf is that of the first private key in text, or nil.
func publicOf(text []byte) publicKey {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return nil
		}
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
		if err != nil {
			key, err = x509.ParseECPrivateKey(b.Bytes)
		}
		if err != nil {
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil
		}
		public, _ := signer.Public().(publicKey)
		return public
	}
}

// reload looks at the files at once and puts what they say in force. An error
// leaves the one before in force and is told of too, once; it is a [*pairError].
// Certificates by ACME are renewed by themselves.
func (c *certificates) reload() error {
	if c == nil || c.auto != nil {
		return nil
	}
	return c.look(time.Now(), true)
}

// look puts in force what the files say, if that is new. Unless sure, what is
// wrong has to be so at two looks: of two files one is replaced first.
func (c *certificates) look(now time.Time, sure bool) error {
	c.mu.Lock()
	sum, cert, err := c.read(now)
	before := c.seen
	c.seen = sum
	if sum == c.last || err != nil && !sure && sum != before {
		c.mu.Unlock()
		return err
	}
	c.last = sum
	c.mu.Unlock()
	if err != nil {
		c.refused(err)
		return err
	}
	c.applied(cert)
	return nil
}

// applied puts a certificate in force.
func (c *certificates) applied(cert *tls.Certificate) {
	c.inForce.Store(cert)
	c.wrong.Store(nil)
	c.tell(event.Event{Kind: event.CertificateApplied, Detail: describe509(cert.Leaf)})
}

// refused tells of a certificate that was not put in force.
func (c *certificates) refused(err error) {
	reason := pairMalformed
	var pair *pairError
	if errors.As(err, &pair) {
		reason = pair.reason
	}
	c.failures.WithLabelValues(snake(reason)).Inc()
	text := err.Error()
	c.wrong.Store(&text)
	stays := "there is none yet"
	if leaf := c.leaf(); leaf != nil {
		stays = "the one of " + called509(leaf) + " stays, until " + stamp(leaf.NotAfter)
	}
	c.tell(event.Event{Kind: event.CertificateFailed, Reason: reason, Detail: err.Error() + "; " + stays})
}

// tell passes an event on, or logs it where nobody takes it.
func (c *certificates) tell(e event.Event) {
	if c.event != nil {
		c.event(e)
		return
	}
	l := eventlog.LineOf(e)
	c.log.LogAttrs(context.Background(), l.Level, l.Msg, l.Attrs...)
}

// run follows the files or has certificates renewed, and tells when the one in
// force expires soon or has, until ctx is done.
func (c *certificates) run(ctx context.Context) error {
	tick := time.NewTicker(pairCheck)
	defer tick.Stop()
	for {
		if c.auto != nil {
			c.follow()
		} else {
			_ = c.look(time.Now(), false) // has been told of
		}
		c.watchExpiry(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow tells of a certificate that has come by ACME. Only run calls it.
func (c *certificates) follow() {
	cert, before := c.auto.newest(), c.leaf()
	if cert == nil || before != nil && cert.Leaf.Equal(before) {
		return
	}
	c.applied(cert)
}

// An expiry is how near a certificate's end is.
type expiry int

const (
	expiresLater expiry = iota
	expiresSoon
	hasExpired
)

// expiryOf looks at a certificate at now.
func expiryOf(leaf *x509.Certificate, now time.Time) expiry {
	left := leaf.NotAfter.Sub(now)
	switch {
	case left < 0:
		return hasExpired
	case left < min(expirySoon, leaf.NotAfter.Sub(leaf.NotBefore)/shareSoon):
		return expiresSoon
	}
	return expiresLater
}

// watchExpiry tells of the certificate in force if it comes to expire soon, or
// expires. Only run calls it.
func (c *certificates) watchExpiry(now time.Time) {
	leaf := c.leaf()
	if leaf == nil {
		return
	}
	before := c.told
	if c.told = expiryOf(leaf, now); c.told <= before { // a renewed one begins anew
		return
	}
	e := event.Event{Kind: event.CertificateExpiring, Detail: describe509(leaf)}
	if c.told == hasExpired {
		e.Reason = pairExpired
	}
	c.tell(e)
}

// leaf is the certificate in force, or nil.
func (c *certificates) leaf() *x509.Certificate {
	if c == nil {
		return nil
	}
	if cert := c.inForce.Load(); cert != nil {
		return cert.Leaf
	}
	return nil
}

// config is that of the public port.
func (c *certificates) config() *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.inForce.Load(), nil
		},
	}
	if c.auto != nil {
		config.NextProtos = append(config.NextProtos, c.auto.protocols()...)
		config.GetCertificate = c.auto.config.GetCertificate // challenges too
	}
	return config
}

// listener is l with TLS, or l where that is not asked for.
func (c *certificates) listener(l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	return tls.NewListener(l, c.config())
}

// handler adds to what h answers that its name is for https only (RFC 6797).
// Browsers keep to that for all ports of a name, so the names of this machine
// alone, which developers share between programs, are left out; addresses they
// leave out themselves.
func (c *certificates) handler(h http.Handler) http.Handler {
	if c == nil {
		return h
	}
	always := fmt.Sprintf("max-age=%d", hstsAge)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf("//" + r.Host)
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
			w.Header().Set("Strict-Transport-Security", always)
		}
		h.ServeHTTP(w, r)
	})
}

// redirection leads whoever comes to the plain port to the same path of base().
// The client's own Host is not asked: who reaches this port may have been led
// here by any name. A request with a token is refused instead, so that whoever
// sends it notices that it goes over the network in clear.
func redirection(base func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := base()
		if r.Header.Get("Authorization") != "" || r.URL.Query().Has("token") || r.URL.Query().Has("ticket") {
			problem.New(problem.HTTPSRequired, "this port is not encrypted, and a token was sent to it, which others may have read: revoke it, and use "+to+" from now on").Write(w)
			return
		}
		if path := r.URL.EscapedPath(); strings.HasPrefix(path, "/") {
			to += path
		}
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusPermanentRedirect) // keeps the method, as POSTs need
	})
}

// publicURLOf completes --public-url: without a scheme it is https if this node
// speaks that. The error says what to give.
func publicURLOf(given string, secure bool) (string, error) {
	if given == "" {
		return "", nil
	}
	base := given
	if !strings.Contains(base, "://") {
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		base = scheme + base
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("--public-url %s: want for example https://weir.example.org", given)
	case secure && u.Scheme == "http":
		return "", fmt.Errorf("--public-url %s: this node speaks https: give https://%s, or leave the scheme out", given, u.Host)
	}
	return strings.TrimSuffix(base, "/"), nil
}

// clientURL is the URL that clients are told where --public-url is not given, if
// the certificate is not for the address that --http is bound to; "" if it is.
// The error says what to give where the certificate leaves a choice.
func (c *certificates) clientURL(at netip.AddrPort) (string, error) {
	if c.auto != nil {
		return httpsURL(c.auto.domain, at.Port()), nil
	}
	leaf := c.leaf()
	if leaf == nil || !at.Addr().IsUnspecified() && leaf.VerifyHostname(at.Addr().String()) == nil {
		return "", nil
	}
	names := slices.DeleteFunc(slices.Clone(leaf.DNSNames), func(name string) bool { return strings.Contains(name, "*") })
	switch {
	case len(names) == 1 && len(leaf.DNSNames) == 1:
		return httpsURL(names[0], at.Port()), nil
	case len(leaf.DNSNames) == 0:
		return "", nil // clients will not like it, which is told
	}
	return "", fmt.Errorf("--tls-cert: the certificate is of %s: give --public-url with the name of them by which clients reach this node, such as %s",
		strings.Join(leaf.DNSNames, ", "), httpsURL(strings.Replace(leaf.DNSNames[0], "*", "weir", 1), at.Port()))
}

// url is where the public port, bound to at, is reached from this machine: under
// the name that clients are told, where the certificate is not for the address.
func (c *certificates) url(at netip.AddrPort, public string) string {
	if c == nil {
		return "http://" + at.String()
	}
	if c.auto != nil && public != "" {
		return public
	}
	if leaf := c.leaf(); public != "" && leaf != nil && leaf.VerifyHostname(at.Addr().String()) != nil && leaf.VerifyHostname(hostOf(public)) == nil {
		return public
	}
	return "https://" + at.String()
}

func httpsURL(host string, port uint16) string {
	if port == 443 {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// advice is what is odd about the certificate in force though it can be used, one
// sentence each. Base is the URL that clients are told.
func (c *certificates) advice(base string) []string {
	cert := c.inForce.Load()
	if cert == nil {
		return []string{"there is none yet, so that clients are not served; weir events says why"}
	}
	leaf := cert.Leaf
	var all []string
	host := hostOf(base)
	switch {
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		all = append(all, "it names no host (subjectAltName), so that clients take it for nobody's")
	case leaf.VerifyHostname(host) != nil:
		all = append(all, fmt.Sprintf("it is of %s, and clients are told %s, where they will not trust it", called509(leaf), base))
	}
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		all = append(all, "it is not for servers (extendedKeyUsage), so that clients will not trust it")
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if more, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(more)
		}
	}
	var unknown x509.UnknownAuthorityError
	if _, err := leaf.Verify(x509.VerifyOptions{Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); errors.As(err, &unknown) {
		if len(cert.Certificate) == 1 && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			all = append(all, fmt.Sprintf("this machine does not trust its issuer, %s: is the intermediate certificate missing in the file (fullchain.pem), or is it a development CA?", leaf.Issuer))
		} else {
			all = append(all, fmt.Sprintf("this machine does not trust its issuer, %s: only clients that were told to will", leaf.Issuer))
		}
	}
	return all
}

// keyAdvice says who else may read the key, or "".
func (c *certificates) keyAdvice() string {
	if c.auto != nil {
		return ""
	}
	if info, err := os.Stat(c.keyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		return fmt.Sprintf("every user of this machine may read the private key: chmod 600 %s", c.keyFile)
	}
	return ""
}

// check is what weir doctor says of the certificate.
func (c *certificates) check(base string, now time.Time) doctor.Check {
	check := doctor.Check{Name: "certificate", Outcome: inspect.Fine}
	leaf := c.leaf()
	if leaf != nil {
		check.Seen = describe509(leaf)
	}
	advice := c.advice(base)
	if key := c.keyAdvice(); key != "" {
		advice = append(advice, key)
	}
	if len(advice) > 0 {
		check.Outcome, check.Do = inspect.Warning, "have a certificate that clients trust for the name in --public-url, with its intermediates"
		if c.auto != nil {
			check.Do = "have --public-url name the domain of --tls-auto, and --acme-url a CA that clients trust"
		}
		check.Seen = strings.TrimPrefix(check.Seen+": "+strings.Join(advice, "; "), ": ")
	}
	renew := "renew it; --tls-cert is read again when it changes"
	if c.auto != nil {
		renew = "see weir events --kind certificate for why ACME fails; port 443 of " + c.auto.domain + " must lead to --http, or port 80 to --http-redirect"
	}
	switch {
	case leaf == nil || expiryOf(leaf, now) == hasExpired:
		check.Outcome, check.Do = inspect.Failure, renew
	case c.wrong.Load() != nil:
		check.Outcome, check.Do = inspect.Warning, renew
		check.Seen += "; no other one was taken: " + *c.wrong.Load()
	case expiryOf(leaf, now) == expiresSoon:
		check.Outcome, check.Do = inspect.Warning, renew
	}
	return check
}

// checkMixed says whether browsers can go from this node to the others: a page
// that came by https may not ask a plain one (W3C Mixed Content, section 5.3),
// but for those of its own machine.
func checkMixed(nodes []api.Record) doctor.Check {
	c := doctor.Check{Name: "https", Outcome: inspect.Fine, Seen: "is spoken by all nodes that are known"}
	var plain []string
	for _, e := range nodes {
		if e.Valid && e.Record != nil && strings.HasPrefix(e.Record.URL, "http://") && scope.KindOfURL(e.Record.URL) != scope.Loopback {
			plain = append(plain, e.Record.URL)
		}
	}
	if len(plain) > 0 {
		slices.Sort(plain)
		c.Outcome, c.Do = inspect.Warning, "have all nodes of a network speak https, or none"
		c.Seen = fmt.Sprintf("is spoken here, and not by %s (%s): browsers that came here are not let go there", term.Count(len(plain), "other node", "other nodes"), strings.Join(plain[:min(len(plain), 3)], ", "))
	}
	return c
}

// called509 is what a certificate is for, as its reader would say it.
func called509(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return cmp.Or(c.Subject.String(), "nobody")
	}
	if len(names) > 4 {
		names = append(names[:4], fmt.Sprintf("and %d more", len(names)-4))
	}
	return strings.Join(names, ", ")
}

func describe509(c *x509.Certificate) string {
	return fmt.Sprintf("of %s, until %s, by %s", called509(c), stamp(c.NotAfter), cmp.Or(c.Issuer.String(), "nobody"))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Describe and Collect are those of a [prometheus.Collector].
func (c *certificates) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	c.failures.Describe(ch)
}

var expiryDesc = prometheus.NewDesc("weir_tls_certificate_expiry_timestamp_seconds", "When the certificate of the public port expires, Unix time. Alert when it is near: it should be renewed by then.", nil, nil)

func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	if leaf := c.leaf(); leaf != nil {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()))
	}
	c.failures.Collect(ch)
}

func (c *certificates) status() *api.TLS {
	leaf := c.leaf()
	if leaf == nil {
		return nil
	}
	s := &api.TLS{Names: slices.Clone(leaf.DNSNames), Issuer: leaf.Issuer.String(), NotAfter: leaf.NotAfter}
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	if c.redirect != nil {
		s.Redirect = "http://" + c.redirect.Addr().String()
	}
	return s
}

// secure makes ready what the public port needs for https, which is bound: the
// URL that clients are told, and the port that redirects to it.
func (n *node) secure(cfg *nodeConfig) (closeAll func() error, err error) {
	c := cfg.tls
	if c == nil {
		return func() error { return nil }, nil
	}
	c.event = n.events.Add
	if cfg.publicURL == "" {
		at := n.public.Addr().(*net.TCPAddr).AddrPort()
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if cfg.publicURL, err = c.clientURL(at); err != nil {
			return nil, cmdline.BadInput(err)
		}
		n.cfg.publicURL = cfg.publicURL
	}
	var opened []func() error
	closeAll = func() (err error) {
		for _, f := range slices.Backward(opened) {
			err = errors.Join(err, f())
		}
		return err
	}
	if cfg.redirect != "" {
		l, err := listenTCP(cfg.log, cfg.redirect, "--http-redirect", true)
		if err != nil {
			return nil, err
		}
		c.redirect = n.behindProxies(l)
		opened = append(opened, c.redirect.Close)
	}
	if c.auto != nil {
		c.auto.open(cfg.dataDir, n.public.Addr(), c.redirect, cfg.log, func(err error) { c.refused(&pairError{pairACME, c.auto.acmeError(err)}) })
		opened = append(opened, c.auto.close)
	}
	return closeAll, nil
}

// serveTLS is the work of https as long as the process, each in its own function.
func (n *node) serveTLS() []func(context.Context) error {
	c := n.cfg.tls
	if c == nil {
		return nil
	}
	work := []func(context.Context) error{func(ctx context.Context) error {
		if c.auto != nil {
			select {
			case <-c.auto.loaded:
			case <-ctx.Done():
				return ctx.Err()
			}
			if c.inForce.Store(c.auto.newest()); c.leaf() == nil {
				n.log.Info("no certificate yet, getting one", "domain", c.auto.domain, "from", c.auto.url)
			}
		}
		if c.leaf() != nil {
			for _, why := range c.advice(n.publicURL()) {
				n.log.Warn("clients may not trust the certificate", "detail", why)
			}
			if who := c.keyAdvice(); who != "" {
				n.log.Warn("private key is open to others", "detail", who)
			}
		}
		return c.run(ctx)
	}}
	if c.auto != nil {
		work = append(work, func(ctx context.Context) error {
			defer c.auto.close()
			return c.auto.run(ctx)
		})
	}
	if c.redirect != nil {
		h := redirection(n.publicURL)
		if c.auto != nil {
			h = c.auto.challenges(h)
		}
		plain := newServer(h, n.log)
		work = append(work, func(ctx context.Context) error { return serve(ctx, plain, c.redirect) })
	}
	return work
}

// caFlag is that of commands that ask a node's public port.
func caFlag() cli.Flag {
	return &cli.StringFlag{Name: "ca", Usage: "`FILE` of a CA (PEM) to trust for https besides this machine's, such as that of weir testnet up --tls", EnvVars: cmdline.Env("CA")}
}

// trustingClient trusts the CAs in a file besides this machine's. It is nil, as
// for the client's own, if none is given.
func trustingClient(file string) (*http.Client, error) {
	if file == "" {
		return nil, nil
	}
	roots, err := rootsWith("--ca", file)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &http.Client{Transport: transport}, nil
}

// rootsWith are this machine's CAs and those in a file.
func rootsWith(flag, file string) (*x509.CertPool, error) {
	text, err := readPEM(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s %s has no certificate in it: want PEM, with -----BEGIN CERTIFICATE-----", flag, file)
	}
	return roots, nil
}

// tlsAdvice is what to do if https is why a server was not reached.
func tlsAdvice(err error) string {
	var refused *client.Refused
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "; if it is a CA of your own, give --ca FILE or set SSL_CERT_FILE"
	case errors.As(err, &refused) && strings.Contains(refused.Body, "HTTP request to an HTTPS server"):
		return "; say https:// instead of http://"
	}
	return ""
}

// onePort is an error if two of the addresses given are the same port.
func (c nodeConfig) onePort() error {
	type at struct {
		flag, addr string
		given      bool
	}
	all := []at{{"--http", c.http, c.given.http}, {"--admin", c.admin, c.given.admin}, {"--metrics", c.metrics, true}, {"--http-redirect", c.redirect, true}}
	if c.given.listen {
		for _, a := range c.listen {
			if n, addr, err := manet.DialArgs(a); err == nil && strings.HasPrefix(n, "tcp") {
				all = append(all, at{"--listen", addr, true})
			}
		}
	}
	same := func(a, b string) bool {
		hostA, portA, errA := net.SplitHostPort(a)
		hostB, portB, errB := net.SplitHostPort(b)
		if errA != nil || errB != nil || portA != portB || portA == "0" {
			return false
		}
		ipA, ipB := hostIP(hostA), hostIP(hostB)
		return hostA == hostB || ipA == ipB && ipA.IsValid() || ipA.IsUnspecified() || ipB.IsUnspecified()
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.addr != "" && (a.given || b.given) && same(a.addr, b.addr) {
				return fmt.Errorf("%s %s and %s %s are the same port: give each one of its own", b.flag, b.addr, a.flag, a.addr)
			}
		}
	}
	return nil
}

// hostIP is the address that a host in HOST:PORT stands for, if that is known
// without asking anybody.
func hostIP(host string) netip.Addr {
	switch host {
	case "":
		return netip.IPv4Unspecified()
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	ip, _ := netip.ParseAddr(host)
	return ip.Unmap()
}
