package main

import (
	"fmt"
	"net"
	"net/netip"

	"weir/cmd/weir/bind"
	"weir/cmd/weir/cmdline"
	"weir/sfu/udp"
)

// given says which addresses were set explicitly. An address that was not may
// get another port if its own is taken.
type given struct{ listen, http, admin, media bool }

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
