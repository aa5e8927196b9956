package sfu

import (
	"context"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/capacity/ledger"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/whip"
)

// forge sends datagram to the node from an address of this machine that belongs
// to another socket.
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

// killers end a session of pion/dtls v3.1.15 if they reach it.
var killers = [][]byte{
	{23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 3, 0, 0, 0},
	{24, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 1, 0},
	{25, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 1, 0},
	{63, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 1, 0},
	{20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 2, 0, 0},
	{21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 1, 0, 2, 2, 40},
	{20, 0xfe, 0xfd, 0, 1, 0, 0, 0, 9, 9, 1, 0, 2, 0, 0},
}

// sources records the source addresses of a node's datagrams.
type sources struct {
	mu  sync.Mutex
	all map[netip.AddrPort]bool
}

// watch makes s record the datagrams of the socket of cfg.
func (s *sources) watch(cfg *Config) {
	cfg.Socket.Lose = func(_ []byte, from netip.AddrPort) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all[from] = true
		return false
	}
}

func (s *sources) list() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.all))
}

// Forged datagrams from a peer's address end neither a session nor a link.
func TestForgedRecordsEndNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	atA, atB := &sources{all: map[netip.AddrPort]bool{}}, &sources{all: map[netip.AddrPort]bool{}}
	a, b := m.add(ledger.Limits{}, atA.watch), m.add(ledger.Limits{}, atB.watch)
	a.publish("demo")
	near, far := a.watch("demo"), b.watch("demo")
	forged := 0
	for n, seen := range map[*meshNode]*sources{a: atA, b: atB} {
		for _, from := range seen.list() {
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

// A session whose client sends no checks ends, whatever else arrives from the
// client's address.
func TestJunkIsNoConsent(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var silent atomic.Bool
	n := m.add(ledger.Limits{}, func(c *Config) {
		c.Socket.Lose = func(d []byte, _ netip.AddrPort) bool { return silent.Load() && d[0] < 4 } // STUN, RFC 7983
	})
	spy := &spy{Media: media{n.SFU}}
	n.SFU.clients = n.newClients(spy)
	n.web.Config.Handler = n.Clients().Handler()
	n.publish("demo")
	v := n.watch("demo")
	spy.mu.Lock()
	defer spy.mu.Unlock()
	if len(spy.made) != 2 {
		t.Fatalf("%d transports, want a publisher's and a viewer's", len(spy.made))
	}
	for i, s := range spy.made {
		d, ok := s.Silence(time.Now())
		if !ok || d > 10*time.Second {
			t.Errorf("a live client, %d, was checked %v ago, %v", i, d, ok)
		}
	}
	silent.Store(true)
	began := time.Now()
	flows(t, v, 60) // the publisher's RTP and the viewer's RTCP come all the time
	for i, s := range spy.made {
		if d, _ := s.Silence(time.Now()); d < time.Since(began)-100*time.Millisecond {
			t.Errorf("RTP or RTCP was consent for client %d: it was checked %v ago, and none came for %v", i, d, time.Since(began))
		}
	}
}

// A spy records the transports made.
type spy struct {
	whip.Media
	mu   sync.Mutex
	made []whip.Transport
}

func (s *spy) keep(t whip.Transport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, t)
}

func (s *spy) Publish(ctx context.Context, o *sdp.Offer, tell func(Event)) (whip.Publisher, []*forward.Track, string, error) {
	p, tracks, answer, err := s.Media.Publish(ctx, o, tell)
	s.keep(p)
	return p, tracks, answer, err
}

func (s *spy) View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (whip.Viewer, string, error) {
	v, answer, err := s.Media.View(ctx, st, o, begun)
	s.keep(v)
	return v, answer, err
}
