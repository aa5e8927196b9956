package sfu

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"weir/capacity"
	"weir/sfu/client"
)

// tcpPair has a publisher and a viewer at the node that use TCP alone.
func tcpPair(t *testing.T, n *meshNode, stream string) *client.Viewer {
	t.Helper()
	p, err := client.Publish(t.Context(), client.PublishConfig{URL: n.web.URL + "/whip/" + stream, Media: client.Pattern(), TCP: true})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = p.Run(t.Context()) // ends with the session
	}()
	t.Cleanup(func() {
		_ = p.Close()
		<-ran
	})
	v, err := client.View(t.Context(), client.ViewConfig{URL: n.web.URL + "/whep/" + stream, TCP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// Clients whose UDP is blocked publish and view over TCP, at a node that is
// bound to one address, to all, or reached elsewhere; and it is counted.
func TestMediaOverTCP(t *testing.T) {
	for _, c := range []struct{ name, bind, public string }{
		{"one address", "127.0.0.1:0", ""},
		{"all addresses", "0.0.0.0:0", ""},
		{"all, reached at one", "0.0.0.0:0", "127.0.0.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			n := m.add(capacity.Limits{}, func(cfg *Config) {
				_ = cfg.Socket.Close()
				socket, err := ListenMedia(c.bind)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Socket = socket
				if c.public != "" {
					cfg.PublicIP = netip.MustParseAddr(c.public)
				}
				socket.lose = func([]byte) bool { return true } // UDP
			})
			v := tcpPair(t, n, "demo")
			flows(t, v, 30)
			counted := n.cfg.Socket.Counters()
			if counted.Connections == 0 || counted.BytesIn < 10_000 || counted.BytesOut < 10_000 || counted.PacketsOut < 30 {
				t.Errorf("counted %+v", counted)
			}
			// What is forged into the connection, a peer could do itself; that it ends
			// nothing shows that DTLS is screened there.
			n.cfg.Socket.tcp.mu.Lock()
			for conn := range n.cfg.Socket.tcp.conns {
				for _, k := range killers {
					if got := n.cfg.Socket.gate.admit(append([]byte(nil), k...), conn.from, netip.Addr{}); got != 0 {
						t.Errorf("%x passes", k)
					}
				}
			}
			n.cfg.Socket.tcp.mu.Unlock()
		})
	}
}

// The candidate over TCP is passive, comes after those over UDP with less
// priority, and stands in answers to clients only.
func TestTCPCandidate(t *testing.T) {
	m := newMesh(t)
	n := m.add(capacity.Limits{}, nil)
	resp, err := http.Post(n.web.URL+"/whip/demo", "application/sdp", strings.NewReader(offerOf(videoSection("0", "sendonly"))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	answer := string(body)
	tcp := 0
	var last uint32
	for line := range strings.Lines(answer) {
		f := strings.Fields(line)
		if !strings.HasPrefix(line, "a=candidate:") {
			continue
		}
		var priority uint32
		for _, d := range f[3] {
			priority = priority*10 + uint32(d-'0')
		}
		if strings.EqualFold(f[2], "tcp") {
			tcp++
			if !strings.Contains(line, " tcptype passive") || priority >= last {
				t.Errorf("%s after a priority of %d", line, last)
			}
			if port, _ := n.cfg.Socket.TCP(); f[5] != strings.TrimPrefix(n.cfg.Socket.LocalAddr().String(), "127.0.0.1:") || port == 0 {
				t.Errorf("%s: TCP has port %d, UDP %s", line, port, n.cfg.Socket.LocalAddr())
			}
		} else if tcp > 0 {
			t.Errorf("%s after one over TCP", line)
		}
		last = priority
	}
	if tcp != 1 {
		t.Errorf("%d candidates over TCP in\n%s", tcp, answer)
	}
}

// The port of UDP may be taken for TCP: another one is used.
func TestTCPPortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := ListenMedia(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if port, err := s.TCP(); err != nil || port == 0 || port == s.LocalAddr().(*net.UDPAddr).Port {
		t.Errorf("TCP has port %d, %v, UDP %v", port, err, s.LocalAddr())
	}
}

// Connections of nobody are bounded, and closed when they do not show soon
// whose they are; what is no message closes them.
func TestTCPConnectionsAreBounded(t *testing.T) {
	m := newMesh(t)
	n := m.add(capacity.Limits{}, nil)
	port, err := n.cfg.Socket.TCP()
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
	eventually(t, "all are gone", func() bool { return n.cfg.Socket.Counters().Connections == 0 })
	var idle []net.Conn
	for range tcpPerAddress + 20 {
		idle = append(idle, dial())
	}
	for _, c := range idle[tcpPerAddress:] {
		closed("one too many from an address", c, patience)
	}
	if c := n.cfg.Socket.Counters(); c.Connections > tcpPerAddress || c.Dropped["tcp_connections"] != 20 {
		t.Errorf("%d connections are open, %d were refused", c.Connections, c.Dropped["tcp_connections"])
	}
	for _, c := range idle[:tcpPerAddress] {
		closed("a connection that says nothing", c, patience)
	}
	eventually(t, "those that said nothing are gone", func() bool { return n.cfg.Socket.Counters().Connections == 0 })
	flows(t, tcpPair(t, n, "after"), 5)
}

// A connection is nobody's until its first check, and frees its place when it
// closes.
func TestTCPConnectionHasAPlace(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := &Socket{gate: newGate()}
	s.gate.open().credentials("a", "pwd", time.Now())
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
