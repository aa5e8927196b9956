package main

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
	// acmeDir is where accounts, keys and certificates are kept, below the data
	// directory.
	acmeDir = "acme"
	// renewCheck is how often the certificate is looked at; it is renewed in the
	// last third of its life, or when the CA says (ARI, RFC 9773). Those of six
	// days, the shortest that CAs give, have two days for it.
	renewCheck = time.Minute
	// obtainPause is until a first certificate is tried again that could not even
	// be asked for. It doubles with each try, up to obtainPauseMost. What the CA
	// refuses is tried again by certmagic's own schedule: after 1, 2, 2, 5, 10 …
	// minutes.
	obtainPause     = 2 * time.Second
	obtainPauseMost = 10 * time.Minute
	// maxACMEError bounds what is told of an ACME server's words, in bytes.
	maxACMEError = 600
)

// autoFlags are those of certificates by ACME (RFC 8555).
func autoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-auto", Usage: "`DOMAIN` of this node, for which certificates are got by ACME and renewed; you agree to the CA's terms. It asks at the domain's port 443, which must lead to --http, or 80, to --http-redirect", EnvVars: cmdline.Env("TLS_AUTO")},
		&cli.StringFlag{Name: "acme-url", Usage: "directory `URL` of the ACME server", Value: certmagic.LetsEncryptProductionCA, EnvVars: cmdline.Env("ACME_URL")},
		&cli.StringFlag{Name: "acme-ca", Usage: "`FILE` of a CA (PEM) to trust for the ACME server itself besides this machine's", EnvVars: cmdline.Env("ACME_CA")},
	}
}

// automatic gets certificates by ACME, and renews them.
type automatic struct {
	domain string
	url    string
	roots  *x509.CertPool // of the ACME server's own https; nil: this machine's
	every  time.Duration  // looks whether it is time to renew

	// Known once the public port is bound.
	dir    string
	failed func(error)
	loaded chan struct{} // closed when what was kept has been read
	once   sync.Once
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer

	mu   sync.Mutex
	told string // why the last attempt failed, if that has been told of
}

// automaticOf reads autoFlags; nil if they are not used.
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
	a := &automatic{url: c.String("acme-url"), every: renewCheck}
	const want = "--tls-auto %s: want the domain name of this node alone, such as weir.example.org"
	var err error
	if a.domain, err = idna.Lookup.ToASCII(strings.TrimSuffix(given, ".")); err != nil || !certmagic.SubjectQualifiesForCert(a.domain) || strings.ContainsAny(a.domain, "*:/") {
		return nil, fmt.Errorf(want, given)
	}
	if _, err := netip.ParseAddr(a.domain); err == nil {
		return nil, fmt.Errorf(want+"; for an address give --tls-cert and --tls-key", given)
	}
	if a.url == certmagic.LetsEncryptProductionCA && (certmagic.SubjectIsInternal(a.domain) || !strings.Contains(a.domain, ".")) {
		return nil, fmt.Errorf("--tls-auto %s: no public CA gives certificates for such a name: give --acme-url of one of your own, or --tls-cert and --tls-key", given)
	}
	if u, err := url.Parse(a.url); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--acme-url %s: want the https URL of an ACME directory, such as %s", a.url, certmagic.LetsEncryptStagingCA)
	}
	if file := c.String("acme-ca"); file != "" {
		if a.roots, err = rootsWith("--acme-ca", file); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// open makes ready to get certificates, which are kept in dir, for the public
// port bound to at; redirect is the plain one, if there is any. Failed is told of
// every attempt that failed. Nothing is asked of anybody yet.
func (a *automatic) open(dir string, at net.Addr, redirect net.Listener, log *slog.Logger, failed func(error)) {
	a.dir, a.failed, a.loaded = filepath.Join(dir, acmeDir), failed, make(chan struct{})
	logger := zap.New(&slogCore{log: log, failed: a.fail})
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil },
		RenewCheckInterval: a.every,
		Logger:             logger,
	})
	a.config = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: a.dir},
		// Clients that name no host, or another one, are told whom they have
		// reached, which says more than an alert.
		DefaultServerName: a.domain, FallbackServerName: a.domain,
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
	host, port, _ := net.SplitHostPort(at.String()) // it is an address
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = ""
	}
	template := certmagic.ACMEIssuer{
		CA: a.url, TrustedRoots: a.roots, Agreed: true, Logger: logger,
		// The ports are ours already, so that certmagic opens none of its own.
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
	n, _ := net.LookupPort("tcp", s) // it is a number
	return n
}

// run gets a certificate if none is kept, and has it renewed, until ctx is done.
func (a *automatic) run(ctx context.Context) error {
	for pause := obtainPause; ; pause = min(2*pause, obtainPauseMost) {
		_, err := a.config.CacheManagedCertificate(ctx, a.domain)
		a.once.Do(func() { close(a.loaded) })
		switch {
		case err == nil:
			_ = a.cache.RenewManagedCertificates(ctx) // at once if it is time; it tells of what fails
			<-ctx.Done()
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			// It tries again by itself as long as the CA is what fails.
			if err = a.config.ObtainCertAsync(ctx, a.domain); err == nil {
				pause = obtainPause / 2 // what was got should be there now
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

// fail tells of an attempt that failed, once though it comes here by several ways.
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

// tried says that an attempt begins: what fails from now on is told of.
func (a *automatic) tried() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = ""
}

// close ends what open began.
func (a *automatic) close() error {
	a.cache.Stop()
	certmagic.CleanUpOwnLocks(context.Background(), a.config.Logger)
	return nil
}

// newest is the certificate that is valid longest, or nil.
func (a *automatic) newest() *tls.Certificate {
	var best *tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(a.domain) {
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c.Certificate
		}
	}
	return best
}

// challenges answers what the ACME server asks at the plain port (RFC 8555,
// section 8.3), and leaves the rest to h.
func (a *automatic) challenges(h http.Handler) http.Handler {
	return a.issuer.HTTPChallengeHandler(h)
}

// protocols are what the public port speaks besides HTTP: challenges by ALPN (RFC
// 8737).
func (a *automatic) protocols() []string { return []string{acmez.ACMETLS1Protocol} }

// acmeError is err for people: an ACME server's own words where it has any.
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
	return fmt.Errorf("no certificate for %s from %s: %s. It has to reach port 443 of %s, which leads to --http, or port 80, which leads to --http-redirect; it is tried again, later each time", a.domain, host, text, a.domain)
}

// slogCore passes what certmagic logs on, for debugging: what matters is an event.
// Of a renewal that does not come as far as the CA, for want of storage for
// example, certmagic makes a line in its log only; failed is told of that.
type slogCore struct {
	log    *slog.Logger
	failed func(error)
	fields []zapcore.Field
}

// jobFailed is the line about a renewal that failed, however far it came.
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
