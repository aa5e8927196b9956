package udp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sendPaths are the ways in which batches leave.
var sendPaths = []struct {
	name string
	set  func(*sendPath)
}{
	{"plain", func(p *sendPath) { p.batches = false }},
	{"sendmmsg", func(p *sendPath) { p.segments = false }},
	{"segments", func(*sendPath) {}},
}

// peers binds n sockets to ip, which the test closes, or skips the test where
// there is no such address.
func peers(t testing.TB, ip string, n int) (conns []*net.UDPConn, addrs []netip.AddrPort) {
	t.Helper()
	for range n {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
		if err != nil {
			t.Skipf("%s: %v", ip, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns, addrs = append(conns, c), append(addrs, c.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return conns, addrs
}

// arrive reads a datagram that has been sent.
func arrive(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("a datagram that was sent does not arrive: %v", err)
	}
	return b[:n]
}

// What a batch gathers arrives whole and in order, whatever the sizes, at every
// kind of address, on every path.
func TestBatchArrives(t *testing.T) {
	for _, c := range []struct{ name, bind, peer string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 from all addresses", "0.0.0.0:0", "127.0.0.1"},
		{"IPv6 from all addresses", "[::]:0", "::1"},
	} {
		for _, path := range sendPaths {
			t.Run(c.name+"/"+path.name, func(t *testing.T) {
				s, err := Listen(c.bind)
				if err != nil {
					t.Skip(err)
				}
				defer s.Close()
				path.set(&s.wire.sendPath)
				batchArrives(t, s, c.peer)
			})
		}
	}
}

func batchArrives(t *testing.T, s *Socket, ip string) {
	conns, addrs := peers(t, ip, 3)
	rnd := rand.New(rand.NewPCG(1, 2))
	b := s.NewBatch()
	for round := range 20 {
		var want [3][][]byte
		total := 0
		for i := range want {
			for range rnd.IntN(12) {
				size := []int{1200, 1200, 1200, 1199, 80, 1, 1400}[rnd.IntN(7)]
				d := b.Next(addrs[i], size+16)
				for k := range d {
					d[k] = byte(rnd.Uint32())
				}
				b.Commit(size)
				want[i] = append(want[i], bytes.Clone(d[:size]))
				total++
			}
		}
		if sent, err := b.Flush(); sent != total || err != nil {
			t.Fatalf("round %d: sent %d of %d, %v", round, sent, total, err)
		}
		for i := range want {
			for k, d := range want[i] {
				if got := arrive(t, conns[i]); !bytes.Equal(got, d) {
					t.Fatalf("round %d: datagram %d of peer %d has %d bytes, sent were %d", round, k, i, len(got), len(d))
				}
			}
		}
	}
	if n, err := b.Flush(); n != 0 || err != nil {
		t.Errorf("an empty batch sends %d, %v", n, err)
	}
}

// Next without Commit, or with nothing committed, sends nothing.
func TestBatchAbandons(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conns, addrs := peers(t, "127.0.0.1", 1)
	b := s.NewBatch()
	copy(b.Next(addrs[0], 100), "abandoned")
	copy(b.Next(addrs[0], 100), "abandoned, too")
	b.Commit(0)
	b.Commit(copy(b.Next(addrs[0], 100), "sent"))
	if n, err := b.Flush(); n != 1 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	if got := arrive(t, conns[0]); string(got) != "sent" {
		t.Errorf("%q arrives", got)
	}
}

// More than fits one send is sent nonetheless, and counted.
func TestBatchSendsWhenFull(t *testing.T) {
	for _, path := range sendPaths {
		s, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		path.set(&s.wire.sendPath)
		batchSendsWhenFull(t, s)
		_ = s.Close()
	}
}

func batchSendsWhenFull(t *testing.T, s *Socket) {
	_, addrs := peers(t, "127.0.0.1", 2)
	b := s.NewBatch()
	for i := range 3 * batchMessages {
		b.Next(addrs[i%2], 1000)
		b.Commit(1000)
	}
	for range 3 { // each more than a buffer holds beside it
		b.Next(addrs[0], batchBytes-10)
		b.Commit(60_000)
	}
	n, err := b.Flush()
	if n != 3*batchMessages+3 || err != nil {
		t.Errorf("sent %d of %d, %v", n, 3*batchMessages+3, err)
	}
	if c := s.Counters(); c.PacketsOut != int64(n) || c.BytesOut != int64(3*batchMessages*1000+3*60_000) {
		t.Errorf("counted %d datagrams, %d bytes", c.PacketsOut, c.BytesOut)
	}
	b.Next(addrs[0], 2*batchBytes) // more than UDP carries
	b.Commit(2 * batchBytes)
	b.Next(addrs[0], 10)
	b.Commit(10)
	if n, err := b.Flush(); n != 1 || err == nil {
		t.Errorf("beside a datagram of %d bytes, %d are sent, %v", 2*batchBytes, n, err)
	}
}

// A batch of a closed socket fails and does not hang.
func TestBatchOfClosedSocket(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, addrs := peers(t, "127.0.0.1", 1)
	b := s.NewBatch()
	for range 5 {
		b.Next(addrs[0], 100)
		b.Commit(100)
	}
	_ = s.Close()
	if n, err := b.Flush(); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket sends %d, %v", n, err)
	}
}

// Batches of several goroutines, single writes and Close of the socket may come
// together: what is sent is counted once, and all end.
func TestBatchesTogether(t *testing.T) {
	for _, path := range sendPaths {
		s, err := Listen("0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		path.set(&s.wire.sendPath)
		_, addrs := peers(t, "127.0.0.1", 3)
		var senders sync.WaitGroup
		var sent atomic.Int64
		begun := make(chan struct{}, 4)
		for i := range 3 {
			senders.Go(func() {
				b := s.NewBatch()
				for first := true; ; first = false {
					for range 5 {
						b.Next(addrs[i], 200)
						b.Commit(200)
					}
					n, err := b.Flush()
					sent.Add(int64(n))
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("%s: %v", path.name, err)
						}
						return
					}
					if first {
						begun <- struct{}{}
					}
				}
			})
		}
		senders.Go(func() {
			for first := true; ; first = false {
				if _, err := s.WriteToAddrPort([]byte{0x80, 96}, addrs[0]); err != nil {
					return
				}
				sent.Add(1)
				if first {
					begun <- struct{}{}
				}
			}
		})
		for range 4 {
			<-begun
		}
		_ = s.Close()
		senders.Wait()
		if c := s.Counters(); c.PacketsOut != sent.Load() || c.Refused["closed"] == 0 {
			t.Errorf("%s: %d are sent, counted %+v", path.name, sent.Load(), c)
		}
	}
}

// fill sends packets to each of to: a frame of video.
func fill(b *Batch, to []netip.AddrPort, packets int) int {
	for _, a := range to {
		for i := range packets {
			size := 1200
			if i > 0 && i == packets-1 {
				size = 700
			}
			b.Next(a, size)
			b.Commit(size)
		}
	}
	n, _ := b.Flush()
	return n
}
