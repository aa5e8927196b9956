package proxied

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestParseTrust(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8":          "",
		"127.0.0.1":           "",
		"2001:db8::/32":       "",
		"::ffff:10.0.0.0/104": "",
		"":                    "no network",
		"10.0.0.0/33":         "no network",
		"proxy.example":       "no network",
		"fe80::1%eth0":        "no network",
		"10.0.0.1/8":          "10.0.0.0/8 is the network",
		"0.0.0.0/0":           "every address",
		"::/0":                "every address",
		"::ffff:0.0.0.0/90":   "IPv4",
	} {
		trust, err := ParseTrust([]string{in})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
		if trust.Any() != (err == nil) {
			t.Errorf("%q: trusts somebody: %v", in, trust.Any())
		}
	}
	trust, err := ParseTrust([]string{"::ffff:10.0.0.0/104"})
	if err != nil || !trust.Has(netip.MustParseAddr("10.1.2.3")) || !trust.Has(netip.MustParseAddr("::ffff:10.1.2.3")) || trust.Has(netip.MustParseAddr("11.1.2.3")) {
		t.Errorf("%+v, %v", trust, err)
	}
}

func TestClientBehindProxies(t *testing.T) {
	trust, err := ParseTrust([]string{"10.0.0.0/8", "2001:db8:1::/48"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		from   string
		header []string // alternating names and values
		want   string   // of String
		base   string
		proxy  string
	}{
		{name: "nobody stands between", from: "203.0.113.5:9", want: "203.0.113.5:9"},
		{name: "a stranger's word counts for nothing", from: "203.0.113.5:9", header: []string{"X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example"}, want: "203.0.113.5:9"},
		{name: "a trusted proxy is believed", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "live.example"}, want: "198.51.100.7", base: "https://live.example", proxy: "10.0.0.1"},
		{name: "what a client wrote itself stands left", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "127.0.0.1, 198.51.100.7"}, want: "198.51.100.7", proxy: "10.0.0.1"},
		{name: "two proxies in a row", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "1.1.1.1,198.51.100.7 , 10.0.0.2"}, want: "198.51.100.7", proxy: "10.0.0.1"},
		{name: "on several lines", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "1.1.1.1, 198.51.100.7", "X-Forwarded-For", "10.0.0.2"}, want: "198.51.100.7", proxy: "10.0.0.1"},
		{name: "all of them are trusted: the leftmost", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "10.0.0.3, 10.0.0.2"}, want: "10.0.0.3", proxy: "10.0.0.1"},
		{name: "with a port", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "198.51.100.7:4711"}, want: "198.51.100.7:4711", proxy: "10.0.0.1"},
		{name: "IPv6 in brackets, with a port", from: "[2001:db8:1::1]:9", header: []string{"X-Forwarded-For", "[2001:db8:2::7]:4711"}, want: "[2001:db8:2::7]:4711", proxy: "2001:db8:1::1"},
		{name: "IPv6 in brackets", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "[2001:db8:2::7]"}, want: "2001:db8:2::7", proxy: "10.0.0.1"},
		{name: "IPv4 as IPv6", from: "[::ffff:10.0.0.1]:9", header: []string{"X-Forwarded-For", "::ffff:198.51.100.7"}, want: "198.51.100.7", proxy: "10.0.0.1"},
		{name: "what is no address ends the search", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "198.51.100.7, unknown, 10.0.0.2"}, want: "10.0.0.2", proxy: "10.0.0.1"},
		{name: "nothing but garbage", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "_hidden"}, want: "10.0.0.1:9"},
		{name: "an empty one", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", ""}, want: "10.0.0.1:9"},
		{name: "an unspecified one", from: "10.0.0.1:9", header: []string{"X-Forwarded-For", "0.0.0.0"}, want: "10.0.0.1:9"},
		{name: "a proxy that names no client", from: "10.0.0.1:9", header: []string{"X-Forwarded-Proto", "HTTPS"}, want: "10.0.0.1:9", base: "https://node.example:8080"},
		{name: "a scheme that is none", from: "10.0.0.1:9", header: []string{"X-Forwarded-Proto", "javascript"}, want: "10.0.0.1:9"},
		{name: "the nearest proxy's scheme and host", from: "10.0.0.1:9", header: []string{"X-Forwarded-Proto", "http, https", "X-Forwarded-Host", "evil.example, live.example:8443"}, want: "10.0.0.1:9", base: "https://live.example:8443"},
		{name: "a host that is none", from: "10.0.0.1:9", header: []string{"X-Forwarded-Host", "live.example/../x"}, want: "10.0.0.1:9"},
		{name: "a host with a user", from: "10.0.0.1:9", header: []string{"X-Forwarded-Host", "a@live.example"}, want: "10.0.0.1:9"},
		{name: "a host of IPv6", from: "10.0.0.1:9", header: []string{"X-Forwarded-Host", "[2001:db8::1]:8080"}, want: "10.0.0.1:9", base: "http://[2001:db8::1]:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/whep/demo", nil)
			r.RemoteAddr, r.Host = c.from, "node.example:8080"
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Add(c.header[i], c.header[i+1])
			}
			if c.base == "" {
				c.base = "http://node.example:8080"
			}
			trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got := Of(r)
				if got.String() != c.want || got.Base() != c.base {
					t.Errorf("client %s at %s, want %s at %s", got, got.Base(), c.want, c.base)
				}
				if r.RemoteAddr != got.Addr.String() {
					t.Errorf("RemoteAddr is %s, want %s", r.RemoteAddr, got.Addr)
				}
				if proxy := got.Proxy; proxy.IsValid() != (c.proxy != "") || c.proxy != "" && proxy.String() != c.proxy {
					t.Errorf("the proxy is %s, want %q", proxy, c.proxy)
				}
			})).ServeHTTP(nil, r)
		})
	}
}

// Without a handler, the client is the other end of the connection, if that is
// known.
func TestClientWithoutProxies(t *testing.T) {
	r := httptest.NewRequest("GET", "https://node.example/", nil)
	r.RemoteAddr = "@"
	if c := Of(r); c.String() != "" || c.Base() != "https://node.example" || c.Group().IsValid() {
		t.Errorf("%+v", c)
	}
	r.RemoteAddr = "[::ffff:192.0.2.1]:7"
	if c := Of(r); c.String() != "192.0.2.1:7" || c.Group().String() != "192.0.2.1/32" {
		t.Errorf("%+v", c)
	}
}

func TestGroupOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1:2:3:4": "2001:db8::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := GroupOf(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s counts for %s, want %s", in, got, want)
		}
	}
}

// For any headers of a trusted proxy, the client is an address in them or the
// proxy's, and the host of a URL is valid.
func FuzzForwarded(f *testing.F) {
	f.Add("198.51.100.7, 10.0.0.2", "https", "live.example:8443")
	f.Add("[2001:db8::7]:1,unknown", "http, https", "[::1]:80")
	f.Add(",,,", "", "a\r\nSet-Cookie: b")
	f.Add("10.0.0.1", "HTTPS", "a:b:c")
	trust, err := ParseTrust([]string{"10.0.0.0/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, forwarded, scheme, host string) {
		r := &http.Request{RemoteAddr: "10.0.0.1:9", Host: "node.example", Header: http.Header{
			"X-Forwarded-For": {forwarded}, "X-Forwarded-Proto": {scheme}, "X-Forwarded-Host": {host},
		}}
		c := trust.client(r)
		if !c.Addr.IsValid() || c.Addr.Addr().Is4In6() || c.Addr.Addr().Zone() != "" || c.Addr.Addr().IsUnspecified() {
			t.Errorf("client %s", c.Addr)
		}
		if c.Scheme != "http" && c.Scheme != "https" {
			t.Errorf("scheme %q", c.Scheme)
		}
		if strings.ContainsAny(c.Host, "/@?#\\ \r\n\t\"'<>") || c.Host == "" {
			t.Errorf("host %q", c.Host)
		}
	})
}
