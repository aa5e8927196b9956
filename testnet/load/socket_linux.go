package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize  = 64       // datagrams, or runs of them, a system call
	bufferSize = 64 << 10 // of one run: the most that UDP_GRO joins
	oobSize    = 128
	// receiveBuffer takes what arrives while the reader is kept from the CPU.
	// Without CAP_NET_ADMIN it is bounded by net.core.rmem_max.
	receiveBuffer = 256 << 20
	sendBuffer    = 8 << 20
)

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// A socket is a UDP socket on a port of all addresses. Whoever sends says from
// which of them, and each datagram received says to which it came.
type socket struct {
	fd   int
	port uint16

	// Of the one reader:
	in   [batchSize]mmsghdr
	iovs [batchSize]unix.Iovec
	from [batchSize]unix.RawSockaddrInet4
	oobs [batchSize][oobSize]byte
	bufs []byte
}

// openSocket binds a port that the kernel chooses. granted is the size of the
// receive buffer.
func openSocket() (s *socket, granted int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as allowed
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as much as allowed
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1),
		unix.Bind(fd, &unix.SockaddrInet4{}))
	if err != nil {
		return nil, 0, fmt.Errorf("set up socket: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, 0, err
	}
	granted, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return nil, 0, err
	}
	s = &socket{fd: fd, port: uint16(name.(*unix.SockaddrInet4).Port), bufs: make([]byte, batchSize*bufferSize)}
	for i := range s.in {
		s.iovs[i].Base = &s.bufs[i*bufferSize]
		s.iovs[i].SetLen(bufferSize)
		h := &s.in[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.from[i]))
		h.Iov = &s.iovs[i]
		h.SetIovlen(1)
		h.Control = &s.oobs[i][0]
	}
	return s, granted, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// drops is how many datagrams the kernel had no room for.
func (s *socket) drops() uint64 {
	// Linux, include/uapi/linux/sock_diag.h: SK_MEMINFO_DROPS is the last of
	// SK_MEMINFO_VARS numbers.
	const soMeminfo = 55
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, soMeminfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return uint64(info[8]) // an error leaves 0
}

// A run is what one receive of the kernel's gave: datagrams of one sender to
// one address, all of size bytes but the last.
type run struct {
	data []byte // until the next receive
	size int
	from netip.AddrPort
	to   [4]byte
	at   int64 // when it arrived, ns of the wall clock
}

// receive calls take with each run that has come, of one batch at most. full
// means that there may be more.
func (s *socket) receive(take func(run)) (full bool, err error) {
	for i := range s.in {
		h := &s.in[i].hdr
		h.Namelen = unix.SizeofSockaddrInet4
		h.SetControllen(oobSize)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN:
		return false, nil
	case unix.EINTR, unix.ECONNREFUSED:
		return true, nil
	default:
		return false, errno
	}
	for i := range n {
		m := &s.in[i]
		r := run{data: s.bufs[i*bufferSize:][:m.n], size: int(m.n)}
		port := (*[2]byte)(unsafe.Pointer(&s.from[i].Port))
		r.from = netip.AddrPortFrom(netip.AddrFrom4(s.from[i].Addr), binary.BigEndian.Uint16(port[:]))
		r.control(s.oobs[i][:m.hdr.Controllen])
		take(r)
	}
	return n == batchSize, nil
}

// control reads the ancillary data of a run (cmsg(3)).
func (r *run) control(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(b) {
			return
		}
		data := b[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO:
			r.to = (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS:
			r.at = (*unix.Timespec)(unsafe.Pointer(&data[0])).Nano()
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO:
			r.size = int(binary.NativeEndian.Uint32(data))
		}
		b = b[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(b)):]
	}
}

// send sends one datagram. What the kernel does not take is lost, as it might
// be later on the way.
func (s *socket) send(local [4]byte, to netip.AddrPort, b []byte) {
	out := newSender(1)
	out.add(local, to, b, 0)
	_, _ = out.flush(s.fd)
}

// A sender sends runs of datagrams in few system calls.
type sender struct {
	n    int
	msgs []mmsghdr
	iovs []unix.Iovec
	to   []unix.RawSockaddrInet4
	oobs [][oobSize]byte
}

func newSender(most int) *sender {
	return &sender{
		msgs: make([]mmsghdr, most), iovs: make([]unix.Iovec, most),
		to: make([]unix.RawSockaddrInet4, most), oobs: make([][oobSize]byte, most),
	}
}

func (s *sender) full() bool { return s.n == len(s.msgs) }

// add queues data as datagrams of size bytes, the last one shorter, or as one
// if size is 0 (udp(7), UDP_SEGMENT). data must stay as it is until flush.
func (s *sender) add(local [4]byte, to netip.AddrPort, data []byte, size int) {
	i := s.n
	s.n++
	s.to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.to[i].Port))[:], to.Port())
	s.iovs[i].Base = unsafe.SliceData(data)
	s.iovs[i].SetLen(len(data))
	h := &s.msgs[i].hdr
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.to[i])), Namelen: unix.SizeofSockaddrInet4, Iov: &s.iovs[i], Control: &s.oobs[i][0]}
	h.SetIovlen(1)
	oob := s.oobs[i][:0]
	if local != [4]byte{} {
		info := unix.Inet4Pktinfo{Spec_dst: local}
		oob = appendControl(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, (*[unix.SizeofInet4Pktinfo]byte)(unsafe.Pointer(&info))[:])
	}
	if size > 0 && size < len(data) {
		oob = appendControl(oob, unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(size)))
	}
	if len(oob) == 0 {
		h.Control = nil
	}
	h.SetControllen(len(oob))
}

func appendControl(oob []byte, level, kind int32, data []byte) []byte {
	at := len(oob)
	oob = oob[:at+unix.CmsgSpace(len(data))]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(oob[at+unix.CmsgLen(0):], data)
	return oob
}

// flush sends what was added. It returns how many runs the kernel took; the
// first that it refuses is left out, and the error says why.
func (s *sender) flush(fd int) (sent int, err error) {
	for at := 0; at < s.n; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msgs[at])), uintptr(s.n-at), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			err = errors.Join(err, errno)
			at++
			continue
		}
		at += int(n)
		sent += int(n)
	}
	s.n = 0
	return sent, err
}
