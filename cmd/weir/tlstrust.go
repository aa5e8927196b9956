package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/sfu/client"
)

// caFlag is the flag --ca of commands that connect to a node's public port.
func caFlag() cli.Flag {
	return &cli.StringFlag{Name: "ca", Usage: "`FILE` of a CA (PEM) to trust for https besides this machine's, such as that of weir testnet up --tls", EnvVars: cmdline.Env("CA")}
}

// trustingClient trusts the CAs in a file besides this machine's. It is nil,
// for the default client, if no file is given.
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
