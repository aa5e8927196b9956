package udp

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A datagram is one of a batch that is read or sent at once.
type datagram struct {
	data    []byte         // to send; or room for one to come, then that
	far     netip.AddrPort // where it goes, or came from
	local   netip.Addr     // where it came to, if that is known and of use: of STUN alone
	control []byte         // to send it with; nil: from any address
}

// A wire is a UDP socket as the system has it. All system calls that move media
// over UDP are here, behind batches, although each moves one datagram.
//
// It tells apart the local addresses of a socket that is bound to all of them,
// and sends from one of them. The kernel would choose the source address by its
// routes, often another one than was asked, so that the answer is not taken for
// one. Of a socket that is bound to one address
// nothing is asked.
type wire struct {
	*net.UDPConn
	any  bool // bound to all addresses, and the system tells which was meant
	six  bool // by IPv6 control messages, of IPv4 datagrams too
	oob  []byte
	four ipv4.ControlMessage
	both ipv6.ControlMessage
}

// newWire asks the system for where each datagram was sent to.
func newWire(conn *net.UDPConn) wire {
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !bound.IsUnspecified() {
		return wire{UDPConn: conn}
	}
	w := wire{UDPConn: conn, six: bound.Is6(), oob: make([]byte, 128)}
	// Where this is not supported, the kernel chooses, as it did before.
	if w.six {
		w.any = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true) == nil
	} else {
		w.any = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true) == nil
	}
	return w
}

// read waits for datagrams and returns how many of batch it has filled, at least
// one. One goroutine reads.
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
	// A message that cannot be parsed leaves local unknown.
	if w.six && w.both.Parse(w.oob[:size]) == nil {
		d.local, _ = netip.AddrFromSlice(w.both.Dst)
	} else if !w.six && w.four.Parse(w.oob[:size]) == nil {
		d.local, _ = netip.AddrFromSlice(w.four.Dst)
	}
	d.local = d.local.Unmap()
	return 1, nil
}

// write sends batch, each datagram with its control message, or without should
// the address there be gone, and returns how many bytes were sent. It may be
// called by several goroutines at once.
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

// sendFrom is a control message that has a datagram leave from local.
func sendFrom(local netip.Addr) []byte {
	switch {
	case !local.IsValid():
		return nil
	case local.Is4():
		return (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
}
