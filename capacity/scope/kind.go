package scope

import (
	"net/netip"
)

// A Kind of address, after the special-purpose registries of RFC 6890.
type Kind string

// The kinds. All but Public belong to this machine, to networks around it, or
// to no host.
const (
	Public      Kind = "public"
	Loopback    Kind = "loopback"
	Private     Kind = "private"     // RFC 1918; unique local ones, RFC 4193
	Shared      Kind = "shared"      // behind a provider's NAT, RFC 6598
	LinkLocal   Kind = "link_local"  //
	Metadata    Kind = "metadata"    // cloud metadata services, which hold machines' secrets
	Multicast   Kind = "multicast"   //
	Unspecified Kind = "unspecified" // and the rest of 0.0.0.0/8
	Reserved    Kind = "reserved"    // 240.0.0.0/4, broadcast, and invalid addresses
)

var (
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), // most clouds
		netip.MustParseAddr("169.254.170.2"),   // containers at Amazon
		netip.MustParseAddr("fd00:ec2::254"),   // Amazon
		netip.MustParseAddr("fd20:ce::254"),    // Google
		netip.MustParseAddr("100.100.100.200"), // Alibaba
		netip.MustParseAddr("168.63.129.16"),   // Azure
	}
	shared    = netip.MustParsePrefix("100.64.0.0/10")
	thisNet   = netip.MustParsePrefix("0.0.0.0/8")
	future    = netip.MustParsePrefix("240.0.0.0/4")
	siteOld   = netip.MustParsePrefix("fec0::/10")      // RFC 3879
	nat64     = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	nat64Own  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215, within a site
	sixToFour = netip.MustParsePrefix("2002::/16")      // RFC 3056
	teredo    = netip.MustParsePrefix("2001::/32")      // RFC 4380
	v4compat  = netip.MustParsePrefix("::/96")          // RFC 4291, 2.5.5.1
)

// KindOf is the kind of ip, or of the IPv4 address that it leads to.
func KindOf(ip netip.Addr) Kind {
	ip = ip.WithZone("").Unmap()
	for _, m := range metadata {
		if ip == m {
			return Metadata
		}
	}
	switch {
	case !ip.IsValid():
		return Reserved
	case ip.IsUnspecified(), thisNet.Contains(ip):
		return Unspecified
	case ip.IsLoopback():
		return Loopback
	case ip.IsPrivate(), siteOld.Contains(ip), nat64Own.Contains(ip):
		return Private
	case shared.Contains(ip):
		return Shared
	case ip.IsLinkLocalUnicast():
		return LinkLocal
	case ip.IsMulticast():
		return Multicast
	case future.Contains(ip):
		return Reserved
	}
	if inner, ok := embedded(ip); ok {
		return KindOf(inner)
	}
	return Public
}

// embedded is the IPv4 address to which packets to ip are delivered.
func embedded(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	switch {
	case ip.Is4():
	case nat64.Contains(ip), v4compat.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(ip): // the client's, inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}
