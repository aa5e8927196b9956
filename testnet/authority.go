package testnet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
	"weir/capacity/durable"
)

const (
	// AuthorityFile is the certificate of a directory's development CA, for
	// clients that trust it.
	AuthorityFile = "ca.pem"
	authorityKey  = "ca-key.pem"
	// pairFile and pairKey are the certificate and key of all nodes of a
	// testnet with https.
	pairFile = "tls.pem"
	pairKey  = "tls-key.pem"

	// authorityLife is the life of a development CA; one with less than
	// authorityRest left is replaced.
	authorityLife = 365 * 24 * time.Hour
	authorityRest = 30 * 24 * time.Hour
	pairLife      = 90 * 24 * time.Hour
	// clockSlack is the tolerated difference between clocks.
	clockSlack = time.Hour
)

// An Authority is a CA for development. Trusting it does not mean trusting
// everyone who gets its key: it is limited to loopback addresses and localhost
// (RFC 5280, section 4.2.1.10), and browsers and Go enforce that.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte // of cert
}

// OpenAuthority returns the CA of a directory, which is kept from one testnet
// to the next, so that users trust it once. If there is none, or it is about to
// expire at now, it makes one. Only the user can read its key.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, AuthorityFile), filepath.Join(dir, authorityKey)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || !pair.Leaf.IsCA {
			err = errors.New("it is none of weir's")
		} else if now.Before(pair.Leaf.NotAfter.Add(-authorityRest)) && now.After(pair.Leaf.NotBefore) {
			return newAuthority(pair.Leaf, key), nil
		}
	}
	if _, there := os.Stat(certFile); err != nil && !errors.Is(there, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the development CA in %s is damaged (%w): delete %s and %s for a new one", ErrInput, dir, err, AuthorityFile, authorityKey)
	}
	a, err := NewAuthority(now)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	if err := writeSecret(keyFile, pemOf("PRIVATE KEY", der)); err != nil {
		return nil, err
	}
	return a, durable.Replace(certFile, a.pem, 0o644)
}

// NewAuthority makes a CA in memory only.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	template := &x509.Certificate{
		SerialNumber: serial(),
		// A name that users recognize in their list of trusted CAs.
		Subject:               pkix.Name{CommonName: "weir development CA " + host + " " + now.UTC().Format(time.DateOnly)},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,

		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{"localhost"},
		PermittedIPRanges:           []*net.IPNet{{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, {IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return newAuthority(cert, key), nil
}

func newAuthority(cert *x509.Certificate, key *ecdsa.PrivateKey) *Authority {
	return &Authority{cert, key, pemOf("CERTIFICATE", cert.Raw)}
}

// Cert is the CA's certificate.
func (a *Authority) Cert() *x509.Certificate { return a.cert }

// Issue returns a certificate for names, which are DNS names and IP addresses,
// and its key.
func (a *Authority) Issue(from, until time.Time, names ...string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "weir testnet"},
		NotBefore:    from,
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", secret), nil
}

// secure makes the certificate of a testnet's nodes.
func secure(dir string, now time.Time) error {
	a, err := OpenAuthority(dir, now)
	if err != nil {
		return fmt.Errorf("development CA: %w", err)
	}
	cert, key, err := a.Issue(now.Add(-clockSlack), now.Add(pairLife), "localhost", "127.0.0.1", "::1")
	if err != nil {
		return fmt.Errorf("development certificate: %w", err)
	}
	if err := writeSecret(filepath.Join(dir, pairKey), key); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, pairFile), cert, 0o644)
}

// tlsArgs are the nodes' flags for https.
func tlsArgs(dir string) []string {
	return []string{"--tls-cert", filepath.Join(dir, pairFile), "--tls-key", filepath.Join(dir, pairKey)}
}

// writeSecret is replaceFile for a file that only the user may read.
func writeSecret(path string, b []byte) error {
	if err := os.Remove(path + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func pemOf(kind string, der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // writing to a buffer does not fail
	return b.Bytes()
}

// serial is a unique serial number (RFC 5280, section 4.1.2.2: 20 octets).
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("weir: no randomness: " + err.Error())
	}
	return n.Add(n, big.NewInt(1))
}
