package udp

import (
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sendPath says how batches are sent on this system.
type sendPath struct {
	batches  bool                                              // by sendmmsg
	segments bool                                              // and datagrams of one size as one message that the kernel divides (UDP_SEGMENT)
	sendmmsg func(fd uintptr, h []header) (int, syscall.Errno) // tests replace it
}

// newSendPath finds out what the kernel can do.
func newSendPath(raw syscall.RawConn) sendPath {
	p := sendPath{sendmmsg: sendmmsg}
	_ = raw.Control(func(fd uintptr) { // an error leaves all false
		_, errno := sendmmsg(fd, nil)
		p.batches = errno == 0
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		p.segments = err == nil
	})
	return p
}

// A header is struct mmsghdr: sendmmsg(2).
type header struct {
	unix.Msghdr
	n uint32 // bytes sent or read
}

func sendmmsg(fd uintptr, h []header) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(h))), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// segmentsRest is how long a batch does without segmentation after the kernel
// said that it cannot divide messages on the way to some peer. A try costs one
// message that is not sent at once.
const segmentsRest = 10 * time.Second

// headers are the system's form of the messages of one send.
type headers struct {
	all      [batchMessages]header
	vectors  [batchMessages]unix.Iovec
	names    [batchMessages]unix.RawSockaddrInet6
	controls [batchMessages][8]uint64 // aligned; pktinfo and segment size take 64 bytes
	parts    [batchMessages]part
	n        int

	unsegmented time.Time // no segmentation before that

	path  *sendPath
	rest  []header // to be sent by try
	sent  int      // its result
	errno syscall.Errno
	try   func(fd uintptr)      // tryOnce, without an allocation for each call
	retry func(fd uintptr) bool // for [syscall.RawConn]: false to be called again when there is room
}

// send sends the messages of b.
func (h *headers) send(b *Batch) {
	w := b.socket.wire
	segments := w.segments && (h.unsegmented.IsZero() || time.Now().After(h.unsegmented))
	for i := range b.messages {
		m := &b.messages[i]
		if !w.names(m.to.Addr()) {
			b.sendSingly(part{m, 0, m.count})
			continue
		}
		step := 1
		if segments {
			step = m.count
		}
		for first := 0; first < m.count; first += step {
			if h.n == batchMessages {
				h.flush(b)
			}
			h.add(w, part{m, first, first + step})
		}
	}
	h.flush(b)
}

// names reports whether an address can be written as a socket address: one of
// the other family cannot, and for zones the net package keeps their numbers.
func (w *wire) names(a netip.Addr) bool {
	return a.Zone() == "" && (w.six && a.IsValid() || a.Unmap().Is4())
}

// add makes the header of p.
func (h *headers) add(w *wire, p part) {
	i := h.n
	h.n++
	h.parts[i] = p
	payload := p.payload()
	h.vectors[i].Base = unsafe.SliceData(payload)
	h.vectors[i].SetLen(len(payload))
	hdr := &h.all[i].Msghdr
	hdr.Iov = &h.vectors[i]
	hdr.SetIovlen(1)
	hdr.Name = (*byte)(unsafe.Pointer(&h.names[i]))
	hdr.Namelen = writeName(&h.names[i], w.six, p.to)
	hdr.Control = unsafe.SliceData(p.control)
	hdr.SetControllen(len(p.control))
	if p.len() > 1 {
		hdr.Control = (*byte)(unsafe.Pointer(&h.controls[i]))
		hdr.SetControllen(writeControl(&h.controls[i], p.control, uint16(p.segment)))
	}
}

// writeName writes the socket address of to, and returns its length.
func writeName(name *unix.RawSockaddrInet6, six bool, to netip.AddrPort) uint32 {
	port := [2]byte{byte(to.Port() >> 8), byte(to.Port())}
	if six {
		*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
		name.Port = *(*uint16)(unsafe.Pointer(&port))
		return unix.SizeofSockaddrInet6
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
	four.Port = *(*uint16)(unsafe.Pointer(&port))
	return unix.SizeofSockaddrInet4
}

// writeControl writes first, then the segment size, and returns their length:
// udp(7).
func writeControl(control *[8]uint64, first []byte, segment uint16) int {
	b := unsafe.Slice((*byte)(unsafe.Pointer(control)), unsafe.Sizeof(*control))
	at := copy(b, first)
	c := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&b[at+unix.CmsgLen(0)])) = segment
	return at + unix.CmsgSpace(2)
}

// flush sends the headers. The kernel stops at the first message that it
// refuses; flush deals with that one and goes on behind it.
func (h *headers) flush(b *Batch) {
	for done := 0; done < h.n; {
		n, err := h.call(b.socket.wire, h.all[done:h.n])
		for _, p := range h.parts[done : done+n] {
			b.took(p)
		}
		if done += n; err == nil {
			continue
		}
		errno, ok := err.(syscall.Errno)
		if !ok { // closed, or the deadline is over
			for _, p := range h.parts[done:h.n] {
				b.refused(p.len(), err)
			}
			break
		}
		h.refused(b, h.parts[done], errno)
		done++
	}
	clear(h.parts[:h.n])
	h.n = 0
}

// refused deals with one message that the kernel did not send. It sends the
// datagrams of several singly, for the kernel cannot divide them where the
// device does not compute checksums (EIO), or does not want to where one is
// larger than the path's MTU (EINVAL); and so too what it did not send from the
// given address. Where the kernel is short of memory it would make that worse.
func (h *headers) refused(b *Batch, p part, errno syscall.Errno) {
	short := errno == unix.ENOBUFS || errno == unix.ENOMEM
	if short || p.len() == 1 && p.control == nil {
		b.refused(p.len(), errno)
		return
	}
	if p.len() > 1 {
		b.socket.wire.unsegmented.Add(1)
		if errno == unix.EIO {
			h.unsegmented = time.Now().Add(segmentsRest)
		}
	}
	b.sendSingly(p)
}

// call makes one system call, and returns how many of rest were sent, and a
// [syscall.Errno] if the next was refused. Senders do not wait for each other;
// for room in the socket's buffer call waits until the write deadline.
func (h *headers) call(w *wire, rest []header) (int, error) {
	if h.try == nil {
		h.path, h.try, h.retry = &w.sendPath, h.tryOnce, h.tryAgain
	}
	h.rest = rest
	err := w.raw.Control(h.try)
	if err == nil && h.errno == unix.EAGAIN {
		w.waits.Add(1)
		err = w.raw.Write(h.retry)
	}
	h.rest = nil
	if err != nil {
		return 0, err
	}
	w.out.calls.Add(1)
	if h.errno != 0 {
		return 0, h.errno
	}
	return h.sent, nil
}

func (h *headers) tryOnce(fd uintptr) {
	for {
		h.sent, h.errno = h.path.sendmmsg(fd, h.rest)
		if h.errno != unix.EINTR {
			break
		}
	}
	if h.errno == 0 && h.sent == 0 { // cannot be; it must not be tried for ever
		h.errno = unix.EIO
	}
}

func (h *headers) tryAgain(fd uintptr) bool {
	h.tryOnce(fd)
	return h.errno != unix.EAGAIN
}
