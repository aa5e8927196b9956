package udp

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A datagram is one that was read.
type datagram struct {
	data  []byte
	far   netip.AddrPort // source
	local netip.Addr     // its destination on this node, if known; for STUN only
	at    time.Time      // when it was read
}

// A wire is the UDP socket of the operating system. All system calls that move
// media over UDP are made here and, for batches, in send and receive of the
// system.
//
// It distinguishes the local addresses of a socket that is bound to all of
// them, and sends from a given one. The kernel would choose the source address
// by its routes, often another one than the peer has sent to, so that the peer
// would not accept the answer. For a socket that is bound to one address it
// does neither.
type wire struct {
	*net.UDPConn
	any  bool // bound to all addresses, and the system reports the destination address
	six  bool // an IPv6 socket, for IPv4 datagrams too
	raw  syscall.RawConn
	oob  []byte
	four ipv4.ControlMessage
	both ipv6.ControlMessage

	closed atomic.Bool
	receivePath
	arrivals arrivals // the reader's

	sendPath
	in, out     batchTally
	waits       atomic.Int64 // for room in the socket's buffer
	unsegmented atomic.Int64 // messages that had to be sent as single datagrams
	refusals    [len(refusalNames) + 1]atomic.Int64
}

// newWire makes a wire and enables the report of each datagram's destination
// address.
func newWire(conn *net.UDPConn) (*wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	w := &wire{UDPConn: conn, six: bound.Is6(), raw: raw, sendPath: newSendPath(raw), receivePath: newReceivePath(raw)}
	if !bound.IsUnspecified() {
		return w, nil
	}
	w.oob = make([]byte, 128)
	// Where this is not supported, the kernel chooses the source address.
	if w.six {
		w.any = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true) == nil
	} else {
		w.any = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true) == nil
	}
	return w, nil
}

// Close closes the socket. What was read and not yet handed out is dropped.
func (w *wire) Close() error {
	w.closed.Store(true)
	return w.UDPConn.Close()
}

// next waits for the next datagram, which may be in buffer. It is valid until
// the next call. Only one goroutine may call it.
func (w *wire) next(buffer []byte) (datagram, error) {
	if w.gathers {
		return w.arrivals.next(w)
	}
	d, err := w.read(buffer)
	if err == nil {
		w.in.calls.Add(1)
		w.in.messages.Add(1)
		w.in.datagrams.Add(1)
	}
	return d, err
}

// read waits for one datagram, which it reads into buffer.
func (w *wire) read(buffer []byte) (datagram, error) {
	if !w.any {
		n, from, err := w.ReadFromUDPAddrPort(buffer)
		if err != nil { // n may be negative
			return datagram{}, err
		}
		return datagram{data: buffer[:n], far: from, at: time.Now()}, nil
	}
	n, size, _, from, err := w.ReadMsgUDPAddrPort(buffer, w.oob)
	if err != nil {
		return datagram{}, err
	}
	d := datagram{data: buffer[:n], far: from, at: time.Now()}
	if isSTUN(d.data) {
		d.local = w.destination(w.oob[:size])
	}
	return d, nil
}

// destination returns the destination address of a datagram by its control
// messages; zero if they cannot be parsed.
func (w *wire) destination(control []byte) (local netip.Addr) {
	if w.six && w.both.Parse(control) == nil {
		local, _ = netip.AddrFromSlice(w.both.Dst)
	} else if !w.six && w.four.Parse(control) == nil {
		local, _ = netip.AddrFromSlice(w.four.Dst)
	}
	return local.Unmap()
}

// write sends one datagram, with a control message if that is not nil, or
// without if its local address no longer exists. Several goroutines may call it
// at once.
func (w *wire) write(data []byte, to netip.AddrPort, control []byte) (sent int, err error) {
	if len(control) > 0 {
		if sent, _, err = w.WriteMsgUDPAddrPort(data, control, to); err == nil {
			return sent, nil
		}
	}
	return w.WriteToUDPAddrPort(data, to)
}

// sendFrom makes the control message for sending a datagram from local.
func sendFrom(local netip.Addr) []byte {
	switch {
	case !local.IsValid():
		return nil
	case local.Is4():
		return (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
}
