package udp

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A datagram is one datagram of a batch that is read or sent at once.
type datagram struct {
	data    []byte         // payload to send; or a buffer to read into, then its content
	far     netip.AddrPort // destination, or source
	local   netip.Addr     // its destination on this node, if known; for STUN only
	control []byte         // control message to send it with; nil: from any address
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
	six  bool // uses IPv6 control messages, for IPv4 datagrams too
	oob  []byte
	four ipv4.ControlMessage
	both ipv6.ControlMessage
}

// newWire makes a wire and enables the report of each datagram's destination
// address.
func newWire(conn *net.UDPConn) wire {
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !bound.IsUnspecified() {
		return wire{UDPConn: conn}
	}
	w := wire{UDPConn: conn, six: bound.Is6(), oob: make([]byte, 128)}
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

// write sends batch, each datagram with its control message, or without if its
// local address no longer exists, and returns how many bytes were sent. Several
// goroutines may call it at once.
func (w *wire) write(batch []datagram) (sent int, err error) {
	for i := range batch {
		d := &batch[i]
		n := 0
		if len(d.control) > 0 {
			n, _, err = w.WriteMsgUDPAddrPort(d.data, d.control, d.far)
		}
		if len(d.control) == 0 || err != nil {
			n, err = w.WriteToUDPAddrPort(d.data, d.far)
		}
		if sent += n; err != nil {
			return sent, err
		}
	}
	return sent, nil
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
