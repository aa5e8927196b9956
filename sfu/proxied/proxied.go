// Package proxied determines the client of a request, with proxies in front of
// a node: its address, and the URL by which it addressed us.
//
// A proxy's statement about a client counts only if the proxy's address is in
// the node's [Trust]. There are two kinds: HTTP headers, which [Trust.Handler]
// reads, and the PROXY protocol before them, which a [Listener] reads. [Of] is
// the only source of a request's client.
package proxied

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A Client is the client of a request, as far as it is known here.
type Client struct {
	Addr   netip.AddrPort // port 0: unknown port; zero: unknown
	Scheme string         // "http" or "https", between the client and the outermost proxy
	Host   string         // host, and port where it is not the scheme's, as the client addressed us
	Proxy  netip.Addr     // the proxy that stated this; zero: the client connected directly
}

// String returns the client's address for people.
func (c Client) String() string {
	switch {
	case !c.Addr.IsValid():
		return ""
	case c.Addr.Port() == 0:
		return c.Addr.Addr().String()
	}
	return c.Addr.String()
}

// Base returns the URL of this node, without a path, as the client addressed
// it.
func (c Client) Base() string { return c.Scheme + "://" + c.Host }

// Group returns the address group that limits per client count, see [GroupOf].
func (c Client) Group() netip.Prefix { return GroupOf(c.Addr.Addr()) }

// GroupOf returns the group by which limits per client count an address: the
// address itself, or the /64 of an IPv6 address, since one client has any
// number of addresses in it. All invalid addresses are one group.
func GroupOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

type clientKey struct{}

// Of returns the client of r, as determined by [Trust.Handler], or else the
// other end of the connection.
func Of(r *http.Request) Client {
	if c, ok := r.Context().Value(clientKey{}).(Client); ok {
		return c
	}
	return direct(r)
}

// Request returns r with c as its client.
func (c Client) Request(r *http.Request) *http.Request {
	r = r.WithContext(context.WithValue(r.Context(), clientKey{}, c))
	if c.Addr.IsValid() {
		r.RemoteAddr = c.Addr.String()
	}
	return r
}

// direct returns r's client by the connection only.
func direct(r *http.Request) Client {
	c := Client{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		c.Scheme = "https"
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Addr = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return c
}

// Trust is a set of addresses of trusted proxies. The zero Trust trusts none.
type Trust struct{ prefixes []netip.Prefix }

// ParseTrust parses networks such as 10.0.0.0/8 and single addresses.
func ParseTrust(list []string) (Trust, error) {
	var t Trust
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return Trust{}, fmt.Errorf("%q is no network such as 10.0.0.0/8, and no address", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return Trust{}, fmt.Errorf("%q: write networks of IPv4 as such", s)
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p != p.Masked() {
			return Trust{}, fmt.Errorf("%q has bits beyond its length: %s is the network", s, p.Masked())
		}
		if p.Bits() == 0 {
			return Trust{}, fmt.Errorf("%q is every address: any client could claim the address of another", s)
		}
		t.prefixes = append(t.prefixes, p)
	}
	return t, nil
}

// Any reports whether the set is not empty.
func (t Trust) Any() bool { return len(t.prefixes) > 0 }

// Has reports whether a proxy at a is trusted.
func (t Trust) Has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range t.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Handler makes h serve each request with its client, so that [Of] finds it.
// The request's RemoteAddr is then the client's, with port 0 if that is
// unknown.
//
// The client is the rightmost address in X-Forwarded-For that is not a trusted
// proxy's: the client may have written those left of it. Of X-Forwarded-Proto
// and -Host the last value counts, since it is the nearest proxy's.
func (t Trust) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(*Conn); ok {
			if p := conn.refuses(r); p != nil {
				w.Header().Set("Connection", "close")
				p.Write(w)
				return
			}
		}
		h.ServeHTTP(w, t.client(r).Request(r))
	})
}

func (t Trust) client(r *http.Request) Client {
	c := direct(r)
	if conn, ok := r.Context().Value(connKey{}).(*Conn); ok {
		if told := conn.told(); told.Addr.IsValid() {
			c.Proxy = told.Proxy
			if told.Scheme != "" {
				c.Scheme = told.Scheme
			}
		}
	}
	if !c.Addr.IsValid() || !t.Has(c.Addr.Addr()) {
		return c
	}
	nearest := c.Addr.Addr()
	if at, ok := t.forwardedFor(r.Header.Values("X-Forwarded-For")); ok {
		c.Addr, c.Proxy = at, nearest
	}
	switch scheme := strings.ToLower(last(r.Header.Values("X-Forwarded-Proto"))); scheme {
	case "http", "https":
		c.Scheme = scheme
	}
	if host := last(r.Header.Values("X-Forwarded-Host")); validHost(host) {
		c.Host = host
	}
	return c
}

// forwardedFor finds the client in the lines of X-Forwarded-For. An invalid
// address ends the search: the last valid one is the client.
func (t Trust) forwardedFor(lines []string) (client netip.AddrPort, ok bool) {
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var word string
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, word = rest[:at], rest[at+1:]
			} else {
				rest, word, more = "", rest, false
			}
			next, valid := parseAddr(word)
			if !valid {
				return client, ok
			}
			client, ok = next, true
			if !t.Has(next.Addr()) {
				return client, true
			}
		}
	}
	return client, ok
}

// parseAddr parses an address as proxies write them: with or without a port,
// IPv6 in brackets or not.
func parseAddr(s string) (netip.AddrPort, bool) {
	s = strings.TrimSpace(s)
	if at, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), !at.Addr().IsUnspecified()
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if s, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.AddrPort{}, false
		}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap().WithZone(""), 0), true
}

// last returns the last value of a header that is a list.
func last(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	line := lines[len(lines)-1]
	return strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])
}

// maxHost bounds a host, in bytes: a DNS name and a port.
const maxHost = 253 + len(":65535")

// validHost reports whether s can stand in a URL as its host and port.
func validHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if _, err := netip.ParseAddrPort("0.0.0.0:" + port); err != nil {
			return false
		}
		host = h
		if strings.Contains(h, ":") {
			_, err := netip.ParseAddr(h)
			return err == nil
		}
	} else if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		_, err := netip.ParseAddr(inner)
		return ok && err == nil
	}
	return host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}
