package media

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/certs"
	"weir/cmd/weir/cmdline"
	"weir/sfu/client"
)

// caFlag is the flag --ca of commands that connect to a node's public port.
func caFlag() cli.Flag {
	return &cli.StringFlag{Name: "ca", Usage: "`FILE` of a CA (PEM) to trust for https besides this machine's, such as that of weir testnet up --tls", EnvVars: cmdline.Env("CA")}
}

// TrustingClient trusts the CAs in a file besides this machine's. It is nil,
// for the default client, if no file is given.
func TrustingClient(file string) (*http.Client, error) {
	if file == "" {
		return nil, nil
	}
	roots, err := certs.RootsWith("--ca", file)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &http.Client{Transport: transport}, nil
}

// tlsAdvice is the advice for an error that https caused.
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
