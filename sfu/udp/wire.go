package udp

import (
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A datagram is one datagram of a batch that is read at once.
type datagram struct {
	data  []byte         // a buffer to read into, then its content
	far   netip.AddrPort // source
	local netip.Addr     // its destination on this node, if known; for STUN only
}

// A wire is the UDP socket of the operating system. It makes all system calls
// that move media over UDP, for batches, although each call moves one datagram.
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
	oob  []byte
	four ipv4.ControlMessage
	both ipv6.ControlMessage

	sendPath
	out         batchTally
	waits       atomic.Int64 // for room in the socket's buffer
	unsegmented atomic.Int64 // messages that had to be sent as single datagrams
	refusals    [len(refusalNames) + 1]atomic.Int64
}

// newWire makes a wire and enables the report of each datagram's destination
// address.
func newWire(conn *net.UDPConn) *wire {
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	w := &wire{UDPConn: conn, six: bound.Is6(), sendPath: newSendPath(conn)}
	if !bound.IsUnspecified() {
		return w
	}
	w.oob = make([]byte, 128)
	// Where this is not supported, the kernel chooses the source address.
	if w.six {
		w.any = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true) == nil
	} else {
		w.any = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true) == nil
	}
	return w
}

// read waits for datagrams and returns how many of batch it has filled, at
// least one. Only one goroutine may call it.
func (w *wire) read(batch []datagram) (int, error) {
	d := &batch[0]
	d.local = netip.Addr{}
	if !w.any {
		n, from, err := w.ReadFromUDPAddrPort(d.data)
		if err != nil { // n may be negative
			return 0, err
		}
		d.data, d.far = d.data[:n], from
		return 1, nil
	}
	n, size, _, from, err := w.ReadMsgUDPAddrPort(d.data, w.oob)
	if err != nil {
		return 0, err
	}
	d.data, d.far = d.data[:n], from
	if !isSTUN(d.data) {
		return 1, nil
	}
	// If the control message cannot be parsed, local stays unknown.
	if w.six && w.both.Parse(w.oob[:size]) == nil {
		d.local, _ = netip.AddrFromSlice(w.both.Dst)
	} else if !w.six && w.four.Parse(w.oob[:size]) == nil {
		d.local, _ = netip.AddrFromSlice(w.four.Dst)
	}
	d.local = d.local.Unmap()
	return 1, nil
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
