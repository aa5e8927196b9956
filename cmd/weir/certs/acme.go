package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/idna"

	"weir/cmd/weir/cmdline"
)

const (
	// ACMEDir is the directory of accounts, keys and certificates, below the
	// data directory.
	ACMEDir = "acme"
	// renewCheck is how often the certificate is checked; it is renewed in the
	// last third of its life, or when the CA says (ARI, RFC 9773). For
	// certificates of six days, the shortest that CAs issue, that leaves two
	// days.
	renewCheck = time.Minute
	// obtainPause is the time until the next attempt to get a first
	// certificate, if the request could not even be made. It doubles with each
	// attempt, up to obtainPauseMost. After a refusal by the CA, certmagic's
	// own schedule applies: after 1, 2, 2, 5, 10 … minutes.
	obtainPause     = 2 * time.Second
	obtainPauseMost = 10 * time.Minute
	// maxACMEError bounds the bytes reported of an ACME server's error text.
	maxACMEError = 600
)

// autoFlags are the flags of certificates by ACME (RFC 8555).
func autoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-auto", Usage: "`DOMAIN` of this node, for which certificates are got by ACME and renewed; you agree to the CA's terms. It asks at the domain's port 443, which must lead to --http, or 80, to --http-redirect", EnvVars: cmdline.Env("TLS_AUTO")},
		&cli.StringFlag{Name: "acme-url", Usage: "directory `URL` of the ACME server", Value: certmagic.LetsEncryptProductionCA, EnvVars: cmdline.Env("ACME_URL")},
		&cli.StringFlag{Name: "acme-ca", Usage: "`FILE` of a CA (PEM) to trust for the ACME server itself besides this machine's", EnvVars: cmdline.Env("ACME_CA")},
	}
}

// automatic gets certificates by ACME, and renews them.
type automatic struct {
	Domain string
	url    string
	roots  *x509.CertPool // for the ACME server's own https; nil: this machine's
	Every  time.Duration  // interval of renewal checks

	// Set once the public port is bound.
	dir    string
	failed func(error)
	loaded chan struct{} // closed when the stored certificate has been read
	once   sync.Once
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer

	mu   sync.Mutex
	told string // why the last attempt failed, if that was reported
}

// automaticOf reads autoFlags; nil if they are not set.
func automaticOf(c *cli.Context) (*automatic, error) {
	given := c.String("tls-auto")
	if given == "" {
		for _, flag := range []string{"acme-url", "acme-ca"} {
			if c.IsSet(flag) {
				return nil, fmt.Errorf("--%s is for --tls-auto: give the DOMAIN of this node with that", flag)
			}
		}
		return nil, nil
	}
	a := &automatic{url: c.String("acme-url"), Every: renewCheck}
	const want = "--tls-auto %s: want the domain name of this node alone, such as weir.example.org"
	var err error
	if a.Domain, err = idna.Lookup.ToASCII(strings.TrimSuffix(given, ".")); err != nil || !certmagic.SubjectQualifiesForCert(a.Domain) || strings.ContainsAny(a.Domain, "*:/") {
		return nil, fmt.Errorf(want, given)
	}
	if _, err := netip.ParseAddr(a.Domain); err == nil {
		return nil, fmt.Errorf(want+"; for an address give --tls-cert and --tls-key", given)
	}
	if a.url == certmagic.LetsEncryptProductionCA && (certmagic.SubjectIsInternal(a.Domain) || !strings.Contains(a.Domain, ".")) {
		return nil, fmt.Errorf("--tls-auto %s: no public CA gives certificates for such a name: give --acme-url of one of your own, or --tls-cert and --tls-key", given)
	}
	if u, err := url.Parse(a.url); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--acme-url %s: want the https URL of an ACME directory, such as %s", a.url, certmagic.LetsEncryptStagingCA)
	}
	if file := c.String("acme-ca"); file != "" {
		if a.roots, err = RootsWith("--acme-ca", file); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// open prepares for getting certificates, which are stored in dir, for the
// public port bound to at; redirect is the plain port, if there is one. Failed
// is called for every failed attempt. No request is made yet.
func (a *automatic) open(dir string, at net.Addr, redirect net.Listener, log *slog.Logger, failed func(error)) {
	a.dir, a.failed, a.loaded = filepath.Join(dir, ACMEDir), failed, make(chan struct{})
	logger := zap.New(&slogCore{log: log, failed: a.fail})
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil },
		RenewCheckInterval: a.Every,
		Logger:             logger,
	})
	a.config = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: a.dir},
		// Clients that send no host name, or another one, get our certificate,
		// which explains more than an alert.
		DefaultServerName: a.Domain, FallbackServerName: a.Domain,
		Logger: logger,
		OnEvent: func(_ context.Context, name string, data map[string]any) error {
			switch err, _ := data["error"].(error); {
			case name == "cert_obtaining":
				a.tried()
			case name == "cert_failed" && err != nil:
				a.fail(err)
			}
			return nil
		},
	})
	host, port, _ := net.SplitHostPort(at.String()) // at is a valid address
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = ""
	}
	template := certmagic.ACMEIssuer{
		CA: a.url, TrustedRoots: a.roots, Agreed: true, Logger: logger,
		// The ports are bound already, so that certmagic opens none of its own.
		ListenHost: host, AltTLSALPNPort: portOf(port), DisableHTTPChallenge: redirect == nil,
	}
	if redirect != nil {
		_, port, _ := net.SplitHostPort(redirect.Addr().String())
		template.AltHTTPPort = portOf(port)
	}
	a.issuer = certmagic.NewACMEIssuer(a.config, template)
	a.config.Issuers = []certmagic.Issuer{a.issuer}
}

func portOf(s string) int {
	n, _ := net.LookupPort("tcp", s) // s is a number
	return n
}

// run gets a certificate if none is stored, and has it renewed, until ctx is done.
func (a *automatic) run(ctx context.Context) error {
	for pause := obtainPause; ; pause = min(2*pause, obtainPauseMost) {
		_, err := a.config.CacheManagedCertificate(ctx, a.Domain)
		a.once.Do(func() { close(a.loaded) })
		switch {
		case err == nil:
			_ = a.cache.RenewManagedCertificates(ctx) // renews at once if it is time; it reports its failures itself
			<-ctx.Done()
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			// certmagic tries again by itself as long as the CA is the cause of
			// failures.
			if err = a.config.ObtainCertAsync(ctx, a.Domain); err == nil {
				pause = obtainPause / 2 // the certificate should be there at the next check
			}
		default:
			err = fmt.Errorf("what is kept in %s cannot be used (%w): delete it to get another", a.dir, err)
		}
		if err != nil && ctx.Err() == nil {
			a.fail(err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fail reports a failed attempt, once even if it is called in several ways.
func (a *automatic) fail(err error) {
	a.mu.Lock()
	again := a.told != "" && strings.Contains(err.Error(), a.told)
	if !again {
		a.told = err.Error()
	}
	a.mu.Unlock()
	if !again {
		a.failed(err)
	}
}

// tried marks the start of an attempt: later failures are reported.
func (a *automatic) tried() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = ""
}

// close undoes open.
func (a *automatic) close() error {
	a.cache.Stop()
	certmagic.CleanUpOwnLocks(context.Background(), a.config.Logger)
	return nil
}

// newest is the certificate with the latest expiry, or nil.
func (a *automatic) newest() *tls.Certificate {
	var best *tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(a.Domain) {
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c.Certificate
		}
	}
	return best
}

// challenges answers the ACME server's requests at the plain port (RFC 8555,
// section 8.3), and leaves all others to h.
func (a *automatic) challenges(h http.Handler) http.Handler {
	return a.issuer.HTTPChallengeHandler(h)
}

// protocols are the ALPN protocols of the public port besides HTTP: that of
// challenges (RFC 8737).
func (a *automatic) protocols() []string { return []string{acmez.ACMETLS1Protocol} }

// acmeError is err for people: the ACME server's own text if there is one.
func (a *automatic) acmeError(err error) error {
	text := err.Error()
	var p acme.Problem
	if errors.As(err, &p) {
		text = p.Detail
		if text == "" {
			text = p.Type
		}
	}
	if len(text) > maxACMEError {
		text = strings.ToValidUTF8(text[:maxACMEError], "") + "…"
	}
	host := a.url
	if u, err := url.Parse(a.url); err == nil {
		host = u.Host
	}
	return fmt.Errorf("no certificate for %s from %s: %s. It has to reach port 443 of %s, which leads to --http, or port 80, which leads to --http-redirect; it is tried again, later each time", a.Domain, host, text, a.Domain)
}

// slogCore passes certmagic's log on at debug level: events report the
// important parts. If a renewal fails before it reaches the CA, for example
// because it cannot write its storage, certmagic only writes a log line;
// slogCore calls failed for it.
type slogCore struct {
	log    *slog.Logger
	failed func(error)
	fields []zapcore.Field
}

// jobFailed is the log line about a failed renewal, at any stage.
const jobFailed = "job failed"

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.ErrorLevel || c.log.Enabled(context.Background(), slog.LevelDebug)
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{c.log, c.failed, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	attrs := []any{slog.String("level", e.Level.String())}
	for _, list := range [][]zapcore.Field{c.fields, fields} {
		for _, f := range list {
			f.AddTo(encoder)
			if v, ok := encoder.Fields[f.Key]; ok {
				attrs = append(attrs, slog.String(f.Key, fmt.Sprint(v)))
			}
		}
	}
	c.log.Debug("acme: "+e.Message, attrs...)
	if why, ok := encoder.Fields["error"].(string); ok && e.Message == jobFailed {
		c.failed(errors.New(why))
	}
	return nil
}

func (c *slogCore) Sync() error { return nil }
