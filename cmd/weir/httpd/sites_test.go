package httpd

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"weir/sfu/proxied"
)

func TestOnlyThisMachineSeesTheNetwork(t *testing.T) {
	for _, c := range []struct {
		name   string
		remote string
		local  string // of the connection; "" if unknown
		host   string
		header map[string]string
		proxy  string // that gave the client's address
		want   bool
	}{
		{name: "by loopback", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", want: true},
		{name: "by IPv6 loopback", remote: "[::1]:5000", host: "[::1]:8080", want: true},
		{name: "as localhost", remote: "127.0.0.1:5000", host: "localhost:8080", want: true},
		{name: "by an own address of this machine", remote: "192.0.2.7:5000", local: "192.0.2.7:8080", host: "192.0.2.7:8080", want: true},
		{name: "from another machine", remote: "192.0.2.9:5000", local: "192.0.2.7:8080", host: "192.0.2.7:8080"},
		{name: "a name bound to loopback by another site", remote: "127.0.0.1:5000", host: "evil.example:8080"},
		{name: "through a proxy that says so", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", header: map[string]string{"X-Forwarded-For": "192.0.2.9"}},
		{name: "through a proxy of the standard", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", header: map[string]string{"Forwarded": "for=192.0.2.9"}},
		{name: "from another machine's loopback, by a PROXY header", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", proxy: "192.0.2.7"},
		{name: "an address that is none", remote: "@", host: "127.0.0.1:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/console/state", nil)
			r.RemoteAddr, r.Host = c.remote, c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if c.local != "" {
				addr, err := net.ResolveTCPAddr("tcp", c.local)
				if err != nil {
					t.Fatal(err)
				}
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
			}
			if c.proxy != "" {
				client := proxied.Of(r)
				client.Proxy = netip.MustParseAddr(c.proxy)
				r = client.Request(r)
			}
			if got := FromThisMachine(r); got != c.want {
				t.Errorf("fromThisMachine = %v, want %v", got, c.want)
			}
		})
	}
}
