package client

import (
	"net/http"
	"net/url"
)

// bearer adds a token to the offers that are posted to the URL our user gave,
// and to no other server: a server that redirects us vouches for us by a
// ticket.
type bearer struct {
	token string
	to    *url.URL
	next  http.RoundTripper
}

// withToken makes c send token to u. An empty token means none.
func withToken(c *http.Client, u *url.URL, token string) *http.Client {
	if token == "" {
		return c
	}
	next := c.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	c.Transport = &bearer{token, u, next}
	return c
}

// RoundTrip implements [http.RoundTripper].
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	same := r.URL.Host == b.to.Host && r.URL.Scheme == b.to.Scheme
	// A port that only redirects its clients to https is the same server.
	secured := b.to.Scheme == "http" && r.URL.Scheme == "https" && r.URL.Hostname() == b.to.Hostname() && r.URL.Query().Get("ticket") == ""
	if r.Method == http.MethodPost && (same || secured) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// CloseIdleConnections is called by [http.Client.CloseIdleConnections].
func (b *bearer) CloseIdleConnections() {
	if c, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
