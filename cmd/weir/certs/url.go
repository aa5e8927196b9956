package certs

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"weir/sfu/problem"
)

// Listener wraps l in TLS, or returns l if there are no certificates.
func (c *Certificates) Listener(l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	return tls.NewListener(l, c.config())
}

// Handler adds HSTS (RFC 6797) to the answers of h. Browsers apply it to all
// ports of a name, so local names of this machine, which developers share
// between programs, are left out; for addresses browsers ignore it.
func (c *Certificates) Handler(h http.Handler) http.Handler {
	if c == nil {
		return h
	}
	always := fmt.Sprintf("max-age=%d", hstsAge)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := HostOf("//" + r.Host)
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
			w.Header().Set("Strict-Transport-Security", always)
		}
		h.ServeHTTP(w, r)
	})
}

// redirection redirects clients of the plain port to the same path of base().
// The request's Host header is not used: any name may lead to this port. A
// request with a token is refused instead, so that its sender notices that it
// goes over the network in clear.
func redirection(base func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := base()
		if r.Header.Get("Authorization") != "" || r.URL.Query().Has("token") || r.URL.Query().Has("ticket") {
			problem.New(problem.HTTPSRequired, "this port is not encrypted, and a token was sent to it, which others may have read: revoke it, and use "+to+" from now on").Write(w)
			return
		}
		if path := r.URL.EscapedPath(); strings.HasPrefix(path, "/") {
			to += path
		}
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusPermanentRedirect) // keeps the method, as POSTs need
	})
}

// PublicURLOf completes --public-url: without a scheme it is https if this node
// serves that. The error says what to give.
func PublicURLOf(given string, secure bool) (string, error) {
	if given == "" {
		return "", nil
	}
	base := given
	if !strings.Contains(base, "://") {
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		base = scheme + base
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("--public-url %s: want for example https://weir.example.org", given)
	case secure && u.Scheme == "http":
		return "", fmt.Errorf("--public-url %s: this node speaks https: give https://%s, or leave the scheme out", given, u.Host)
	}
	return strings.TrimSuffix(base, "/"), nil
}

// ClientURL is the URL given to clients without --public-url, if the
// certificate is not for the address that --http is bound to; "" if it is. The
// error says which flag to give if the certificate has several names.
func (c *Certificates) ClientURL(at netip.AddrPort) (string, error) {
	if c.Auto != nil {
		return httpsURL(c.Auto.Domain, at.Port()), nil
	}
	leaf := c.Leaf()
	if leaf == nil || !at.Addr().IsUnspecified() && leaf.VerifyHostname(at.Addr().String()) == nil {
		return "", nil
	}
	names := slices.DeleteFunc(slices.Clone(leaf.DNSNames), func(name string) bool { return strings.Contains(name, "*") })
	switch {
	case len(names) == 1 && len(leaf.DNSNames) == 1:
		return httpsURL(names[0], at.Port()), nil
	case len(leaf.DNSNames) == 0:
		return "", nil // clients will reject it, which is reported elsewhere
	}
	return "", fmt.Errorf("--tls-cert: the certificate is of %s: give --public-url with the name of them by which clients reach this node, such as %s",
		strings.Join(leaf.DNSNames, ", "), httpsURL(strings.Replace(leaf.DNSNames[0], "*", "weir", 1), at.Port()))
}

// URL is the URL of the public port, bound to at, from this machine: with the
// name given to clients, if the certificate is not for the address.
func (c *Certificates) URL(at netip.AddrPort, public string) string {
	if c == nil {
		return "http://" + at.String()
	}
	if c.Auto != nil && public != "" {
		return public
	}
	if leaf := c.Leaf(); public != "" && leaf != nil && leaf.VerifyHostname(at.Addr().String()) != nil && leaf.VerifyHostname(HostOf(public)) == nil {
		return public
	}
	return "https://" + at.String()
}

func httpsURL(host string, port uint16) string {
	if port == 443 {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func HostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
