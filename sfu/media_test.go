package sfu

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"weir/capacity/ledger"
	"weir/sfu/client"
	"weir/sfu/sdp/sdptest"
	"weir/sfu/udp"
)

// tcpPair connects a publisher and a viewer to the node by TCP only.
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

// Clients whose UDP is blocked publish and view over TCP, at a node bound to
// one address or to all, or behind a public address; and the traffic is
// counted.
func TestMediaOverTCP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, bind, public string }{
		{"one address", "127.0.0.1:0", ""},
		{"all addresses", "0.0.0.0:0", ""},
		{"all, reached at one", "0.0.0.0:0", "127.0.0.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			n := m.add(ledger.Limits{}, func(cfg *Config) {
				_ = cfg.Socket.Close()
				socket, err := udp.Listen(c.bind)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Socket = socket
				if c.public != "" {
					cfg.PublicIP = netip.MustParseAddr(c.public)
				}
				socket.Lose = func([]byte, netip.AddrPort) bool { return true } // UDP
			})
			v := tcpPair(t, n, "demo")
			flows(t, v, 30)
			counted := n.cfg.Socket.Counters()
			if counted.Connections == 0 || counted.BytesIn < 10_000 || counted.BytesOut < 10_000 || counted.PacketsOut < 30 {
				t.Errorf("counted %+v", counted)
			}
		})
	}
}

// The TCP candidate is passive, comes after the UDP ones with a lower priority,
// and is only in answers to clients.
func TestTCPCandidate(t *testing.T) {
	m := newMesh(t)
	n := m.add(ledger.Limits{}, nil)
	resp, err := http.Post(n.web.URL+"/whip/demo", "application/sdp", strings.NewReader(sdptest.Offer(sdptest.Video("0", "sendonly"))))
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
			// That of UDP, unless another process listens there.
			if port, _ := n.cfg.Socket.TCP(); f[5] != strconv.Itoa(port) {
				t.Errorf("%s: TCP has port %d", line, port)
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

// Clients and links that can use only one of a node's addresses are served
// there.
func TestMediaFromOneAddressOfAll(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	behind := func(ip string) func(*Config) {
		return func(cfg *Config) {
			_ = cfg.Socket.Close()
			socket, err := udp.Listen("0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			cfg.Socket, cfg.PublicIP = socket, netip.MustParseAddr(ip)
		}
	}
	a, b := m.add(ledger.Limits{}, behind("127.0.0.5")), m.add(ledger.Limits{}, behind("127.0.0.6"))
	a.publish("demo")
	flows(t, a.watch("demo"), 10)
	flows(t, b.watch("demo"), 10)
}
