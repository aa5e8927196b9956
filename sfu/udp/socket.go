package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// A Socket is the one UDP socket of a node for all media: WHIP, WHEP and
// cascade links. With it comes a TCP listener for clients whose UDP is blocked.
// It counts datagrams, and admits those that its filter admits. If it is bound
// to no particular address, it answers from the address that a peer has sent
// to.
type Socket struct {
	wire   *wire
	filter *filter
	tcp    *tcpMedia // nil: none
	noTCP  error     // why tcp is nil

	in, out         atomic.Int64 // bytes of UDP payload, and over TCP
	packIn, packOut atomic.Int64

	// Lose, if set, reports which datagrams a lossy network would not have
	// delivered: a test sets it before the first read.
	Lose func(datagram []byte, from netip.AddrPort) bool
}

// socketBuffer is the buffer size requested from the kernel for both
// directions, in bytes: about 40 ms of media at 1 Gbit/s.
const socketBuffer = 4 << 20

// Listen binds addr, for example "127.0.0.1:0", for media. The error says so
// when the port is taken.
func Listen(addr string) (*Socket, error) {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("media address %q: %w", addr, err)
	}
	conn, err := net.ListenUDP("udp", udp)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("media address %s is in use by another process (%w): choose another port, or 0 for any free one", addr, syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("media address %s: %w", addr, err)
	}
	// A smaller buffer than requested costs packets only under load, and the
	// operator can raise the kernel's limit.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	wire, err := newWire(conn)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("media address %s: %w", addr, err)
	}
	s := &Socket{wire: wire, filter: newFilter()}
	s.tcp, s.noTCP = listenTCP(s)
	return s, nil
}

// TCP returns the port of media over TCP, which is that of UDP unless it was
// taken; 0 and an error if there is none.
func (s *Socket) TCP() (port int, err error) {
	if s.tcp == nil {
		return 0, s.noTCP
	}
	return s.tcp.Addr().(*net.TCPAddr).Port, nil
}

// TCPListener returns the listener for connections over TCP, framed by RFC
// 4571, each with an admitted connectivity check as its first message; nil:
// there is none.
func (s *Socket) TCPListener() net.Listener {
	if s.tcp == nil {
		return nil
	}
	return s.tcp
}

// NewPeer returns a peer without credentials, of which nothing is admitted yet;
// see [Peer.Expect].
func (s *Socket) NewPeer() *Peer { return s.filter.newPeer() }

// LocalAddr returns the bound UDP address, a *net.UDPAddr.
func (s *Socket) LocalAddr() net.Addr { return s.wire.LocalAddr() }

// SetDeadline sets both deadlines of UDP; see [net.PacketConn].
func (s *Socket) SetDeadline(t time.Time) error { return s.wire.SetDeadline(t) }

// SetReadDeadline sets the read deadline of UDP; see [net.PacketConn].
func (s *Socket) SetReadDeadline(t time.Time) error { return s.wire.SetReadDeadline(t) }

// SetWriteDeadline sets the write deadline of UDP; see [net.PacketConn].
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.wire.SetWriteDeadline(t) }

// Close closes the socket, and all connections over TCP.
func (s *Socket) Close() error {
	err := s.wire.Close()
	if s.tcp != nil {
		err = errors.Join(err, s.tcp.Close())
	}
	return err
}

// Counters are totals since the socket was bound, in bytes of UDP payload and
// in datagrams.
type Counters struct {
	BytesIn, BytesOut     int64
	PacketsIn, PacketsOut int64
	Dropped               map[string]int64 // not passed to pion, by reason
	Connections           int              // open now, over TCP
	Overflowed            int64            // dropped by the kernel for lack of buffer space, joined ones as one; 0 if unknown
	Refused               map[string]int64 // not sent by the kernel, by its error
	Reads, Sends          BatchCounters    // of all UDP that is read; of what batches send
	Unsegmented           int64            // messages of several datagrams that the kernel did not divide, sent one by one
	Waits                 int64            // of batches, until the kernel had room to send
}

// BatchCounters say how much the kernel was given at once: by a system call
// some messages, each of one or more datagrams.
type BatchCounters struct{ Calls, Messages, Datagrams int64 }

// Counters returns the totals.
func (s *Socket) Counters() Counters {
	c := Counters{
		BytesIn: s.in.Load(), BytesOut: s.out.Load(),
		PacketsIn: s.packIn.Load(), PacketsOut: s.packOut.Load(),
		Dropped: make(map[string]int64, drops), Overflowed: kernelDrops(s.wire.UDPConn),
		Refused: s.wire.refused(), Reads: s.wire.in.read(), Sends: s.wire.out.read(), Unsegmented: s.wire.unsegmented.Load(), Waits: s.wire.waits.Load(),
	}
	if s.tcp != nil {
		c.Connections = s.tcp.connections()
	}
	for why, name := range dropNames {
		c.Dropped[name] = s.filter.dropped[why].Load()
	}
	return c
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (s *Socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		d, err := s.wire.next(b)
		if err != nil {
			return 0, netip.AddrPort{}, err
		}
		d.data = d.data[:min(len(d.data), len(b))]
		s.in.Add(int64(len(d.data)))
		s.packIn.Add(1)
		if s.Lose != nil && s.Lose(d.data, d.far) {
			continue
		}
		from := endpointOf(d.far)
		if n := s.filter.admit(d.data, from, d.local); n > 0 && !s.filter.taken(d.data[:n], from, d.at) {
			return copy(b, d.data[:n]), d.far, nil
		}
	}
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (s *Socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	var control []byte
	if isSTUN(b) {
		var ok bool
		if control, ok = s.filter.sent(b, endpointOf(to)); !ok {
			return len(b), nil
		}
	} else if s.wire.any {
		control = s.filter.control(endpointOf(to))
	}
	n, err := s.wire.write(b, to, control)
	if err != nil {
		s.wire.refuse(1, err)
		return n, err
	}
	s.out.Add(int64(n))
	s.packOut.Add(1)
	return n, nil
}

// ReadFrom implements net.PacketConn.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn.
func (s *Socket) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write to %T: not a UDP address", to)
	}
	return s.WriteToAddrPort(b, udp.AddrPort())
}
