package httpd

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"weir/sfu/proxied"
)

// FromThisMachine reports whether r was made on this machine, and not passed
// on by a proxy, nor by a page whose name was bound to our address.
func FromThisMachine(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	client := proxied.Of(r)
	if !AddressedByIP(r) || client.Proxy.IsValid() || !client.Addr.IsValid() {
		return false
	}
	from := client.Addr.Addr().WithZone("")
	if from.IsLoopback() {
		return true
	}
	// This machine's other addresses: both ends of the connection have the same
	// one.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap().WithZone("") == from
}

// AddressedByIP reports whether a client named us by address or as localhost. A
// page of another site that binds its own name to our address (DNS rebinding)
// cannot.
func AddressedByIP(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}
