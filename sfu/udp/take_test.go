package udp

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Of a peer whose datagrams are taken, pion is given the RTP that is left, and
// everything that is not RTP; of other peers and of strangers, all.
func TestPeerTakes(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conns, _ := peers(t, "127.0.0.1", 3) // the peer, another, and a stranger
	own := s.LocalAddr().(*net.UDPAddr).AddrPort()
	send := func(from int, b []byte) {
		t.Helper()
		if _, err := conns[from].WriteToUDPAddrPort(b, own); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	read := func() []byte {
		t.Helper()
		_ = s.SetReadDeadline(time.Now().Add(patience))
		n, _, err := s.ReadFromAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	p, other := s.NewPeer(), s.NewPeer()
	now := time.Now()
	p.Expect("a", "pwd", now)
	other.Expect("b", "pwd", now)
	var taken []byte // second bytes
	p.Take(func(d []byte, at time.Time) bool {
		if at.Before(now) || at.After(time.Now()) {
			t.Errorf("read at %v", at)
		}
		taken = append(taken, d[1])
		if d[1] == 99 {
			return false
		}
		clear(d) // as if it were decrypted
		return true
	})
	for i, user := range []string{"a:x", "b:x"} {
		check := request(t, user, "pwd")
		send(i, check)
		if !bytes.Equal(read(), check) {
			t.Fatalf("the check of %s is not passed on", user)
		}
	}
	rtp := func(second byte) []byte { return []byte{0x80, second, 0, 1} }
	for _, c := range []struct {
		name string
		from int
		b    []byte
		want []byte // what Take is offered
	}{
		{"RTP of the peer", 0, rtp(96), []byte{96}},
		{"RTCP of the peer", 0, rtp(200), []byte{200}},
		{"RTP that is left", 0, rtp(99), []byte{99}},
		{"DTLS of the peer", 0, record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...), nil},
		{"RTP of another peer", 1, rtp(96), nil},
		{"RTP of a stranger", 2, rtp(96), nil},
	} {
		taken = nil
		send(c.from, c.b)
		mark := []byte{0x80, 1, byte(c.from)} // from a stranger: passed on
		send(2, mark)
		got := bytes.Clone(read())
		passed := !bytes.Equal(got, mark)
		if passed {
			read()
		}
		wantPassed := c.want == nil || c.b[1] == 99
		if !slices.Equal(taken, c.want) || passed != wantPassed || passed && !bytes.Equal(got, c.b) {
			t.Errorf("%s: taken %v, passed on %v (%x); want %v, %v", c.name, taken, passed, got, c.want, wantPassed)
		}
	}
	taken = nil
	for what, end := range map[string]func(){"nil": func() { p.Take(nil) }, "Close": p.Close} {
		p.Take(func(d []byte, _ time.Time) bool { taken = append(taken, d[1]); return true })
		end()
		send(0, rtp(96))
		if got := read(); !bytes.Equal(got, rtp(96)) || taken != nil {
			t.Errorf("after %s: %x is passed on, taken %v", what, got, taken)
		}
	}
}

// RTP over TCP is taken on the connection's goroutine.
func TestPeerTakesOverTCP(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := &Socket{filter: newFilter()}
	p := s.filter.newPeer()
	p.Expect("a", "pwd", time.Now())
	taken := make(chan []byte, 1)
	p.Take(func(d []byte, _ time.Time) bool {
		if d[1] == 99 {
			return false
		}
		taken <- bytes.Clone(d)
		return true
	})
	l := &tcpMedia{socket: s, conns: map[*mediaConn]struct{}{}, from: map[netip.Prefix]int{}}
	c := l.take(tcpAddressed{a})
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	check, rtp, left := request(t, "a:b", "pwd"), []byte{0x80, 96, 0, 1}, []byte{0x80, 99, 0, 1}
	go func() { _, _ = b.Write(slices.Concat(framed(check), framed(rtp), framed(left))) }()
	want := slices.Concat(framed(check), framed(left))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x is passed on, %v", got, err)
	}
	select {
	case d := <-taken:
		if !bytes.Equal(d, rtp) {
			t.Errorf("taken %x", d)
		}
	default:
		t.Error("nothing is taken")
	}
	_ = c.Close()
}

// Take may change, and its peer close, while datagrams come.
func TestPeerTakesWhileItChanges(t *testing.T) {
	g := newFilter()
	p := g.newPeer()
	p.Expect("a", "pwd", time.Now())
	g.admit(request(t, "a:b", "pwd"), at(0), netip.Addr{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			g.taken([]byte{0x80, byte(i)}, at(0), time.Time{})
		}
	}()
	for i := range 100 {
		p.Take(func([]byte, time.Time) bool { return i%2 == 0 })
	}
	p.Close()
	<-done
	if g.taken([]byte{0x80, 96}, at(0), time.Time{}) {
		t.Error("taken after Close")
	}
}
