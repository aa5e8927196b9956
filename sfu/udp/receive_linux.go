package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// receiveMessages bounds the messages that are read at once.
	receiveMessages = 16
	// receiveBytes is the room for one message: of datagrams that the kernel
	// has joined, it takes what is beyond.
	receiveBytes = 64 << 10
	// receiveControl is the room for control messages: pktinfo and segment size.
	receiveControl = 128
)

// A receivePath says how datagrams are read on this system.
type receivePath struct {
	gathers   bool                                              // by recvmmsg
	coalesces bool                                              // and joined by the kernel to messages (UDP_GRO)
	recvmmsg  func(fd uintptr, h []header) (int, syscall.Errno) // tests replace it
}

// newReceivePath finds out what the kernel can do, and has it join datagrams.
func newReceivePath(raw syscall.RawConn) receivePath {
	p := receivePath{recvmmsg: recvmmsg}
	_ = raw.Control(func(fd uintptr) { // an error leaves all false
		_, errno := recvmmsg(fd, nil)
		p.gathers = errno == 0
	})
	if p.gathers {
		p.coalesces = coalesce(raw, true)
	}
	return p
}

// coalesce has the kernel join datagrams, or not, and returns whether it does.
func coalesce(raw syscall.RawConn, on bool) bool {
	value := 0
	if on {
		value = 1
	}
	err := syscall.ENOPROTOOPT
	_ = raw.Control(func(fd uintptr) {
		err, _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, value).(syscall.Errno)
	})
	return on && err == 0
}

func recvmmsg(fd uintptr, h []header) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(h))), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// arrivals are the messages of one system call, which next hands out datagram
// by datagram. One goroutine owns them.
type arrivals struct {
	all      [receiveMessages]header
	vectors  [receiveMessages]unix.Iovec
	names    [receiveMessages]unix.RawSockaddrInet6
	controls [receiveMessages][receiveControl / 8]uint64 // aligned
	buffer   []byte
	zones    map[uint32]string

	count, opened int       // messages read, and of these opened
	at            time.Time // when they were read
	current       datagram  // with what is left of the opened message as its data
	segment       int       // length of its datagrams but the last
	left          bool      // something is

	path  *receivePath
	errno syscall.Errno
	retry func(fd uintptr) bool // for [syscall.RawConn]: false to be called again when there is data
}

// next returns the next datagram, which is valid until the next call.
func (a *arrivals) next(w *wire) (datagram, error) {
	if w.closed.Load() {
		a.count, a.left = 0, false // what follows returns the error
	}
	for !a.left {
		if a.opened < a.count {
			a.open(w)
			break
		}
		if err := a.read(w); err != nil {
			return datagram{}, err
		}
	}
	d := a.current
	d.data, a.current.data = split(a.current.data, a.segment)
	a.left = len(a.current.data) > 0
	w.in.datagrams.Add(1)
	if w.any && isSTUN(d.data) {
		d.local = w.destination(a.control(a.opened - 1))
	}
	return d, nil
}

// split returns the first datagram of a message and the rest. Segment is the
// length of all datagrams but the last; 0: there is one.
func split(message []byte, segment int) (first, rest []byte) {
	if segment <= 0 || segment >= len(message) {
		return message, nil
	}
	return message[:segment:segment], message[segment:]
}

// read waits for messages.
func (a *arrivals) read(w *wire) error {
	if a.buffer == nil {
		a.init(w)
	}
	for i := range a.all {
		h := &a.all[i].Msghdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(receiveControl)
	}
	a.count, a.opened = 0, 0
	if err := w.raw.Read(a.retry); err != nil {
		return err
	}
	if a.errno != 0 {
		return &net.OpError{Op: "read", Net: "udp", Source: w.LocalAddr(), Err: os.NewSyscallError("recvmmsg", a.errno)}
	}
	a.at = time.Now()
	w.in.calls.Add(1)
	w.in.messages.Add(int64(a.count))
	return nil
}

func (a *arrivals) init(w *wire) {
	a.buffer = make([]byte, receiveMessages*receiveBytes)
	a.zones = map[uint32]string{}
	a.path, a.retry = &w.receivePath, a.try
	for i := range a.all {
		a.vectors[i].Base = &a.buffer[i*receiveBytes]
		a.vectors[i].SetLen(receiveBytes)
		h := &a.all[i].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&a.names[i]))
		h.Iov = &a.vectors[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&a.controls[i]))
	}
}

func (a *arrivals) try(fd uintptr) bool {
	for {
		a.count, a.errno = a.path.recvmmsg(fd, a.all[:])
		if a.errno != unix.EINTR {
			break
		}
	}
	if a.errno != 0 {
		a.count = 0 // it was -1
	}
	return a.errno != unix.EAGAIN
}

// open makes the next message the current one.
func (a *arrivals) open(w *wire) {
	i := a.opened
	a.opened++
	length := min(int(a.all[i].n), receiveBytes)
	a.current = datagram{data: a.buffer[i*receiveBytes:][:length:length], far: a.source(i), at: a.at}
	a.segment = segmentSize(a.control(i))
}

// control returns the control messages of message i.
func (a *arrivals) control(i int) []byte {
	length := min(int(a.all[i].Controllen), receiveControl)
	return unsafe.Slice((*byte)(unsafe.Pointer(&a.controls[i])), receiveControl)[:length]
}

// source returns where message i comes from, in the form of [net.UDPConn].
func (a *arrivals) source(i int) netip.AddrPort {
	name := &a.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	switch name.Family {
	case unix.AF_INET:
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).WithZone(a.zone(name.Scope_id)), port)
	}
	return netip.AddrPort{}
}

// zone returns the name of an IPv6 zone, which is that of an interface.
func (a *arrivals) zone(id uint32) string {
	if id == 0 {
		return ""
	}
	name, ok := a.zones[id]
	if !ok {
		name = strconv.Itoa(int(id))
		if i, err := net.InterfaceByIndex(int(id)); err == nil {
			name = i.Name
		}
		a.zones[id] = name
	}
	return name
}

// segmentSize returns the length of the datagrams that the kernel has joined to
// one message, by its control messages: udp(7); 0 if it has joined none.
func segmentSize(control []byte) int {
	for len(control) >= unix.SizeofCmsghdr {
		var h unix.Cmsghdr
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofCmsghdr), control)
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(control)) {
			return 0
		}
		data := control[unix.CmsgLen(0):h.Len]
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			return max(0, int(int32(binary.NativeEndian.Uint32(data))))
		}
		control = control[min(len(control), unix.CmsgSpace(len(data))):]
	}
	return 0
}
