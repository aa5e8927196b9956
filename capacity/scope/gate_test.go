package scope

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

func TestKindOf(t *testing.T) {
	for text, want := range map[string]Kind{
		"203.0.113.7":              Public,
		"2001:db8::1":              Public,
		"172.32.0.1":               Public,
		"100.128.0.1":              Public,
		"127.0.0.1":                Loopback,
		"127.255.0.9":              Loopback,
		"::1":                      Loopback,
		"::ffff:127.0.0.1":         Loopback,
		"::127.0.0.1":              Loopback,
		"64:ff9b::7f00:1":          Loopback,
		"2002:7f00:1::1":           Loopback,
		"2001:0:1:2:3:4:80ff:fffe": Loopback, // Teredo, inverted
		"10.1.2.3":                 Private,
		"172.16.0.1":               Private,
		"192.168.1.1":              Private,
		"fd12::1":                  Private,
		"fec0::1":                  Private,
		"64:ff9b::a00:1":           Private,
		"64:ff9b:1::1":             Private,
		"::ffff:10.0.0.1":          Private,
		"100.64.0.1":               Shared,
		"100.127.255.255":          Shared,
		"169.254.1.1":              LinkLocal,
		"fe80::1%eth0":             LinkLocal,
		"169.254.169.254":          Metadata,
		"::ffff:169.254.169.254":   Metadata,
		"64:ff9b::a9fe:a9fe":       Metadata,
		"fd00:ec2::254":            Metadata,
		"100.100.100.200":          Metadata,
		"224.0.0.251":              Multicast,
		"ff02::fb":                 Multicast,
		"0.0.0.0":                  Unspecified,
		"0.1.2.3":                  Unspecified,
		"::":                       Unspecified,
		"255.255.255.255":          Reserved,
		"240.0.0.1":                Reserved,
	} {
		if got := KindOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if got := KindOf(netip.Addr{}); got != Reserved {
		t.Errorf("no address is %s", got)
	}
}

func TestGate(t *testing.T) {
	never := []string{"169.254.169.254", "fd00:ec2::254", "169.254.7.7", "fe80::1", "224.0.0.1", "0.0.0.0", "::", "255.255.255.255", "64:ff9b::a9fe:a9fe"}
	const public, loopback, private, shared = "203.0.113.9", "127.0.0.1", "192.168.1.9", "100.64.3.3"
	for _, tt := range []struct {
		name         string
		own          []Kind
		named        []string
		allowPrivate bool
		allowed      []string
	}{
		{"a node on a server", []Kind{Public}, nil, false, []string{public}},
		{"on loopback, as a network on one machine", []Kind{Loopback, Loopback}, nil, false, []string{public, loopback}},
		{"within a site", []Kind{Private}, nil, false, []string{public, private, shared}},
		{"within a site, bound everywhere", []Kind{Loopback, Private}, nil, false, []string{public, private, shared}},
		{"behind a provider's NAT", []Kind{Shared}, nil, false, []string{public, private, shared}},
		{"with a public address beside a private one", []Kind{Public, Private, Loopback}, nil, false, []string{public}},
		{"where its operator allows private ones", []Kind{Public, Private}, nil, true, []string{public, private, shared}},
		{"whose operator names a private peer", []Kind{Public}, []string{"/ip4/192.168.1.9/tcp/1"}, false, []string{public, private}},
		{"which joins a site from loopback", []Kind{Loopback}, []string{"/ip4/10.0.0.1/tcp/1"}, false, []string{public, loopback, private, shared}},
		{"a client of a network on this machine", nil, []string{"/ip4/127.0.0.1/tcp/1"}, false, []string{public, loopback}},
		{"a client of a network within a site", nil, []string{"/ip4/10.0.0.1/udp/1/quic-v1"}, false, []string{public, private, shared}},
		{"a client of a public network", nil, []string{"/ip4/203.0.113.1/tcp/1"}, false, []string{public}},
		{"of which nothing is known", nil, nil, false, []string{public}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewGate(nil, tt.allowPrivate)
			g.Own(Dial, func() []Kind { return tt.own })
			for _, s := range tt.named {
				g.Name(multiaddr.StringCast(s))
			}
			allowed := map[string]bool{}
			for _, ip := range tt.allowed {
				allowed[ip] = true
			}
			for _, ip := range append(never, public, loopback, private, shared) {
				err := g.Check(Dial, netip.MustParseAddr(ip))
				if (err == nil) != allowed[ip] || err != nil && !errors.Is(err, ErrRefused) {
					t.Errorf("%s: %v, want it allowed: %v", ip, err, allowed[ip])
				}
			}
		})
	}
}

// URLs are checked by the host that a browser would connect to.
func TestCheckURL(t *testing.T) {
	g := NewGate(nil, false)
	g.Own(Redirect, func() []Kind { return []Kind{Public} })
	for url, want := range map[string]Kind{
		"https://sfu.example.net/":      "",
		"http://203.0.113.7:8080":       "",
		"http://[2001:db8::7]:8080":     "",
		"http://127.0.0.1:8080":         Loopback,
		"http://127.1:8080":             Loopback,
		"http://2130706433/":            Loopback,
		"http://0x7f.0.0.1/":            Loopback,
		"http://017700000001/":          Loopback,
		"http://localhost:6379":         Loopback,
		"http://a.localhost.":           Loopback,
		"http://[::ffff:127.0.0.1]":     Loopback,
		"http://10.0.0.7/admin":         Private,
		"http://[fd12::1]/":             Private,
		"http://intranet/":              Private,
		"http://db.internal:5432":       Private,
		"http://printer.local":          Private,
		"http://169.254.169.254/latest": Metadata,
		"http://0xa9fea9fe/":            Metadata,
		"http://0/":                     Unspecified,
		"http://[::]:80/":               Unspecified,
		"http://[fe80::1%25eth0]/":      LinkLocal,
	} {
		err := g.CheckURL(Redirect, url)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), "is "+string(want))) {
			t.Errorf("%s: %v, want a refusal of %q", url, err, want)
		}
	}
	for _, url := range []string{"javascript:alert(1)", "file:///etc/passwd", "//host", "http://", "ftp://203.0.113.7", "http://%zz"} {
		if err := g.CheckURL(Redirect, url); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want a refusal", url, err)
		}
	}
}

// A refusal is counted each time, and logged once per kind and use.
func TestRefusalsAreCounted(t *testing.T) {
	var log strings.Builder
	g := NewGate(slog.New(slog.NewTextHandler(&log, nil)), false)
	for range 3 {
		_ = g.CheckMultiaddr(Dial, multiaddr.StringCast("/ip4/10.0.0.1/tcp/1"))
		_ = g.CheckMultiaddr(Dial, multiaddr.StringCast("/dns4/example.net/tcp/1"))
		_ = g.Check(Candidate, netip.MustParseAddr("10.0.0.1"))
	}
	got := g.Refused()
	if len(got) != 2 || got[Refusal{Dial, Private}] != 3 || got[Refusal{Candidate, Private}] != 3 {
		t.Errorf("counted %v", got)
	}
	if n := strings.Count(log.String(), "address not used"); n != 2 || !strings.Contains(log.String(), "--allow-private") {
		t.Errorf("logged %d times: %s", n, log.String())
	}
}

func FuzzCheckURL(f *testing.F) {
	f.Add("http://0x7f.1/")
	f.Add("http://[::ffff:10.0.0.1%25a]:1/")
	g := NewGate(nil, false)
	f.Fuzz(func(t *testing.T, raw string) {
		if g.CheckURL(Redirect, raw) == nil && KindOfURL(raw) != Public {
			t.Errorf("%q passes as %s", raw, KindOfURL(raw))
		}
	})
}
