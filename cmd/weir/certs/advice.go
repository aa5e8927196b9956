package certs

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"weir/capacity/scope"
	"weir/cmd/weir/api"
	"weir/cmd/weir/doctor"
	"weir/cmd/weir/term"
	"weir/dht/inspect"
)

// advice lists the oddities of the certificate in force that do not prevent its
// use, one sentence each. Base is the URL given to clients.
func (c *Certificates) advice(base string) []string {
	cert := c.inForce.Load()
	if cert == nil {
		return []string{"there is none yet, so that clients are not served; weir events says why"}
	}
	leaf := cert.Leaf
	var all []string
	host := HostOf(base)
	switch {
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		all = append(all, "it names no host (subjectAltName), so that clients accept it for no host")
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

// keyAdvice says which other users may read the key, or "".
func (c *Certificates) keyAdvice() string {
	if c.Auto != nil {
		return ""
	}
	if info, err := os.Stat(c.keyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		return fmt.Sprintf("every user of this machine may read the private key: chmod 600 %s", c.keyFile)
	}
	return ""
}

// Check is the certificate's check in weir doctor.
func (c *Certificates) Check(base string, now time.Time) doctor.Check {
	check := doctor.Check{Name: "certificate", Outcome: inspect.Fine}
	leaf := c.Leaf()
	if leaf != nil {
		check.Seen = describe509(leaf)
	}
	advice := c.advice(base)
	if key := c.keyAdvice(); key != "" {
		advice = append(advice, key)
	}
	if len(advice) > 0 {
		check.Outcome, check.Do = inspect.Warning, "have a certificate that clients trust for the name in --public-url, with its intermediates"
		if c.Auto != nil {
			check.Do = "have --public-url name the domain of --tls-auto, and --acme-url a CA that clients trust"
		}
		check.Seen = strings.TrimPrefix(check.Seen+": "+strings.Join(advice, "; "), ": ")
	}
	renew := "renew it; --tls-cert is read again when it changes"
	if c.Auto != nil {
		renew = "see weir events --kind certificate for why ACME fails; port 443 of " + c.Auto.Domain + " must lead to --http, or port 80 to --http-redirect"
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

// CheckMixed checks that browsers can go from this node to the others: a page
// loaded by https may not request a plain http URL (W3C Mixed Content, section
// 5.3), except on its own machine.
func CheckMixed(nodes []api.Record) doctor.Check {
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
