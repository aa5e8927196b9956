package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"weir/capacity/event"
	"weir/sfu/problem"
	"weir/sfu/proxied"
)

// proxies are the reverse proxies in front of --http whose word on clients is
// taken.
type proxies struct {
	trust proxied.Trust
	head  bool // they begin with a PROXY header
	event func(event.Event)
	log   *slog.Logger
}

// listen wraps l, the listener of --http, for the trusted proxies.
func (p *proxies) listen(l net.Listener) net.Listener {
	return &proxied.Listener{Listener: l, Trust: p.trust, Take: p.head, Bare: checksHealth, Refused: p.refused}
}

// checksHealth reports whether r is only a health check.
func checksHealth(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.URL.Path == "/healthz" || r.URL.Path == "/readyz")
}

// refused reports a connection refused because of its PROXY header, or
// because it lacks one.
func (p *proxies) refused(from netip.AddrPort, why error) *problem.Problem {
	code, text := problem.BadProxyHeader, ""
	switch {
	case errors.Is(why, proxied.ErrNotTaken):
		code, text = problem.UntrustedProxy, "the connection begins with a PROXY header, which this node does not take: it wants --proxy-protocol for that, and the proxy's address in --trusted-proxy"
	case errors.Is(why, proxied.ErrUntrusted):
		code, text = problem.UntrustedProxy, fmt.Sprintf("the connection begins with a PROXY header, and %s is not among the node's --trusted-proxy", from.Addr())
	case errors.Is(why, proxied.ErrNoHeader):
		text = fmt.Sprintf("%s is a trusted proxy, and has to begin with a PROXY header, since the node has --proxy-protocol", from.Addr())
	default:
		text = fmt.Sprintf("the PROXY header of %s cannot be read: want version 1 or 2 of the PROXY protocol, in one piece", from.Addr())
	}
	p.event(event.Event{Kind: event.Refused, Client: from.String(), Reason: string(code), Detail: text})
	return problem.New(code, text)
}

// asClients has h serve requests with the client addresses that the trusted
// proxies give.
func (p *proxies) asClients(h http.Handler) http.Handler {
	if !p.trust.Any() {
		return h
	}
	var once sync.Once
	return p.trust.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := proxied.Of(r); r.Method == http.MethodPost && !c.Proxy.IsValid() && p.trust.Has(c.Addr.Addr()) {
			once.Do(func() {
				p.log.Warn("trusted proxy names no client: all that come through it count as one; have it set X-Forwarded-For", "proxy", c.Addr.Addr())
			})
		}
		h.ServeHTTP(w, r)
	}))
}
