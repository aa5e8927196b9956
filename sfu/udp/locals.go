package udp

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// locals tells apart the local addresses of a UDP socket that is bound to all
// of them, and sends from one of them. What leaves such a socket has the source
// address that the kernel's routes suggest, which often is another one than
// was asked, and so is not taken for the answer. Of a socket that is bound to
// one address nothing is asked.
type locals struct {
	any  bool // bound to all addresses, and the system tells which was meant
	six  bool // by IPv6 control messages, of IPv4 datagrams too
	oob  []byte
	four ipv4.ControlMessage
	both ipv6.ControlMessage
}

// newLocals asks the system for where each datagram was sent to.
func newLocals(conn *net.UDPConn) locals {
	bound := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !bound.IsUnspecified() {
		return locals{}
	}
	l := locals{six: bound.Is6(), oob: make([]byte, 128)}
	// Where this is not supported, the kernel chooses, as it did before.
	if l.six {
		l.any = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true) == nil
	} else {
		l.any = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true) == nil
	}
	return l
}

// read reads one datagram. local is valid only if it is known and of use: of
// STUN alone.
func (l *locals) read(conn *net.UDPConn, b []byte) (n int, from netip.AddrPort, local netip.Addr, err error) {
	if !l.any {
		n, from, err = conn.ReadFromUDPAddrPort(b)
		return n, from, local, err
	}
	n, size, _, from, err := conn.ReadMsgUDPAddrPort(b, l.oob)
	if err != nil || !isSTUN(b[:n]) {
		return n, from, local, err
	}
	// A message that cannot be parsed leaves local unknown.
	if l.six && l.both.Parse(l.oob[:size]) == nil {
		local, _ = netip.AddrFromSlice(l.both.Dst)
	} else if !l.six && l.four.Parse(l.oob[:size]) == nil {
		local, _ = netip.AddrFromSlice(l.four.Dst)
	}
	return n, from, local.Unmap(), nil
}

// write sends b with control, or without should the address there be gone.
func (l *locals) write(conn *net.UDPConn, b, control []byte, to netip.AddrPort) (int, error) {
	if len(control) > 0 {
		if n, _, err := conn.WriteMsgUDPAddrPort(b, control, to); err == nil {
			return n, nil
		}
	}
	return conn.WriteToUDPAddrPort(b, to)
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
