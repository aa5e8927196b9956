package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/metrics"
	"weir/cmd/weir/term"
)

const (
	// maxPEM bounds the bytes read of a certificate's or key's file. A chain of
	// five takes 10 KiB.
	maxPEM = 256 << 10
	// pairCheck is how often these files, and the expiry of the certificate in
	// force, are checked.
	pairCheck = time.Second
	// expirySoon is the remaining life at which a certificate counts as
	// expiring soon, and shareSoon the share of its life for a shorter-lived
	// one: certificates of 90 days are renewed a month before by custom, those
	// of 6 days half-way.
	expirySoon = 14 * 24 * time.Hour
	shareSoon  = 6
	// hstsAge is how long browsers use only https for a name, in seconds.
	hstsAge = 365 * 24 * 60 * 60
)

// Flags are the flags of https.
func Flags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` of a certificate and its intermediates (PEM), by which --http speaks https; read again when it changes", EnvVars: cmdline.Env("TLS_CERT")},
		&cli.StringFlag{Name: "tls-key", Usage: "`FILE` of its private key (PEM)", EnvVars: cmdline.Env("TLS_KEY")},
		&cli.StringFlag{Name: "http-redirect", Usage: "`HOST:PORT` of a plain port that leads browsers to https, such as :80", EnvVars: cmdline.Env("HTTP_REDIRECT")},
	}, autoFlags()...)
}

// Of reads tlsFlags. The certificates are nil where --http stays plain.
func Of(c *cli.Context, log *slog.Logger) (*Certificates, error) {
	cert, key := c.String("tls-cert"), c.String("tls-key")
	auto, err := automaticOf(c)
	switch {
	case err != nil:
		return nil, err
	case auto != nil && (cert != "" || key != ""):
		return nil, errors.New("--tls-auto and --tls-cert: a certificate comes by ACME or from a file, not both ways")
	case auto != nil:
		return &Certificates{Auto: auto, log: log, failures: newPairFailures()}, nil
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

// Reasons of pairErrors.
const (
	pairUnreadable  = "unreadable"    // of a file
	pairMalformed   = "malformed"     // or of the wrong kind
	pairMismatch    = "mismatch"      // the key belongs to another certificate
	pairExpired     = "expired"       // by this machine's clock
	pairNotYetValid = "not-yet-valid" // likewise
	PairACME        = "acme"          // no certificate, since ACME failed
)

func pairReasons() []string {
	return []string{pairUnreadable, pairMalformed, pairMismatch, pairExpired, pairNotYetValid, PairACME}
}

// Certificates are the certificates of --http: the one in force, which new
// connections get, and the source of later ones. Existing connections keep
// theirs. A nil *certificates is plain HTTP.
type Certificates struct {
	certFile, keyFile string
	Auto              *automatic // nil: from files

	log      *slog.Logger
	event    func(event.Event) // nil: events are logged
	Redirect net.Listener      // nil without --http-redirect
	failures *prometheus.CounterVec
	inForce  atomic.Pointer[tls.Certificate]
	wrong    atomic.Pointer[string] // the error of a newer certificate that is not in force; nil: none

	mu   sync.Mutex
	last string // checksum of the files when they were last parsed
	seen string // … and at the last look

	told expiry // of the certificate in force; used by run only
}

// newCertificates reads a pair of files, and later ones from the same files.
func newCertificates(certFile, keyFile string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{certFile: certFile, keyFile: keyFile, log: log, failures: newPairFailures()}
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
		Help: "Certificates not applied, by reason: the one before stays in force.",
	}, []string{"reason"})
	for _, reason := range pairReasons() {
		v.WithLabelValues(metrics.Snake(reason))
	}
	return v
}

// read reads the files. Sum identifies their content, or the error of reading
// them: reads are compared by it.
func (c *Certificates) read(now time.Time) (sum string, _ *tls.Certificate, err error) {
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

// Reload checks the files at once and puts their certificate in force. An error
// leaves the certificate in force, and is reported as an event too, once; it is
// a [*pairError]. Certificates by ACME are renewed by themselves.
func (c *Certificates) Reload() error {
	if c == nil || c.Auto != nil {
		return nil
	}
	return c.look(time.Now(), true)
}

// look puts the files' certificate in force, if it is new. Unless sure, a
// mistake has to be there at two checks: the two files are replaced one after
// the other.
func (c *Certificates) look(now time.Time, sure bool) error {
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
func (c *Certificates) applied(cert *tls.Certificate) {
	c.inForce.Store(cert)
	c.wrong.Store(nil)
	c.tell(event.Event{Kind: event.CertificateApplied, Detail: describe509(cert.Leaf)})
}

// refused reports a certificate that was not put in force.
func (c *Certificates) refused(err error) {
	reason := pairMalformed
	var pair *pairError
	if errors.As(err, &pair) {
		reason = pair.reason
	}
	c.failures.WithLabelValues(metrics.Snake(reason)).Inc()
	text := err.Error()
	c.wrong.Store(&text)
	stays := "there is none yet"
	if leaf := c.Leaf(); leaf != nil {
		stays = "the one of " + called509(leaf) + " stays, until " + term.Stamp(leaf.NotAfter)
	}
	c.tell(event.Event{Kind: event.CertificateFailed, Reason: reason, Detail: err.Error() + "; " + stays})
}

func (c *Certificates) tell(e event.Event) { eventlog.Tell(c.event, c.log, e) }

// run follows the files or has certificates renewed, and reports when the one
// in force expires soon or has expired, until ctx is done.
func (c *Certificates) run(ctx context.Context) error {
	tick := time.NewTicker(pairCheck)
	defer tick.Stop()
	for {
		if c.Auto != nil {
			c.follow()
		} else {
			_ = c.look(time.Now(), false) // look reports its errors itself
		}
		c.watchExpiry(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow reports a certificate that came by ACME. Only run calls it.
func (c *Certificates) follow() {
	cert, before := c.Auto.newest(), c.Leaf()
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

// watchExpiry reports when the certificate in force is about to expire, or
// expires. Only run calls it.
func (c *Certificates) watchExpiry(now time.Time) {
	leaf := c.Leaf()
	if leaf == nil {
		return
	}
	before := c.told
	if c.told = expiryOf(leaf, now); c.told <= before { // a renewed certificate starts anew
		return
	}
	e := event.Event{Kind: event.CertificateExpiring, Detail: describe509(leaf)}
	if c.told == hasExpired {
		e.Reason = pairExpired
	}
	c.tell(e)
}

// Leaf is the certificate in force, or nil.
func (c *Certificates) Leaf() *x509.Certificate {
	if c == nil {
		return nil
	}
	if cert := c.inForce.Load(); cert != nil {
		return cert.Leaf
	}
	return nil
}

// config is the TLS configuration of the public port.
func (c *Certificates) config() *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.inForce.Load(), nil
		},
	}
	if c.Auto != nil {
		config.NextProtos = append(config.NextProtos, c.Auto.protocols()...)
		config.GetCertificate = c.Auto.config.GetCertificate // answers challenges too
	}
	return config
}

// Describe and Collect implement [prometheus.Collector].
func (c *Certificates) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	c.failures.Describe(ch)
}

var expiryDesc = prometheus.NewDesc("weir_tls_certificate_expiry_timestamp_seconds", "When the certificate of the public port expires, Unix time. Alert when it is near: it should be renewed by then.", nil, nil)

func (c *Certificates) Collect(ch chan<- prometheus.Metric) {
	if leaf := c.Leaf(); leaf != nil {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()))
	}
	c.failures.Collect(ch)
}

func (c *Certificates) Status() *api.TLS {
	leaf := c.Leaf()
	if leaf == nil {
		return nil
	}
	s := &api.TLS{Names: slices.Clone(leaf.DNSNames), Issuer: leaf.Issuer.String(), NotAfter: leaf.NotAfter}
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	if c.Redirect != nil {
		s.Redirect = "http://" + c.Redirect.Addr().String()
	}
	return s
}
