// Package proxied says who a client is, where proxies stand in front of a node:
// its address, and the URL by which it addressed us.
//
// What a proxy tells of a client counts only if the proxy's address is in the
// node's [Trust]. There are two ways to tell: headers of HTTP, which a [Trust]
// reads in Handler, and the PROXY protocol before them, which a [Listener]
// reads. Whoever wants to know who made a request asks [Of], and nobody else.
package proxied

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A Client is who made a request, as far as that is known here.
type Client struct {
	Addr   netip.AddrPort // port 0: not known; the zero one: nothing is known
	Scheme string         // "http" or "https", between the client and the outermost proxy
	Host   string         // host, and port where it is not the scheme's, as the client addressed us
	Proxy  netip.Addr     // that told this; the zero one: the client reached us itself
}

// String is the client's address for people.
func (c Client) String() string {
	switch {
	case !c.Addr.IsValid():
		return ""
	case c.Addr.Port() == 0:
		return c.Addr.Addr().String()
	}
	return c.Addr.String()
}

// Base is the URL of this node, without a path, as the client addressed it.
func (c Client) Base() string { return c.Scheme + "://" + c.Host }

// Group is whom the client counts for where what one client may have is bounded.
func (c Client) Group() netip.Prefix { return GroupOf(c.Addr.Addr()) }

// GroupOf is whom an address counts for: itself, or of IPv6 its /64, whose
// addresses one client has without number. All that are none are one.
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

// Of returns the client of r: as [Trust.Handler] has found out, or else who
// opened the connection.
func Of(r *http.Request) Client {
	if c, ok := r.Context().Value(clientKey{}).(Client); ok {
		return c
	}
	return direct(r)
}

// Request is r as c's.
func (c Client) Request(r *http.Request) *http.Request {
	r = r.WithContext(context.WithValue(r.Context(), clientKey{}, c))
	if c.Addr.IsValid() {
		r.RemoteAddr = c.Addr.String()
	}
	return r
}

// direct is r's client if nobody but the connection tells.
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

// Trust is a set of addresses of proxies that are believed. The zero Trust
// believes nobody.
type Trust struct{ prefixes []netip.Prefix }

// ParseTrust reads networks such as 10.0.0.0/8 and single addresses.
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
			return Trust{}, fmt.Errorf("%q is everybody: whoever comes could say that it is somebody else", s)
		}
		t.prefixes = append(t.prefixes, p)
	}
	return t, nil
}

// Any reports whether anybody is trusted.
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

// Handler has h serve each request as its client's, so that [Of] finds it. The
// request's RemoteAddr is the client's then, with port 0 if that is not known.
//
// Of X-Forwarded-For the rightmost address that is not a trusted proxy's is the
// client: what stands left of it the client may have written itself. Of
// X-Forwarded-Proto and -Host the last value counts, since that is the nearest
// proxy's.
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

// forwardedFor finds the client in the lines of X-Forwarded-For. What is no
// address ends the search: the last that was one is the client.
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

// parseAddr reads an address as proxies write them: with or without a port,
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

// last is the last value of a header that is a list.
func last(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	line := lines[len(lines)-1]
	return strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])
}

// maxHost bounds what is taken for a host, in bytes: a name of DNS, and a port.
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
