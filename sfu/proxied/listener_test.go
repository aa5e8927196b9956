package proxied

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"weir/sfu/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A station is a server behind a Listener that answers with its client's
// address.
type station struct {
	*httptest.Server
	mu      sync.Mutex
	refused []error
}

func newStation(t *testing.T, take bool, trusted ...string) *station {
	t.Helper()
	trust, err := ParseTrust(trusted)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{}
	s.Server = httptest.NewUnstartedServer(trust.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := Of(r)
		fmt.Fprintf(w, "%s at %s by %s", c, c.Scheme, c.Proxy)
	})))
	s.Config.ConnContext = ConnContext
	s.Listener = &Listener{Listener: s.Listener, Trust: trust, Take: take, Bare: func(r *http.Request) bool { return r.URL.Path == "/healthz" }, Refused: func(_ netip.AddrPort, why error) *problem.Problem {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = append(s.refused, why)
		return problem.New(problem.UntrustedProxy, "refused: "+why.Error())
	}}
	t.Cleanup(s.Close)
	return s
}

// send opens a connection, writes first and reads the answer.
func (s *station) send(t *testing.T, first string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, first+"GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the answer did not come whole: %v", err)
	}
	return string(answer)
}

// header2 is a PROXY header of version 2.
func header2(command byte, family byte, body []byte) string {
	b := append(slices.Clone(v2), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(append(b, body...))
}

var (
	from4 = []byte{203, 0, 113, 5, 192, 0, 2, 1, 0x12, 0x67, 0, 80}              // 203.0.113.5:4711 to 192.0.2.1:80
	ssl   = append([]byte{0x20, 0, 15, 1, 0, 0, 0, 0, 0x21, 0, 7}, "TLSv1.3"...) // PP2_TYPE_SSL: the client used TLS
)

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name  string
		first string
		says  string
		why   error // reason for connections of trusted proxies
	}{
		{name: "version 1", first: "PROXY TCP4 203.0.113.5 192.0.2.1 4711 80\r\n", says: "203.0.113.5:4711 at http by 127.0.0.1"},
		{name: "version 1, IPv6", first: "PROXY TCP6 2001:db8::5 2001:db8::1 4711 80\r\n", says: "[2001:db8::5]:4711 at http by 127.0.0.1"},
		{name: "version 1, IPv4 in a line of IPv6, as nginx writes", first: "PROXY TCP6 203.0.113.5 2001:db8::1 4711 80\r\n", says: "203.0.113.5:4711 at http"},
		{name: "version 1, unknown", first: "PROXY UNKNOWN\r\n", says: "127.0.0.1:"},
		{name: "version 2", first: header2(0x21, 0x11, from4), says: "203.0.113.5:4711 at http by 127.0.0.1"},
		{name: "version 2, the client used TLS", first: header2(0x21, 0x11, append(slices.Clone(from4), ssl...)), says: "203.0.113.5:4711 at https by 127.0.0.1"},
		{name: "version 2, a check of the proxy's own", first: header2(0x20, 0, nil), says: "127.0.0.1:"},
		{name: "none", why: ErrNoHeader},
		{name: "a line that is none", first: "PROXY TCP4 203.0.113.5\r\n", why: ErrBadHeader},
		{name: "an address that is none", first: "PROXY TCP4 proxy.example 192.0.2.1 4711 80\r\n", why: ErrBadHeader},
		{name: "an unspecified address", first: "PROXY TCP4 0.0.0.0 192.0.2.1 4711 80\r\n", why: ErrBadHeader},
		{name: "a line without end", first: "PROXY TCP4 " + strings.Repeat("1", 200), why: ErrBadHeader},
		{name: "version 2, too short", first: header2(0x21, 0x11, from4[:4]), why: ErrBadHeader},
		{name: "version 2, of another version", first: header2(0x31, 0x11, from4), why: ErrBadHeader},
		{name: "version 2, too long", first: header2(0x21, 0x11, make([]byte, 60_000)), why: ErrBadHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, station := range []*station{newStation(t, true, "127.0.0.1"), newStation(t, true, "10.0.0.0/8"), newStation(t, false)} {
				station.Start()
				trusted := station.Listener.(*Listener).Trust.Has(netip.MustParseAddr("127.0.0.1"))
				why, says := c.why, c.says
				switch {
				case trusted:
				case c.first == "":
					why, says = nil, "127.0.0.1:"
				case station.Listener.(*Listener).Take:
					why = ErrUntrusted
				default:
					why = ErrNotTaken
				}
				got := station.send(t, c.first)
				if why == nil && (!strings.HasPrefix(got, "HTTP/1.0 200") || !strings.Contains(got, says) || len(station.refused) > 0) {
					t.Errorf("got %q, want %q", got, says)
				}
				if why != nil && (!strings.HasPrefix(got, "HTTP/1.1 403") && !strings.HasPrefix(got, "HTTP/1.0 403") || !strings.Contains(got, why.Error()) || len(station.refused) != 1 || !errors.Is(station.refused[0], why)) {
					t.Errorf("got %q, %v, want %v", got, station.refused, why)
				}
			}
		})
	}
}

// Below TLS the header comes first, and its client is known all the same.
func TestHeaderBelowTLS(t *testing.T) {
	s := newStation(t, true, "127.0.0.0/8")
	s.StartTLS()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\n"); err != nil {
		t.Fatal(err)
	}
	secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(secure, "GET / HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(secure)
	if want := "203.0.113.5:4711 at https by 127.0.0.1"; !strings.Contains(string(answer), want) {
		t.Errorf("got %q, want %q", answer, want)
	}
}

// The health check of a proxy sends no header, and the connection allows no
// other request.
func TestHealthWithoutHeader(t *testing.T) {
	s := newStation(t, true, "127.0.0.1")
	s.Start()
	client := s.Client()
	for _, c := range []struct {
		path   string
		status int
	}{{"/healthz", 200}, {"/", 403}, {"/healthz", 200}} {
		resp, err := client.Get(s.URL + c.path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", c.path, resp.Status, c.status)
		}
	}
	if len(s.refused) != 1 || !errors.Is(s.refused[0], ErrNoHeader) {
		t.Errorf("refused: %v", s.refused)
	}
}

// An HTTP proxy may stand before a TCP proxy, if both are trusted.
func TestHeaderAndForwarded(t *testing.T) {
	s := newStation(t, true, "127.0.0.1", "10.0.0.0/8")
	s.Start()
	got := s.send(t, "PROXY TCP4 10.0.0.7 192.0.2.1 4711 80\r\nGET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n")
	if want := "203.0.113.5 at http by 10.0.0.7"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A connection with no data, or half a header, is closed after a while, and
// delays no other.
func TestSilentConnections(t *testing.T) {
	for _, first := range []string{"", "PROXY ", string(v2)} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			trust, err := ParseTrust([]string{"10.0.0.0/8"})
			if err != nil {
				t.Fatal(err)
			}
			c := &Conn{Conn: addressed{ours, "10.0.0.1:9"}, listener: &Listener{Trust: trust, Take: true, Refused: func(netip.AddrPort, error) *problem.Problem {
				return problem.New(problem.BadProxyHeader, "")
			}}}
			defer c.Close()
			go func() {
				_, _ = io.WriteString(theirs, first)
				_, _ = io.Copy(io.Discard, theirs)
			}()
			began := time.Now()
			if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("after %q: read %d, %v", first, n, err)
			}
			if took := time.Since(began); took < refusedLinger || took > headerPatience+refusedLinger {
				t.Errorf("after %q: it took %v", first, took)
			}
			if got := c.RemoteAddr().String(); got != "10.0.0.1:9" {
				t.Errorf("it is from %s", got)
			}
			_ = c.Close()
			_ = theirs.Close()
			synctest.Wait()
		})
	}
}

// addressed is a connection from a TCP address.
type addressed struct {
	net.Conn
	from string
}

func (a addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.from))
}

// script is a connection with fixed input.
type script struct {
	addressed
	in io.Reader
}

func (s script) Read(b []byte) (int, error)      { return s.in.Read(b) }
func (s script) Write(b []byte) (int, error)     { return len(b), nil }
func (s script) SetDeadline(time.Time) error     { return nil }
func (s script) SetReadDeadline(time.Time) error { return nil }
func (s script) Close() error                    { return nil }

// Any connection is either served from the first byte after the header, or
// refused; and only a trusted proxy can set another address.
func FuzzHeader(f *testing.F) {
	for _, trusted := range []bool{true, false} {
		f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), trusted)
		f.Add([]byte("PROXY TCP4 203.0.113.5 192.0.2.1 4711 80\r\nGET /"), trusted)
		f.Add([]byte(header2(0x21, 0x11, append(slices.Clone(from4), ssl...))+"GET /"), trusted)
		f.Add([]byte(header2(0x20, 0, nil)), trusted)
		f.Add([]byte("\r\n\r\nPOST"), trusted)
	}
	trust, err := ParseTrust([]string{"10.0.0.0/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, trusted bool) {
		from := "192.0.2.9:9"
		if trusted {
			from = "10.0.0.1:9"
		}
		refused := 0
		c := &Conn{Conn: script{addressed{nil, from}, bytes.NewReader(in)}, listener: &Listener{Trust: trust, Take: true, Refused: func(netip.AddrPort, error) *problem.Problem {
			refused++
			return problem.New(problem.BadProxyHeader, "")
		}}}
		lenient()
		at := c.RemoteAddr().String()
		out, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case refused > 0 && len(out) > 0:
			t.Errorf("refused, and %q passed", out)
		case !bytes.HasSuffix(in, out):
			t.Errorf("%q passed of %q", out, in)
		case !trusted && at != from:
			t.Errorf("a stranger is taken for %s", at)
		case !trusted && refused == 0 && !bytes.Equal(in, out):
			t.Errorf("%q passed of a stranger's %q", out, in)
		case c.client.Addr.IsValid() && c.client.Addr.Addr().IsUnspecified():
			t.Errorf("taken for %s", at)
		}
	})
}
