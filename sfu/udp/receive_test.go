package udp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// receivePaths are the ways in which datagrams are read.
var receivePaths = []struct {
	name string
	set  func(*wire)
}{
	{"plain", func(w *wire) { w.coalesces = coalesce(w.raw, false); w.gathers = false }},
	{"recvmmsg", func(w *wire) { w.coalesces = coalesce(w.raw, false) }},
	{"joined", func(*wire) {}},
}

// listenOn binds a socket that reads by a path, and returns its address on ip.
func listenOn(t testing.TB, bind, ip string, path func(*wire)) (*Socket, netip.AddrPort) {
	t.Helper()
	s, err := Listen(bind)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	path(s.wire)
	return s, netip.AddrPortFrom(netip.MustParseAddr(ip), s.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// What peers send is read datagram by datagram, each whole, in order, and from
// the address it came from, on every path.
func TestSocketReads(t *testing.T) {
	for _, c := range []struct{ name, bind, to string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 at all addresses", "0.0.0.0:0", "127.0.0.1"},
		{"IPv6 at all addresses", "[::]:0", "::1"},
	} {
		for _, path := range receivePaths {
			t.Run(c.name+"/"+path.name, func(t *testing.T) {
				s, own := listenOn(t, c.bind, c.to, path.set)
				socketReads(t, s, own)
			})
		}
	}
}

func socketReads(t *testing.T, s *Socket, own netip.AddrPort) {
	var from [3]*Batch
	var addrs [3]netip.AddrPort
	for i := range from {
		peer, addr := listenOn(t, netip.AddrPortFrom(own.Addr(), 0).String(), own.Addr().String(), func(*wire) {})
		from[i], addrs[i] = peer.NewBatch(), addr
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	_ = s.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1500)
	read := int64(0)
	for round := range 20 {
		want := map[netip.AddrPort][][]byte{}
		total := 0
		for i, b := range from {
			for range rnd.IntN(12) {
				size := []int{1200, 1200, 1200, 1199, 80, 1, 1400}[rnd.IntN(7)]
				d := b.Next(own, size)
				for k := range d {
					d[k] = byte(rnd.Uint32())
				}
				d[0] = 0x80 // RTP: admitted
				b.Commit(size)
				want[addrs[i]] = append(want[addrs[i]], bytes.Clone(d))
				total++
			}
			if _, err := b.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		for range total {
			n, far, err := s.ReadFromAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			far = netip.AddrPortFrom(far.Addr().Unmap(), far.Port())
			if len(want[far]) == 0 || !bytes.Equal(buf[:n], want[far][0]) {
				t.Fatalf("round %d: %d bytes from %v, of which %d datagrams are due", round, n, far, len(want[far]))
			}
			want[far] = want[far][1:]
			read++
		}
	}
	c := s.Counters()
	if c.PacketsIn != read || c.Reads.Datagrams != read || c.Reads.Messages > read || c.Reads.Calls > c.Reads.Messages {
		t.Errorf("of %d datagrams, counted were %d: %+v", read, c.PacketsIn, c.Reads)
	}
	joined, gathered := c.Reads.Messages < read, c.Reads.Calls < c.Reads.Messages
	if joined != s.wire.coalesces || gathered != s.wire.gathers {
		t.Errorf("the kernel joins %v, gathers %v; %d datagrams were read as %+v", s.wire.coalesces, s.wire.gathers, read, c.Reads)
	}
}

// What does not fit the reader's buffer is cut, as by net.UDPConn; an empty
// datagram is dropped.
func TestSocketCuts(t *testing.T) {
	for _, path := range receivePaths {
		s, own := listenOn(t, "127.0.0.1:0", "127.0.0.1", path.set)
		conns, _ := peers(t, "127.0.0.1", 1)
		for _, d := range [][]byte{{}, append([]byte{0x80}, make([]byte, 3000)...), {0x80, 1}} {
			if _, err := conns[0].WriteToUDPAddrPort(d, own); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 1500)
		for _, want := range []int{1500, 2} {
			if n, _, err := s.ReadFromAddrPort(buf); n != want || err != nil {
				t.Errorf("%s: read %d bytes, %v; want %d", path.name, n, err, want)
			}
		}
		if c := s.Counters(); c.PacketsIn != 3 || c.BytesIn != 1502 || c.Dropped["protocol"] != 1 {
			t.Errorf("%s: counted %+v", path.name, c)
		}
	}
}

// Reads end with the deadline and with Close, after which nothing more comes,
// though it was read.
func TestReadsEnd(t *testing.T) {
	for _, path := range receivePaths {
		s, own := listenOn(t, "127.0.0.1:0", "127.0.0.1", path.set)
		buf := make([]byte, 1500)
		_ = s.SetReadDeadline(time.Now().Add(-1))
		if _, _, err := s.ReadFromAddrPort(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: after the deadline, a read ends with %v", path.name, err)
		}
		_ = s.SetReadDeadline(time.Now().Add(patience))
		peer, _ := listenOn(t, "127.0.0.1:0", "127.0.0.1", func(*wire) {})
		fill(peer.NewBatch(), []netip.AddrPort{own}, 9)
		fill(peer.NewBatch(), []netip.AddrPort{own}, 9)
		s.Lose = func(b []byte, _ netip.AddrPort) bool { b[0] = 0x80; return false } // RTP: admitted
		if n, _, err := s.ReadFromAddrPort(buf); n != 1200 || err != nil {
			t.Errorf("%s: read %d bytes, %v", path.name, n, err)
		}
		_ = s.Close()
		if _, _, err := s.ReadFromAddrPort(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: after Close, a read ends with %v", path.name, err)
		}
	}
}
