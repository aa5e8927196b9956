package sfu

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"weir/capacity"
)

// forge sends datagram to the node as if it came from an address of this machine that
// is somebody else's.
func forge(t *testing.T, n *meshNode, from netip.AddrPort, datagram []byte) {
	t.Helper()
	raw, err := net.DialIP("ip4:udp", &net.IPAddr{IP: from.Addr().AsSlice()}, &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skipf("forging a source address takes raw sockets: %v", err)
	}
	defer raw.Close()
	to := n.cfg.Socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	header := binary.BigEndian.AppendUint16(nil, from.Port())
	header = binary.BigEndian.AppendUint16(header, to)
	header = binary.BigEndian.AppendUint32(header, uint32(8+len(datagram))<<16) // no checksum
	if _, err := raw.Write(append(header, datagram...)); err != nil {
		t.Fatal(err)
	}
}

// peers are the addresses that sessions and links of the node come from.
func (n *meshNode) peers() []netip.AddrPort {
	g := n.cfg.Socket.gate
	g.mu.RLock()
	defer g.mu.RUnlock()
	var all []netip.AddrPort
	for from := range g.bySource {
		all = append(all, from.AddrPort)
	}
	return all
}

// Nobody ends a session or a link by what is sent in the name of its peer.
func TestForgedRecordsEndNothing(t *testing.T) {
	m := newMesh(t)
	a, b := m.add(capacity.Limits{}, nil), m.add(capacity.Limits{}, nil)
	a.publish("demo")
	near, far := a.watch("demo"), b.watch("demo")
	forged := 0
	for _, n := range []*meshNode{a, b} {
		for _, from := range n.peers() {
			for _, k := range killers {
				forge(t, n, from, k)
				forged++
			}
		}
	}
	if forged < 4*len(killers) {
		t.Fatalf("%d datagrams were forged: of a publisher, two viewers and a link", forged)
	}
	eventually(t, "the forged datagrams are dropped and counted", func() bool {
		dropped := int64(0)
		for _, n := range []*meshNode{a, b} {
			c := n.cfg.Socket.Counters().Dropped
			dropped += c["dtls_clear"] + c["dtls_malformed"] + c["dtls_type"]
		}
		return dropped == int64(forged)
	})
	flows(t, near, 20)
	flows(t, far, 20)
	if got := a.Counts(); got.Publishers != 1 || got.Viewers != 1 || got.Links != 1 {
		t.Errorf("left of a publisher, a viewer and a link: %+v", got)
	}
}

// A session whose client sends no checks ends, whatever else comes from the
// client's address.
func TestJunkIsNoConsent(t *testing.T) {
	m := newMesh(t)
	var silent atomic.Bool
	n := m.add(capacity.Limits{}, func(c *Config) {
		c.Socket.lose = func(d []byte) bool { return silent.Load() && isSTUN(d) }
	})
	n.publish("demo")
	v := n.watch("demo")
	n.SFU.mu.Lock()
	sessions := slices.Collect(maps.Values(n.sessions))
	n.SFU.mu.Unlock()
	if len(sessions) != 2 {
		t.Fatalf("%d sessions, want a publisher's and a viewer's", len(sessions))
	}
	for _, s := range sessions {
		d, ok := s.passage.silence(time.Now())
		if !ok || d > 10*time.Second {
			t.Errorf("a live %s was checked %v ago, %v", s.kind, d, ok)
		}
	}
	silent.Store(true)
	flows(t, v, 60) // the publisher's RTP and the viewer's RTCP come all the time
	now := time.Now()
	for _, s := range sessions {
		if !s.consents(now) {
			t.Errorf("a %s lost consent at once", s.kind)
		}
		if s.consents(now.Add(consentTimeout)) {
			t.Errorf("RTP or RTCP was consent for a %s", s.kind)
		}
	}
}
