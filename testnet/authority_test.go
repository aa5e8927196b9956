package testnet

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A development CA stays the same until it is about to expire, no other user
// can read its key, and its signatures for other hosts are not trusted.
func TestAuthority(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a, err := OpenAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, authorityKey))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode: %v, %v", info, err)
	}
	for _, c := range []struct {
		at   time.Time
		same bool
	}{{now.Add(300 * 24 * time.Hour), true}, {now.Add(336 * 24 * time.Hour), false}} {
		again, err := OpenAuthority(dir, c.at)
		if err != nil || again.Cert().Equal(a.Cert()) != c.same {
			t.Errorf("at %v: the same: %v, %v", c.at, !c.same, err)
		}
	}

	verify := func(a *Authority, name string) error {
		certPEM, _, err := a.Issue(now.Add(-time.Hour), now.Add(time.Hour), name)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(certPEM)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(a.Cert())
		_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
		return err
	}
	for name, trusted := range map[string]bool{
		"localhost": true, "weir.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true,
		"example.org": false, "notlocalhost": false, "192.0.2.1": false, "10.0.0.1": false, "2001:db8::1": false,
	} {
		if err := verify(a, name); (err == nil) != trusted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A CA whose key is missing or does not match is not replaced silently: users
// trust it.
func TestAuthorityThatIsDamaged(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"the key is gone":   func(dir string) error { return os.Remove(filepath.Join(dir, authorityKey)) },
		"the key is no key": func(dir string) error { return os.WriteFile(filepath.Join(dir, authorityKey), []byte("x"), 0o600) },
		"the CA is no CA":   func(dir string) error { return os.WriteFile(filepath.Join(dir, AuthorityFile), []byte("x"), 0o600) },
		"the key is another's": func(dir string) error {
			other := t.TempDir()
			if _, err := OpenAuthority(other, time.Now()); err != nil {
				return err
			}
			return os.Rename(filepath.Join(other, authorityKey), filepath.Join(dir, authorityKey))
		},
	} {
		dir := t.TempDir()
		if _, err := OpenAuthority(dir, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir, time.Now()); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "delete ca.pem and ca-key.pem") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
