package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"weir/sfu/proxied"
)

// Media over TCP (RFC 6544), for clients whose UDP is blocked. The node
// listens, and clients connect; each message is framed by its length (RFC
// 4571). A connection belongs to no peer until its first message, a
// connectivity check with the right password.
const (
	// tcpConnections bounds the connections of a node, and tcpPerAddress those
	// from one IPv4 address or IPv6 network: an office behind one NAT is many
	// clients.
	tcpConnections = 2048
	tcpPerAddress  = 128
	// tcpPending bounds the connections that belong to no peer yet, for at most
	// TCPFirst.
	tcpPending = 256
	// tcpSilence is the time without data after which a connection is closed. A
	// client sends a check every few seconds.
	tcpSilence = time.Minute
	// tcpStalled is the time after which a connection is closed whose client
	// reads nothing.
	tcpStalled = 10 * time.Second
	// tcpMessage is the largest accepted message, in bytes.
	tcpMessage = 2048
	// tcpRetry is the pause after an error of accept, for example for lack of
	// descriptors.
	tcpRetry = 100 * time.Millisecond
)

const (
	// TCPFirst bounds the time until the first message of a connection.
	TCPFirst = 5 * time.Second
	// TCPQueue is how many bytes may wait for a slow client: a second of 2
	// Mbit/s. Packets beyond it are lost, as with UDP.
	TCPQueue = 256 << 10
)

// tcpMedia is the TCP side of a Socket, by which it counts and filters. It is a
// net.Listener for pion.
type tcpMedia struct {
	net.Listener
	socket *Socket
	done   chan struct{}

	mu      sync.Mutex
	closed  bool
	conns   map[*mediaConn]struct{}
	from    map[netip.Prefix]int
	pending int
}

// listenTCP binds the port of udp, or any free one if that is taken.
func listenTCP(s *Socket) (*tcpMedia, error) {
	at := s.LocalAddr().(*net.UDPAddr)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
	if err != nil {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: at.IP, Zone: at.Zone})
	}
	if err != nil {
		return nil, err
	}
	return &tcpMedia{Listener: l, socket: s, done: make(chan struct{}), conns: map[*mediaConn]struct{}{}, from: map[netip.Prefix]int{}}, nil
}

// Accept returns the next connection within the bounds.
func (l *tcpMedia) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			select {
			case <-time.After(tcpRetry):
				continue
			case <-l.done:
				return nil, net.ErrClosed
			}
		}
		if c := l.take(conn); c != nil {
			return c, nil
		}
		l.socket.filter.dropped[dropConnections].Add(1)
		_ = conn.Close()
	}
}

// take registers conn if there is room, or returns nil.
func (l *tcpMedia) take(conn net.Conn) *mediaConn {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	from := endpointOf(remote.AddrPort())
	from.tcp = true
	c := &mediaConn{Conn: conn, media: l, from: from}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) >= tcpConnections || l.pending >= tcpPending || l.from[proxied.GroupOf(from.Addr())] >= tcpPerAddress {
		return nil
	}
	l.conns[c] = struct{}{}
	l.from[proxied.GroupOf(from.Addr())]++
	l.pending++
	return c
}

// Close closes all connections, including those that pion still waits on.
func (l *tcpMedia) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	conns := make([]*mediaConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	if !first {
		return nil
	}
	close(l.done)
	err := l.Listener.Close()
	for _, c := range conns {
		_ = c.Close()
	}
	return err
}

// connections returns the number of open connections.
func (l *tcpMedia) connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// A mediaConn is one client's connection. One goroutine of pion's reads from
// it, and one writes to it, whole framed messages.
type mediaConn struct {
	net.Conn
	media *tcpMedia
	from  endpoint

	frame [2 + tcpMessage]byte
	ready []byte // the unread part of frame
	known bool   // its first message was a valid check

	once sync.Once
	err  error // result of Close
}

// Read reads the next bytes of messages that the filter admits.
func (c *mediaConn) Read(b []byte) (int, error) {
	for len(c.ready) == 0 {
		if err := c.next(); err != nil {
			_ = c.Close()
			return 0, err
		}
	}
	n := copy(b, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// next reads one message, and puts it into ready if it is for pion.
func (c *mediaConn) next() error {
	patience := tcpSilence
	if !c.known {
		patience = TCPFirst
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(patience)) // the next read returns the error, too
	if _, err := io.ReadFull(c.Conn, c.frame[:2]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(c.frame[:]))
	filter := c.media.socket.filter
	if size > tcpMessage {
		filter.dropped[dropMessage].Add(1)
		return fmt.Errorf("a message of %d bytes", size)
	}
	message := c.frame[2 : 2+size]
	if _, err := io.ReadFull(c.Conn, message); err != nil {
		return err
	}
	s := c.media.socket
	s.in.Add(int64(2 + size))
	s.packIn.Add(1)
	if !c.known && (!isSTUN(message) || messageType(message) != bindingRequest) {
		filter.dropped[dropMessage].Add(1)
		return errors.New("the first message is not a check")
	}
	n := filter.admit(message, c.from, netip.Addr{})
	if n == 0 && !c.known {
		return errors.New("the first message is not admitted")
	}
	if n > 0 && !c.known {
		c.known = true
		c.media.mu.Lock()
		c.media.pending--
		c.media.mu.Unlock()
	}
	if n > 0 && !filter.taken(message[:n], c.from, time.Now()) {
		binary.BigEndian.PutUint16(c.frame[:], uint16(n))
		c.ready = c.frame[:2+n]
	}
	return nil
}

// Write sends one message. It closes the connection of a client that reads
// nothing.
func (c *mediaConn) Write(b []byte) (int, error) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(tcpStalled))
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close()
		return n, err
	}
	c.media.socket.out.Add(int64(n))
	c.media.socket.packOut.Add(1)
	return n, nil
}

// Close closes the connection and frees its place.
func (c *mediaConn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		l := c.media
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
		group := proxied.GroupOf(c.from.Addr())
		if l.from[group]--; l.from[group] <= 0 {
			delete(l.from, group)
		}
		if !c.known {
			l.pending--
		}
	})
	return c.err
}

// SetReadDeadline, SetWriteDeadline and SetDeadline do nothing: the deadlines
// are c's own. pion sets some while a connection closes.
func (c *mediaConn) SetReadDeadline(time.Time) error  { return nil }
func (c *mediaConn) SetWriteDeadline(time.Time) error { return nil }
func (c *mediaConn) SetDeadline(time.Time) error      { return nil }

// LocalAddr returns the same address for all connections of an address family.
// pion looks up the session of a connection by its local address, and forgets
// addresses that a public IP address makes equal to others.
func (c *mediaConn) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: TCPLocal(c.from.Addr().Is6()), Port: c.media.Addr().(*net.TCPAddr).Port}
}

// TCPLocal returns the local IP address that all connections of an address
// family have, whatever address the client used.
func TCPLocal(six bool) net.IP {
	if six {
		return net.IPv6unspecified
	}
	return net.IPv4zero
}
