package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"weir/cmd/weir/term"
)

// A pairError says why a certificate and its key are not used. Reason is from a
// bounded set, for metrics and events.
type pairError struct {
	reason string
	err    error
}

func (e *pairError) Error() string { return e.err.Error() }

func (e *pairError) Unwrap() error { return e.err }

func unusable(reason, format string, args ...any) error {
	return &pairError{reason, fmt.Errorf(format, args...)}
}

// readPEM reads a whole regular file of bounded size, which can be read again.
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
// valid now. The error is a [*pairError] that says what is wrong and how to fix
// it.
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
		return nil, unusable(pairExpired, "--tls-cert %s: the certificate of %s expired at %s: renew it (or is this machine's clock wrong? it says %s)", certFile, called509(leaf), term.Stamp(leaf.NotAfter), term.Stamp(now))
	case now.Before(leaf.NotBefore):
		return nil, unusable(pairNotYetValid, "--tls-cert %s: the certificate of %s is valid from %s on: is this machine's clock wrong? it says %s", certFile, called509(leaf), term.Stamp(leaf.NotBefore), term.Stamp(now))
	}
	return &pair, nil
}

// blocks returns the certificates in a file, and the number of private keys.
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
			return nil, 0, unusable(pairMalformed, "%s %s is protected by a passphrase, which a service cannot type: take it off by openssl pkey -in %s -out FILE, readable by weir's user alone", flag, file, file)
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			keys++
		}
	}
	return certs, keys, nil
}

// A publicKey is any kind of public key in the standard library.
type publicKey interface {
	Equal(crypto.PublicKey) bool
}

// publicOf is the public key of the first private key in text, or nil.
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

// called509 lists the names and addresses that a certificate is for, for messages.
func called509(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return cmp.Or(c.Subject.String(), "no subject")
	}
	if len(names) > 4 {
		names = append(names[:4], fmt.Sprintf("and %d more", len(names)-4))
	}
	return strings.Join(names, ", ")
}

func describe509(c *x509.Certificate) string {
	return fmt.Sprintf("of %s, until %s, by %s", called509(c), term.Stamp(c.NotAfter), cmp.Or(c.Issuer.String(), "no issuer"))
}

// RootsWith are this machine's CAs and those in a file.
func RootsWith(flag, file string) (*x509.CertPool, error) {
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
