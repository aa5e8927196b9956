package daemon

import (
	"strings"
	"testing"
	"time"

	"weir/testnet"
)

// pairFiles are the files of a certificate for names, valid for an hour, and of
// its key.
func pairFiles(t *testing.T, names ...string) (certFile, keyFile string) {
	t.Helper()
	ca, err := testnet.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), names...)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
}

func TestTLSFlagsThatAreWrong(t *testing.T) {
	certFile, keyFile := pairFiles(t, "localhost", "127.0.0.1")
	pair := "--tls-cert " + certFile + " --tls-key " + keyFile
	for _, c := range []struct{ args, says string }{
		{"--tls-cert " + certFile, "give --tls-key FILE too"},
		{"--tls-key " + keyFile, "give --tls-cert FILE too"},
		{"--tls-cert " + keyFile + " --tls-key " + certFile, "swapped?"},
		{"--http-redirect 127.0.0.1:0", "--http-redirect leads to https: give --tls-cert"},
		{pair + " --http-redirect 0.0.0.0:80", "--http-redirect 0.0.0.0:80 can be reached from other machines"},
		{pair + " --http-redirect nowhere", "--http-redirect nowhere"},
		{pair + " --public-url http://weir.example.org", "https://weir.example.org, or leave the scheme out"},
		{"--public-url ftp://weir.example.org", "--public-url ftp://weir.example.org: want for example"},
		{"--public-url https://weir.example.org?x=1", "want for example"},
		{"--http 127.0.0.1:8443 --admin 127.0.0.1:8443", "--http 127.0.0.1:8443 and --admin 127.0.0.1:8443 are the same port"},
		{"--http 127.0.0.1:8443 --admin localhost:8443", "are the same port"},
		{"--insecure-open --http :8443 --metrics 127.0.0.1:8443", "--http :8443 and --metrics 127.0.0.1:8443 are the same port"},
		{"--admin 127.0.0.1:8080", "--http 127.0.0.1:8080 and --admin 127.0.0.1:8080"},
		{pair + " --http-redirect 127.0.0.1:8080", "--http-redirect 127.0.0.1:8080 are the same port"},
		{"--listen /ip4/127.0.0.1/tcp/8080", "--listen 127.0.0.1:8080"},
	} {
		if _, err := parse(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want a word of %q", c.args, err, c.says)
		}
	}
	for args, want := range map[string]string{
		pair + " --public-url weir.example.org:8443":        "https://weir.example.org:8443",
		pair + " --public-url https://weir.example.org/":    "https://weir.example.org",
		"--public-url weir.example.org":                     "http://weir.example.org",
		"--public-url https://[2001:db8::1]:8443/live":      "https://[2001:db8::1]:8443/live",
		pair + " --http-redirect 127.0.0.1:0":               "",
		"--http 127.0.0.1:0 --admin 127.0.0.1:0":            "",
		"--http 127.0.0.1:8443 --admin 127.0.0.2:8443":      "",
		"--http 127.0.0.1:8443 --media-port 127.0.0.1:8443": "", // UDP, and TCP only where it is free
	} {
		if cfg, err := parse(t, strings.Fields(args)...); err != nil || cfg.publicURL != want {
			t.Errorf("%s: %q, %v; want %q", args, cfg.publicURL, err, want)
		}
	}
}
