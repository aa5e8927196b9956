package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	manet "github.com/multiformats/go-multiaddr/net"

	"weir/cmd/weir/bind"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/httpd"
)

// secure prepares https on the public port, which is bound: the URL given to
// clients, and the port that redirects to it.
func (n *node) secure(cfg *nodeConfig) (closeAll func() error, err error) {
	c := cfg.tls
	if c == nil {
		return func() error { return nil }, nil
	}
	if cfg.publicURL == "" {
		at := n.ports.public.Addr().(*net.TCPAddr).AddrPort()
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if cfg.publicURL, err = c.ClientURL(at); err != nil {
			return nil, cmdline.BadInput(err)
		}
		n.cfg.publicURL = cfg.publicURL
	}
	var plain net.Listener
	if cfg.redirect != "" {
		l, err := bind.TCP(cfg.log, cfg.redirect, "--http-redirect", true)
		if err != nil {
			return nil, err
		}
		plain = n.proxies.listen(l)
	}
	c.Open(cfg.dataDir, n.ports.public.Addr(), plain, n.events.Add)
	return c.Close, nil
}

// serveTLS returns the functions to run for https as long as the process lives.
func (n *node) serveTLS() []func(context.Context) error {
	c := n.cfg.tls
	if c == nil {
		return nil
	}
	work := c.Tasks(n.ports.base)
	if c.Redirect != nil {
		plain := httpd.New(c.Plain(n.ports.base), n.log)
		work = append(work, func(ctx context.Context) error { return httpd.Serve(ctx, plain, c.Redirect) })
	}
	return work
}

// onePort returns an error if two of the configured addresses have the same port.
func (c nodeConfig) onePort() error {
	type at struct {
		flag, addr string
		given      bool
	}
	all := []at{{"--http", c.http, c.given.http}, {"--admin", c.admin, c.given.admin}, {"--metrics", c.metrics, true}, {"--http-redirect", c.redirect, true}}
	if c.given.listen {
		for _, a := range c.listen {
			if n, addr, err := manet.DialArgs(a); err == nil && strings.HasPrefix(n, "tcp") {
				all = append(all, at{"--listen", addr, true})
			}
		}
	}
	same := func(a, b string) bool {
		hostA, portA, errA := net.SplitHostPort(a)
		hostB, portB, errB := net.SplitHostPort(b)
		if errA != nil || errB != nil || portA != portB || portA == "0" {
			return false
		}
		ipA, ipB := hostIP(hostA), hostIP(hostB)
		return hostA == hostB || ipA == ipB && ipA.IsValid() || ipA.IsUnspecified() || ipB.IsUnspecified()
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.addr != "" && (a.given || b.given) && same(a.addr, b.addr) {
				return fmt.Errorf("%s %s and %s %s are the same port: give each one of its own", b.flag, b.addr, a.flag, a.addr)
			}
		}
	}
	return nil
}

// hostIP is the address of a host in HOST:PORT, if that is known without a DNS
// lookup.
func hostIP(host string) netip.Addr {
	switch host {
	case "":
		return netip.IPv4Unspecified()
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	ip, _ := netip.ParseAddr(host)
	return ip.Unmap()
}
