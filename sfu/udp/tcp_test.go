package udp

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// patience bounds a test's wait for an event that should take milliseconds.
const patience = 30 * time.Second

// If the port of UDP is taken for TCP, another one is used.
func TestTCPPortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := Listen(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if port, err := s.TCP(); err != nil || port == 0 || port == s.LocalAddr().(*net.UDPAddr).Port {
		t.Errorf("TCP has port %d, %v, UDP %v", port, err, s.LocalAddr())
	}
}

// eventually waits for ok to hold.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Connections of no peer are bounded, and closed after TCPFirst; a malformed
// message closes a connection.
func TestTCPConnectionsAreBounded(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { // as pion's mux does; ends with the socket
		for {
			c, err := s.TCPListener().Accept()
			if err != nil {
				return
			}
			readers.Go(func() { _, _ = io.Copy(io.Discard, c) })
		}
	})
	t.Cleanup(func() {
		_ = s.Close()
		readers.Wait()
	})
	port, err := s.TCP()
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closed := func(what string, c net.Conn, within time.Duration) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(within))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("%s: the connection is open after %v: %v", what, within, err)
		}
	}
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	for what, b := range map[string][]byte{
		"a check for nobody":      framed(request(t, "nobody:x", "pwd")),
		"DTLS first":              framed(record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...)),
		"RTP first":               framed(append([]byte{0x80, 96}, make([]byte, 50)...)),
		"an answer first":         framed(stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw),
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a message of 64 kB":      {0xff, 0xff, 0},
		"nothing":                 {0, 0},
		"a check cut in its head": framed(request(t, "nobody:x", "pwd")[:18]),
	} {
		c := dial()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		closed(what, c, patience)
	}
	eventually(t, "all are gone", func() bool { return s.Counters().Connections == 0 })
	var idle []net.Conn
	for range tcpPerAddress + 20 {
		idle = append(idle, dial())
	}
	for _, c := range idle[tcpPerAddress:] {
		closed("one too many from an address", c, patience)
	}
	if c := s.Counters(); c.Connections > tcpPerAddress || c.Dropped["tcp_connections"] != 20 {
		t.Errorf("%d connections are open, %d were refused", c.Connections, c.Dropped["tcp_connections"])
	}
	for _, c := range idle[:tcpPerAddress] {
		closed("a connection that says nothing", c, patience)
	}
	eventually(t, "those that said nothing are gone", func() bool { return s.Counters().Connections == 0 })
	s.NewPeer().Expect("a", "pwd", time.Now())
	c := dial()
	before := s.Counters().BytesIn
	if _, err := c.Write(framed(request(t, "a:b", "pwd"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a check is taken afterwards", func() bool { return s.Counters().BytesIn > before })
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("a connection with a valid check is closed: %v", err)
	}
}

// A connection belongs to no peer until its first check, and frees its place
// when it closes.
func TestTCPConnectionHasAPlace(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := &Socket{filter: newFilter()}
	s.filter.newPeer().Expect("a", "pwd", time.Now())
	l := &tcpMedia{socket: s, conns: map[*mediaConn]struct{}{}, from: map[netip.Prefix]int{}}
	c := l.take(tcpAddressed{a})
	check := request(t, "a:b", "pwd")
	go func() {
		_, _ = b.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(check))), check...))
	}()
	got := make([]byte, 2+len(check))
	if _, err := io.ReadFull(c, got); err != nil || string(got[2:]) != string(check) {
		t.Fatalf("read %x, %v", got, err)
	}
	if l.pending != 0 || !c.known {
		t.Errorf("%d pending, known %v", l.pending, c.known)
	}
	// DTLS is filtered over TCP, too.
	for _, k := range killers {
		if got := s.filter.admit(append([]byte(nil), k...), c.from, netip.Addr{}); got != 0 {
			t.Errorf("%x passes", k)
		}
	}
	_ = c.Close()
	if len(l.conns) != 0 || len(l.from) != 0 || l.pending != 0 {
		t.Errorf("after Close: %d connections, %d addresses, %d pending", len(l.conns), len(l.from), l.pending)
	}
}

// tcpAddressed is a pipe that looks like a TCP connection.
type tcpAddressed struct{ net.Conn }

func (tcpAddressed) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234}
}
