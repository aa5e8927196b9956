package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	manet "github.com/multiformats/go-multiaddr/net"

	"weir/cmd/weir/cmdline"
)

// secure prepares https on the public port, which is bound: the URL given to
// clients, and the port that redirects to it.
func (n *node) secure(cfg *nodeConfig) (closeAll func() error, err error) {
	c := cfg.tls
	if c == nil {
		return func() error { return nil }, nil
	}
	c.event = n.events.Add
	if cfg.publicURL == "" {
		at := n.public.Addr().(*net.TCPAddr).AddrPort()
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if cfg.publicURL, err = c.clientURL(at); err != nil {
			return nil, cmdline.BadInput(err)
		}
		n.cfg.publicURL = cfg.publicURL
	}
	var opened []func() error
	closeAll = func() (err error) {
		for _, f := range slices.Backward(opened) {
			err = errors.Join(err, f())
		}
		return err
	}
	if cfg.redirect != "" {
		l, err := listenTCP(cfg.log, cfg.redirect, "--http-redirect", true)
		if err != nil {
			return nil, err
		}
		c.redirect = n.behindProxies(l)
		opened = append(opened, c.redirect.Close)
	}
	if c.auto != nil {
		c.auto.open(cfg.dataDir, n.public.Addr(), c.redirect, cfg.log, func(err error) { c.refused(&pairError{pairACME, c.auto.acmeError(err)}) })
		opened = append(opened, c.auto.close)
	}
	return closeAll, nil
}

// serveTLS returns the functions to run for https as long as the process lives.
func (n *node) serveTLS() []func(context.Context) error {
	c := n.cfg.tls
	if c == nil {
		return nil
	}
	work := []func(context.Context) error{func(ctx context.Context) error {
		if c.auto != nil {
			select {
			case <-c.auto.loaded:
			case <-ctx.Done():
				return ctx.Err()
			}
			if c.inForce.Store(c.auto.newest()); c.leaf() == nil {
				n.log.Info("no certificate yet, getting one", "domain", c.auto.domain, "from", c.auto.url)
			}
		}
		if c.leaf() != nil {
			for _, why := range c.advice(n.publicURL()) {
				n.log.Warn("clients may not trust the certificate", "detail", why)
			}
			if who := c.keyAdvice(); who != "" {
				n.log.Warn("private key is open to others", "detail", who)
			}
		}
		return c.run(ctx)
	}}
	if c.auto != nil {
		work = append(work, func(ctx context.Context) error {
			defer c.auto.close()
			return c.auto.run(ctx)
		})
	}
	if c.redirect != nil {
		h := redirection(n.publicURL)
		if c.auto != nil {
			h = c.auto.challenges(h)
		}
		plain := newServer(h, n.log)
		work = append(work, func(ctx context.Context) error { return serve(ctx, plain, c.redirect) })
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
