package proxied

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"weir/sfu/problem"
)

const (
	// headerPatience bounds the time until the first bytes of a connection are
	// complete. The protocol requires proxies to send the header at once.
	headerPatience = 5 * time.Second
	// refusedLinger is how long the remaining input of a refused client is
	// read, and refusedDrain how many bytes of it: closing a connection with
	// unread bytes resets it, and the answer is lost.
	refusedLinger = time.Second
	refusedDrain  = 64 << 10
)

// Errors of refused connections.
var (
	// ErrNotTaken: it begins with a PROXY header, which this node does not
	// accept.
	ErrNotTaken = errors.New("the PROXY protocol is not taken here")
	// ErrUntrusted: it begins with a PROXY header, and does not come from a
	// trusted proxy.
	ErrUntrusted = errors.New("a PROXY header from an address that is no trusted proxy's")
	// ErrNoHeader: it comes from a trusted proxy, and does not begin with a
	// PROXY header. Otherwise all clients of the proxy would count as one.
	ErrNoHeader = errors.New("no PROXY header from a trusted proxy")
	// ErrBadHeader: a trusted proxy's header is malformed.
	ErrBadHeader = errors.New("a PROXY header that cannot be read")
)

// A Listener accepts PROXY headers, versions 1 and 2 (the PROXY protocol's
// specification, section 2), from trusted proxies, and refuses all others, so
// that no client is served under a forged address.
//
// A header is read at the first read from a connection or request for its
// address, on the caller's goroutine: Accept never waits for one.
type Listener struct {
	net.Listener
	Trust Trust
	Take  bool // all trusted proxies send headers
	// Bare reports whether a trusted proxy may make a request without a header:
	// many send health checks that way. [Trust.Handler] refuses other requests.
	Bare func(*http.Request) bool

	// Refused receives the address of a refused connection and the reason, one
	// of the errors above. It returns the problem for the other end.
	Refused func(from netip.AddrPort, why error) *problem.Problem
}

// lenient makes version 1 accept IPv4 addresses in TCP6 lines, as nginx writes
// them where client and server are of different families.
var lenient = sync.OnceFunc(func() { proxyproto.V1AcceptIPv4InTCP6 = true })

// Accept implements net.Listener. It returns a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	lenient()
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, listener: l}, nil
}

// A Conn is a connection whose remote address is the client that a PROXY header
// names, if there was one.
type Conn struct {
	net.Conn
	listener *Listener

	once   sync.Once
	in     *bufio.Reader
	client Client // from the header; zero: no header
	bare   bool   // from a trusted proxy, without a header
	err    error  // reason of a refused or lost connection
}

// ConnContext is for [http.Server]: with it [Trust.Handler] knows the PROXY
// header of a request's connection.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	for c != nil {
		if conn, ok := c.(*Conn); ok {
			return context.WithValue(ctx, connKey{}, conn)
		}
		inner, ok := c.(interface{ NetConn() net.Conn }) // such as a TLS connection
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	return ctx
}

type connKey struct{}

// Read implements net.Conn. A refused connection returns io.EOF.
func (c *Conn) Read(b []byte) (int, error) {
	c.once.Do(c.begin)
	if c.err != nil {
		return 0, c.err
	}
	return c.in.Read(b)
}

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr {
	c.once.Do(c.begin)
	if c.client.Addr.IsValid() {
		return net.TCPAddrFromAddrPort(c.client.Addr)
	}
	return c.Conn.RemoteAddr()
}

// told returns the client from the header.
func (c *Conn) told() Client {
	c.once.Do(c.begin)
	return c.client
}

// refuses returns why r, received on the connection, is not served, or nil.
func (c *Conn) refuses(r *http.Request) *problem.Problem {
	c.once.Do(c.begin)
	if !c.bare || c.listener.Bare != nil && c.listener.Bare(r) {
		return nil
	}
	return c.listener.Refused(addrPortOf(c.Conn.RemoteAddr()), ErrNoHeader)
}

// v1 and v2 are the beginnings of headers.
var (
	v1 = []byte("PROXY ")
	v2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// begin reads the first bytes.
func (c *Conn) begin() {
	c.in = bufio.NewReader(c.Conn)
	from := addrPortOf(c.Conn.RemoteAddr())
	trusted := c.listener.Take && c.listener.Trust.Has(from.Addr())
	_ = c.Conn.SetReadDeadline(time.Now().Add(headerPatience))
	why := c.header(trusted)
	_ = c.Conn.SetReadDeadline(time.Time{}) // the user of the connection sets its own
	switch {
	case why == nil:
		if c.client.Addr.IsValid() {
			c.client.Proxy = from.Addr()
		}
	case errors.Is(why, io.EOF):
		c.err = io.EOF // it sent nothing
	default:
		c.err = io.EOF
		c.refuse(c.listener.Refused(from, why))
	}
}

// header reads a header if there may be one. The error is why the connection is
// not served: io.EOF if it was lost before it had sent anything.
func (c *Conn) header(trusted bool) error {
	begins, err := c.peek()
	if len(begins) == 0 && err != nil {
		return io.EOF
	}
	is := bytes.Equal(begins, v1) || bytes.Equal(begins, v2)
	switch {
	case is && !c.listener.Take:
		return ErrNotTaken
	case is && !trusted:
		return ErrUntrusted
	case !trusted:
		return nil // the next read returns an error again
	case !is:
		c.bare = true
		return nil
	}
	h, err := proxyproto.Read(c.in)
	if err != nil {
		return ErrBadHeader
	}
	if h.Command.IsLocal() {
		return nil // the proxy's own connection, such as a health check
	}
	at, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil // it has no TCP address: the proxy's address is used
	}
	addr := at.AddrPort()
	if !addr.IsValid() || addr.Addr().IsUnspecified() {
		return ErrBadHeader
	}
	c.client.Addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if tlvs, err := h.TLVs(); err == nil {
		if ssl, ok := tlvparse.FindSSL(tlvs); ok && ssl.ClientSSL() {
			c.client.Scheme = "https"
		}
	}
	return nil
}

// peek returns the first bytes as far as they match a header, and one more.
func (c *Conn) peek() ([]byte, error) {
	for n := 1; ; n++ {
		b, err := c.in.Peek(n)
		if err != nil || !bytes.HasPrefix(v1, b) && !bytes.HasPrefix(v2, b) || n == len(v1) && b[0] == v1[0] || n == len(v2) {
			return b, err
		}
	}
}

// refuse answers with p, as HTTP, and stops reading.
func (c *Conn) refuse(p *problem.Problem) {
	w := &answer{header: http.Header{}}
	p.Write(w)
	w.header.Set("Connection", "close")
	resp := http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Header: w.header,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Close: true,
	}
	_ = c.Conn.SetDeadline(time.Now().Add(refusedLinger))
	if resp.Write(c.Conn) != nil {
		return
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c.in, refusedDrain)
}

// An answer records a response.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func addrPortOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}
