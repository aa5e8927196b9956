package daemon

import (
	"fmt"
	"net"
	"net/netip"

	"weir/cmd/weir/bind"
	"weir/cmd/weir/certs"
	"weir/cmd/weir/cmdline"
	"weir/sfu/udp"

	manet "github.com/multiformats/go-multiaddr/net"
)

// given says which addresses were set explicitly. An address that was not may
// get another port if its own is taken.
type given struct{ listen, http, admin, media bool }

// ports are the addresses that a node has bound, and what others are told of
// them.
type ports struct {
	public, admin net.Listener
	scrapes       net.Listener // nil without --metrics
	media         *udp.Socket
	publicURL     string     // "": that of public
	publicIP      netip.Addr // zero: that of media
	// host is the address given to clients where --http or --media-port binds
	// all addresses.
	host netip.Addr
	tls  *certs.Certificates // nil: public speaks http
}

// base is the URL that clients are given.
func (p *ports) base() string {
	if p.publicURL != "" {
		return p.publicURL
	}
	return p.localURL()
}

// adminAddr is the admin API's address from this machine.
func (p *ports) adminAddr() string {
	at := p.admin.Addr().(*net.TCPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at.String()
}

// localURL is the URL of --http from this machine; it does not depend on
// --public-url.
func (p *ports) localURL() string {
	at := p.public.Addr().(*net.TCPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		host := p.host
		if !host.IsValid() {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		at = netip.AddrPortFrom(host, at.Port())
	}
	return p.tls.URL(at, p.publicURL)
}

// mediaAddr is the public address of the port of all media.
func (p *ports) mediaAddr() string {
	at := p.media.LocalAddr().(*net.UDPAddr).AddrPort()
	if p.publicIP.IsValid() {
		at = netip.AddrPortFrom(p.publicIP, at.Port())
	} else if at.Addr().IsUnspecified() && p.host.IsValid() {
		at = netip.AddrPortFrom(p.host, at.Port())
	}
	return at.String()
}

// clientHost is the address to give to clients if --http or --media-port binds
// all addresses of this machine, and zero if neither does. Without such an
// address, the error says which flag to give.
func (c nodeConfig) clientHost(public net.Listener, media *udp.Socket) (netip.Addr, error) {
	http := public.Addr().(*net.TCPAddr)
	anyHTTP := http.IP.IsUnspecified() && c.publicURL == ""
	anyMedia := media.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	if c.publicIP.IsValid() || !anyHTTP && !anyMedia {
		return c.publicIP, nil
	}
	addrs, err := bind.MachineAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this machine: %w", err)
	}
	host, err := bind.OnlyAddr(addrs)
	switch {
	case err == nil:
		c.log.Info("clients are told the only address of this machine", "address", host)
	case anyHTTP:
		return host, cmdline.BadInput(fmt.Errorf("--http %s: clients cannot be told a wildcard, and %w: give --public-url http://HOST:%d with the one that they reach", c.http, err, http.Port))
	case len(addrs) > 0: // ICE offers them all; the record has room for one
		host = addrs[0]
	}
	return host, nil
}

// guarded refuses addresses that other machines can reach and that would admit
// all of them: until networks have members, other nodes can publish records,
// reserve and pull; and without rights clients can publish and view.
func (c nodeConfig) guarded() error {
	const (
		nodes = "%s %s can be reached from other machines, and this network is open to all of them. " +
			"Use a loopback address, or give --insecure-open if the network around it is closed by other means"
		clients = "%s %s can be reached from other machines, and all their clients may publish and view. Restrict them by --auth-keys (weir token key makes a key), " +
			"--auth-jwks or --auth-hook, use a loopback address, or give --insecure-open if the network around it is closed by other means"
	)
	for _, a := range c.listen {
		if ip, err := manet.ToIP(a); err != nil || !ip.IsLoopback() {
			return fmt.Errorf(nodes, "--listen", a)
		}
	}
	for _, f := range []struct {
		flag, addr, why string
		open            bool
	}{{"--http", c.http, clients, c.rights != nil}, {"--media-port", c.media, clients, c.rights != nil}, {"--http-redirect", c.redirect, clients, c.rights != nil}, {"--admin", c.admin, nodes, false}} {
		if f.addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(f.addr)
		if err != nil {
			return fmt.Errorf("%s %s: %w; want HOST:PORT", f.flag, f.addr, err)
		}
		if ip, err := netip.ParseAddr(host); !f.open && host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return fmt.Errorf(f.why, f.flag, f.addr)
		}
	}
	return nil
}
