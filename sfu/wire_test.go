package sfu

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weir/sfu/udp"
)

// A wire is a network in front of a node: a loopback address at which it is
// reached on its own port. What passes takes delay, and of the datagrams of
// those that are lossy a share is lost, each way.
type wire struct {
	outside *net.UDPConn
	node    netip.AddrPort
	delay   time.Duration
	loss    float64
	lossy   func(from netip.AddrPort) bool

	tasks sync.WaitGroup // readers, and the one that writes
	under chan datagram  // way, in order

	mu     sync.Mutex
	rnd    *rand.Rand
	inside map[netip.AddrPort]*net.UDPConn // by address outside
	closed bool
	lost   int
}

// A datagram is under way, to be written at a time.
type datagram struct {
	at    time.Time
	data  []byte
	write func([]byte)
}

// wired makes a node's configuration, which it edits, reached at address by the
// wire that is returned. Loss is by a generator with that seed.
func wired(t *testing.T, cfg *Config, address string, seed uint64) *wire {
	t.Helper()
	_ = cfg.Socket.Close()
	for { // until a port is free at both addresses
		socket, err := udp.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := socket.LocalAddr().(*net.UDPAddr).AddrPort()
		outside, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), at.Port())))
		if err != nil {
			_ = socket.Close()
			continue
		}
		cfg.Socket, cfg.PublicIP = socket, netip.MustParseAddr(address)
		w := &wire{
			outside: outside, node: at, rnd: rand.New(rand.NewPCG(seed, seed)), inside: map[netip.AddrPort]*net.UDPConn{},
			lossy: func(netip.AddrPort) bool { return true }, under: make(chan datagram, 4096),
		}
		w.tasks.Go(w.in)
		w.tasks.Go(func() {
			for d := range w.under {
				<-time.After(time.Until(d.at))
				d.write(d.data)
			}
		})
		t.Cleanup(w.close)
		return w
	}
}

func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	_ = w.outside.Close()
	for _, c := range w.inside {
		_ = c.Close()
	}
	close(w.under)
	w.mu.Unlock()
	w.tasks.Wait()
}

// in passes what comes from outside.
func (w *wire) in() {
	buf := make([]byte, 2048)
	for {
		n, from, err := w.outside.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if c := w.of(from); c != nil {
			w.pass(from, buf[:n], func(b []byte) { _, _ = c.WriteToUDPAddrPort(b, w.node) })
		}
	}
}

// of returns the socket that stands for a peer outside, inside.
func (w *wire) of(peer netip.AddrPort) *net.UDPConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.inside[peer]; c != nil || w.closed {
		return c
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil
	}
	w.inside[peer] = c
	w.tasks.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			w.pass(peer, buf[:n], func(b []byte) { _, _ = w.outside.WriteToUDPAddrPort(b, peer) })
		}
	})
	return c
}

// dropped returns how many datagrams were lost.
func (w *wire) dropped() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// pass writes a datagram from or to peer after the delay, or loses it.
func (w *wire) pass(peer netip.AddrPort, b []byte, write func([]byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.rnd.Float64() < w.loss && w.lossy(peer) {
		w.lost++
		return
	}
	select {
	case w.under <- datagram{time.Now().Add(w.delay), append([]byte(nil), b...), write}:
	default:
		w.lost++
	}
}

// peers returns the addresses outside that have sent something.
func (w *wire) peers() map[netip.AddrPort]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[netip.AddrPort]bool{}
	for p := range w.inside {
		all[p] = true
	}
	return all
}

// lose begins to lose a share of the datagrams of those that are lossy.
func (w *wire) lose(share float64, lossy func(netip.AddrPort) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.lossy = share, lossy
}
