package bind

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// MachineAddrs are the addresses of this machine that others may reach, IPv4
// before IPv6. Loopback and link-local addresses are left out.
func MachineAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		prefix, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(prefix.IP)
		if ip = ip.Unmap(); !ok || !ip.IsGlobalUnicast() {
			continue
		}
		if ip.Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	return append(v4, v6...), nil
}

// OnlyAddr returns the address to give to clients when a wildcard binds all of
// addrs. Several IPv4 addresses are ambiguous: the error names them. IPv6
// addresses count only if there is no IPv4 one.
func OnlyAddr(addrs []netip.Addr) (netip.Addr, error) {
	if len(addrs) == 0 {
		return netip.Addr{}, errors.New("this machine has no address that others can reach")
	}
	same := []string{addrs[0].String()}
	for _, a := range addrs[1:] {
		if a.Is4() == addrs[0].Is4() {
			same = append(same, a.String())
		}
	}
	if len(same) > 1 {
		return netip.Addr{}, fmt.Errorf("this machine has several addresses (%s)", strings.Join(same, ", "))
	}
	return addrs[0], nil
}
