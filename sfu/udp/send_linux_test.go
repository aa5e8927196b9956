package udp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKernelSendsBatches(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.wire.batches || !s.wire.segments {
		t.Skipf("this kernel has sendmmsg: %v, UDP_SEGMENT: %v", s.wire.batches, s.wire.segments)
	}
	_, addrs := peers(t, "127.0.0.1", 2)
	b := s.NewBatch()
	for _, size := range []int{1200, 1200, 700, 900, 900, 900, 901} {
		for _, to := range addrs[:1] {
			b.Next(to, size)
			b.Commit(size)
		}
	}
	b.Next(addrs[1], 901)
	b.Commit(901)
	if n, err := b.Flush(); n != 8 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	want := BatchCounters{Calls: 1, Messages: 4, Datagrams: 8} // 3 and 3 of a size, one larger, one elsewhere
	if c := s.Counters(); c.Sends != want {
		t.Errorf("counted %+v, want %+v", c.Sends, want)
	}
}

// Messages stay within what Linux divides.
func TestMessagesAreBounded(t *testing.T) {
	for size, want := range map[int]int{100: maxSegments, 1400: maxSegments, 4000: 16, 40_000: 1} {
		m := message{data: make([]byte, size, 1<<20), segment: size, count: 1}
		for m.extend(size) {
		}
		if m.count != want || len(m.data) > maxMessage {
			t.Errorf("a message has %d datagrams of %d bytes, want %d", m.count, size, want)
		}
	}
}

// A kernelFault is what a fake kernel answers to one call for messages, of
// which n are sent.
type kernelFault struct {
	n     int
	errno syscall.Errno
}

// Whatever the kernel does not take at once is sent in pieces, or counted.
func TestBatchMeetsFaults(t *testing.T) {
	all := 12 // datagrams: 4 to each of 3 peers, one message each
	for _, c := range []struct {
		name        string
		faults      []kernelFault // one for each call; then the kernel is well
		sent        int
		err         error
		refused     string
		unsegmented int64
	}{
		{name: "no fault", sent: all},
		{name: "one message at a time", faults: []kernelFault{{n: 1}, {n: 1}}, sent: all},
		{name: "two, then one that is refused", faults: []kernelFault{{n: 2}, {errno: unix.EINVAL}}, sent: all, unsegmented: 1},
		{name: "no checksums by the device", faults: []kernelFault{{errno: unix.EIO}}, sent: all, unsegmented: 1},
		{name: "each larger than the MTU", faults: []kernelFault{{errno: unix.EINVAL}, {errno: unix.EINVAL}, {errno: unix.EINVAL}}, sent: all, unsegmented: 3},
		{name: "the queue is full", faults: []kernelFault{{errno: unix.ENOBUFS}}, sent: all - 4, err: unix.ENOBUFS, refused: "enobufs"},
		{name: "the queue fills", faults: []kernelFault{{n: 2}, {errno: unix.ENOBUFS}}, sent: all - 4, err: unix.ENOBUFS, refused: "enobufs"},
		{name: "no memory", faults: []kernelFault{{n: 1}, {errno: unix.ENOMEM}}, sent: all - 4, err: unix.ENOMEM, refused: "enomem"},
		{name: "interrupted", faults: []kernelFault{{errno: unix.EINTR}}, sent: all},
		{name: "no room for a moment", faults: []kernelFault{{errno: unix.EAGAIN}}, sent: all},
		{name: "nothing done, and no error", faults: []kernelFault{{}}, sent: all, unsegmented: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if !s.wire.segments {
				t.Skip("this kernel does not divide messages")
			}
			conns, addrs := peers(t, "127.0.0.1", 3)
			_, others := peers(t, "127.0.0.1", 1)
			nowhere := &unix.SockaddrInet4{Addr: others[0].Addr().Unmap().As4(), Port: int(others[0].Port())}
			faults := c.faults
			s.wire.sendmmsg = func(fd uintptr, h []header) (int, syscall.Errno) {
				if len(faults) == 0 {
					return sendmmsg(fd, h)
				}
				f := faults[0]
				faults = faults[1:]
				if f.n > 0 {
					return sendmmsg(fd, h[:f.n])
				}
				if f.errno == unix.EAGAIN { // there is room once this is delivered
					if err := unix.Sendto(int(fd), nil, 0, nowhere); err != nil {
						t.Error(err)
					}
				}
				return 0, f.errno
			}
			b := s.NewBatch()
			for i, to := range addrs {
				for k := range 4 {
					copy(b.Next(to, 100), fmt.Sprint(i, k))
					b.Commit(100)
				}
			}
			sent, err := b.Flush()
			if sent != c.sent || err != c.err {
				t.Errorf("sent %d, %v; want %d, %v", sent, err, c.sent, c.err)
			}
			got := s.Counters()
			for reason, n := range got.Refused {
				if want := int64(all - c.sent); reason == c.refused && n != want || reason != c.refused && n != 0 {
					t.Errorf("%d datagrams refused by %s, want %d by %q", n, reason, want, c.refused)
				}
			}
			if got.Unsegmented != c.unsegmented || got.PacketsOut != int64(c.sent) || got.Sends.Datagrams != int64(c.sent) {
				t.Errorf("counted %+v", got)
			}
			if waits := slices.Contains(c.faults, kernelFault{errno: unix.EAGAIN}); waits != (got.Waits == 1) {
				t.Errorf("waited %d times", got.Waits)
			}
			arrived := 0
			for i, conn := range conns {
				for k := range 4 {
					if c.sent < all && i == max(0, c.faults[0].n) {
						continue // the refused message
					}
					if d := arrive(t, conn); len(d) != 100 || string(d[:3]) != fmt.Sprint(i, " ", k)[:3] {
						t.Errorf("peer %d got %q as its %d", i, d[:3], k)
					}
					arrived++
				}
			}
			if arrived != c.sent {
				t.Errorf("%d arrived of %d", arrived, c.sent)
			}
		})
	}
}

// After the kernel said that it cannot divide messages on some way, it is not
// asked again for a while.
func TestBatchRestsFromSegments(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, addrs := peers(t, "127.0.0.1", 1)
	var sizes []int // messages of each call
	s.wire.batches, s.wire.segments = true, true
	s.wire.sendmmsg = func(_ uintptr, h []header) (int, syscall.Errno) {
		sizes = append(sizes, len(h))
		if len(sizes) == 1 {
			return 0, unix.EIO
		}
		return len(h), 0
	}
	b := s.NewBatch()
	send := func() {
		for range 3 {
			b.Next(addrs[0], 100)
			b.Commit(100)
		}
		if n, err := b.Flush(); n != 3 || err != nil {
			t.Errorf("sent %d, %v", n, err)
		}
	}
	send()
	send()
	b.headers.unsegmented = time.Now().Add(-1) // the time is over
	send()
	if want := []int{1, 3, 1}; !slices.Equal(sizes, want) {
		t.Errorf("calls with %v messages, want %v", sizes, want)
	}
}

// A batch that waits for room ends with the write deadline, and with Close.
func TestBatchStopsWaiting(t *testing.T) {
	for what, end := range map[string]struct {
		stop func(*Socket)
		err  error
	}{
		"deadline": {func(s *Socket) { _ = s.SetWriteDeadline(time.Now().Add(-1)) }, os.ErrDeadlineExceeded},
		"closed":   {func(s *Socket) { _ = s.Close() }, net.ErrClosed},
	} {
		s, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, addrs := peers(t, "127.0.0.1", 1)
		full := make(chan struct{}, 100)
		s.wire.batches = true
		s.wire.sendmmsg = func(uintptr, []header) (int, syscall.Errno) {
			full <- struct{}{}
			return 0, unix.EAGAIN
		}
		go func() {
			<-full
			end.stop(s)
		}()
		b := s.NewBatch()
		b.Next(addrs[0], 100)
		b.Commit(100)
		if n, err := b.Flush(); n != 0 || err == nil {
			t.Errorf("%s: sent %d, %v", what, n, err)
		}
		if n := s.Counters().Refused[what]; n != 1 {
			t.Errorf("%s: %d datagrams counted, of %v", what, n, s.Counters().Refused)
		}
		_ = s.Close()
	}
}

// A gone local address is no reason not to send; an address of the wrong family
// is one.
func TestBatchSendsFromElsewhere(t *testing.T) {
	for _, path := range sendPaths {
		s, err := Listen("0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		path.set(&s.wire.sendPath)
		conns, addrs := peers(t, "127.0.0.1", 1)
		control := sendFrom(netip.MustParseAddr("192.0.2.1")) // not here
		s.filter.bySource[endpointOf(addrs[0])] = &route{peer: s.filter.newPeer(), control: control}
		b := s.NewBatch()
		for range 3 {
			b.Next(addrs[0], 100)
			b.Commit(100)
		}
		if n, err := b.Flush(); n != 3 || err != nil {
			t.Errorf("%s: sent %d, %v", path.name, n, err)
		}
		for range 3 {
			arrive(t, conns[0])
		}
		_ = s.Close()

		if s, err = Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		path.set(&s.wire.sendPath)
		b = s.NewBatch()
		for _, to := range []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:9"), addrs[0], netip.MustParseAddrPort("[fe80::1%lo]:9"), {}} {
			b.Next(to, 100)
			b.Commit(100)
		}
		if n, err := b.Flush(); n != 1 || err == nil {
			t.Errorf("%s: sent %d, %v", path.name, n, err)
		}
		if n := s.Counters().Refused["other"]; n != 3 {
			t.Errorf("%s: %d datagrams are refused", path.name, n)
		}
		_ = s.Close()
	}
}

// Batches allocate nothing once they are made.
func TestBatchDoesNotAllocate(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		for _, path := range sendPaths {
			s, err := Listen(bind)
			if err != nil {
				t.Fatal(err)
			}
			path.set(&s.wire.sendPath)
			_, addrs := peers(t, "127.0.0.1", 3)
			b := s.NewBatch()
			if n := testing.AllocsPerRun(100, func() { fill(b, addrs, 4) }); n != 0 {
				t.Errorf("%s, %s: %v allocations for a batch", bind, path.name, n)
			}
			_ = s.Close()
		}
	}
}

// BenchmarkBatch measures the CPU time of the process for a datagram, the
// kernel's part included, and how many leave in a message. The peers' sockets
// are full, so that receiving costs little.
func BenchmarkBatch(b *testing.B) {
	for _, path := range sendPaths {
		for _, peerCount := range []int{1, 10, 100} {
			for _, packets := range []int{1, 2, 4, 9} {
				b.Run(fmt.Sprintf("%s/peers=%d/packets=%d", path.name, peerCount, packets), func(b *testing.B) {
					s, err := Listen("127.0.0.1:0")
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					path.set(&s.wire.sendPath)
					conns, addrs := peers(b, "127.0.0.1", peerCount)
					for _, c := range conns {
						_ = c.SetReadBuffer(1)
						raw, err := c.SyscallConn()
						if err != nil {
							b.Fatal(err)
						}
						_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
					}
					batch := s.NewBatch()
					b.ReportAllocs()
					began, sent := cpu(b), 0
					for b.Loop() {
						sent += fill(batch, addrs, packets)
					}
					c := s.Counters().Sends
					b.ReportMetric(float64(cpu(b)-began)/float64(sent), "cpu-ns/datagram")
					b.ReportMetric(float64(c.Datagrams)/float64(c.Messages), "datagrams/message")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

// BenchmarkBatchesTogether measures whether the senders of one socket slow each
// other: the CPU time for a datagram should not depend on their number.
func BenchmarkBatchesTogether(b *testing.B) {
	for _, senders := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
			s, err := Listen("127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			began := cpu(b)
			var all sync.WaitGroup
			for range senders {
				_, addrs := peers(b, "127.0.0.1", 20)
				all.Go(func() {
					batch := s.NewBatch()
					for range b.N {
						fill(batch, addrs, 9)
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(cpu(b)-began)/float64(s.Counters().Sends.Datagrams), "cpu-ns/datagram")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu returns the CPU time of this process.
func cpu(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
