package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Datagrams that no peer can have sent are dropped and counted; the rest
// passes.
func TestSocketDropsForgeries(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	peer, err := net.Dial("udp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	good := []byte{0x80, 96, 1, 2, 3}
	for _, d := range [][]byte{record(dtlsAlert, 0, 2, 40), record(dtlsApplicationData, 0, 0, 0, 0, 0), good} {
		if _, err := peer.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	n, _, err := s.ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], good) {
		t.Errorf("read %x, %v; want the RTP packet", buf[:n], err)
	}
	if c := s.Counters(); c.Dropped["unknown_source"] != 2 || c.PacketsIn != 3 {
		t.Errorf("counted %+v, want 2 dropped of 3", c)
	}
}

func TestListenMediaSaysWhatIsWrong(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Listen(s.LocalAddr().String()); err == nil || !strings.Contains(err.Error(), "in use") || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a busy port: %v", err)
	}
	if _, err := Listen("nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no address: %v", err)
	}
}

// A socket that is bound to every address answers from the address that was
// used, and sends media from there too.
func TestSocketAnswersFromWhereItWasAsked(t *testing.T) {
	for _, path := range receivePaths {
		t.Run(path.name, func(t *testing.T) {
			s, _ := listenOn(t, "0.0.0.0:0", "127.0.0.1", path.set)
			answersFromWhereItWasAsked(t, s)
		})
	}
}

func answersFromWhereItWasAsked(t *testing.T, s *Socket) {
	s.filter.newPeer().Expect("a", "pwd", time.Now())
	for _, asked := range []string{"127.0.0.5", "127.0.0.1", "::1"} {
		// A connected socket only accepts datagrams from the address that it
		// sends to.
		peer, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(asked), Port: s.LocalAddr().(*net.UDPAddr).Port})
		if err != nil {
			t.Logf("%s: %v", asked, err) // for example a machine without IPv6
			continue
		}
		defer peer.Close()
		check := request(t, "a:b", "pwd")
		if _, err := peer.Write(check); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		n, from, err := s.ReadFromAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		answer := buf[:n]
		answer[0], answer[1] = 1, 1
		for what, b := range map[string][]byte{"the answer": answer, "media": {0x80, 96, 0, 1}} {
			if _, err := s.WriteToAddrPort(b, from); err != nil {
				t.Fatal(err)
			}
			_ = peer.SetReadDeadline(time.Now().Add(patience))
			got := make([]byte, 1500)
			if n, err := peer.Read(got); err != nil || !bytes.Equal(got[:n], b) {
				t.Errorf("%s of who asked %s: %x, %v", what, asked, got[:n], err)
			}
		}
		batch := s.NewBatch()
		for _, path := range sendPaths {
			s.wire.sendPath = newSendPath(s.wire.raw)
			path.set(&s.wire.sendPath)
			for range 2 {
				batch.Commit(copy(batch.Next(from, 100), path.name))
			}
			if n, err := batch.Flush(); n != 2 || err != nil {
				t.Errorf("%s: %d are sent, %v", path.name, n, err)
			}
			for range 2 {
				if got := arrive(t, peer); string(got) != path.name {
					t.Errorf("%s to who asked %s: %q", path.name, asked, got)
				}
			}
		}
	}
}

// Close ends a pending read, and may be called more than once.
func TestSocketCloses(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		s, err := Listen(bind)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, _, err := s.ReadFromAddrPort(make([]byte, 1500))
			read <- err
		}()
		for range 2 {
			_ = s.Close()
		}
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: reading ends with %v", bind, err)
		}
		if _, _, err := s.ReadFromAddrPort(make([]byte, 1500)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: reading of a closed socket ends with %v", bind, err)
		}
	}
}

// Reads and writes allocate nothing, whatever address the socket is bound to.
func TestSocketDoesNotAllocate(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		pass, done := passing(t, bind)
		if n := testing.AllocsPerRun(500, pass); n != 0 {
			t.Errorf("%s: %v allocations for a packet that comes and one that goes", bind, n)
		}
		done()
	}
}

// passing returns a function that sends one RTP packet to a socket and another
// from it, to and from a peer with admitted checks.
func passing(t testing.TB, bind string) (pass, done func()) {
	t.Helper()
	s, err := Listen(bind)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	own := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	s.filter.newPeer().Expect("a", "pwd", time.Now())
	buf := make([]byte, 1500)
	if _, err := peer.WriteToUDPAddrPort(request(t, "a:b", "pwd"), own); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ReadFromAddrPort(buf); err != nil {
		t.Fatal(err)
	}
	packet := append([]byte{0x80, 96}, make([]byte, 1100)...)
	got := make([]byte, 1500)
	return func() {
			_, err := peer.WriteToUDPAddrPort(packet, own)
			if err != nil {
				t.Fatal(err)
			}
			n, from, err := s.ReadFromAddrPort(buf)
			if err != nil || n != len(packet) {
				t.Fatal(n, err)
			}
			if _, err := s.WriteToAddrPort(buf[:n], from); err != nil {
				t.Fatal(err)
			}
			if n, _, err := peer.ReadFromUDPAddrPort(got); err != nil || n != len(packet) {
				t.Fatal(n, err)
			}
		}, func() {
			_ = s.Close()
			_ = peer.Close()
		}
}

func BenchmarkSocket(b *testing.B) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		b.Run(bind, func(b *testing.B) {
			pass, done := passing(b, bind)
			defer done()
			b.ReportAllocs()
			for b.Loop() {
				pass()
			}
		})
	}
}

// Datagrams that the kernel drops are counted.
func TestKernelDropsAreSeen(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Counters().Overflowed; got != 0 {
		t.Fatalf("%d datagrams dropped of none", got)
	}
	if err := s.wire.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	out, err := net.DialUDP("udp", nil, s.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const sent = 100
	for range sent {
		if _, err := out.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	got := s.Counters().Overflowed
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("only Linux tells, and it is asked on amd64 and arm64 only")
	}
	if got <= 0 || got >= sent {
		t.Errorf("%d of %d datagrams dropped, that nobody read", got, sent)
	}
}
