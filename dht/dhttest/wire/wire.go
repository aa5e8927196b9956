// Package wire is a packet network within one process: UDP sockets that libp2p
// hosts listen on, and packets that arrive after their delay, or are lost.
//
// A wire made in a bubble of testing/synctest has the bubble's time: a minute
// costs nothing, and a busy machine makes no node late.
package wire

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// packetHeader is what IPv4 and UDP add to a payload, in bytes.
	packetHeader = 28
	// portQueue bounds the packets that wait for a node to read them; further
	// ones are lost, as in a kernel's socket buffer.
	portQueue = 4096
	// flowEpsilon separates packets that would otherwise arrive out of order.
	flowEpsilon = time.Microsecond
	firstFree   = 20_000
)

// A Place is where a port is.
type Place interface {
	// OneWay is how long a packet takes to another port's place.
	OneWay(to Place) time.Duration
}

// Apart are places that are all equally far from each other, one way.
type Apart time.Duration

// OneWay is that distance.
func (a Apart) OneWay(Place) time.Duration { return time.Duration(a) }

// A Wire carries packets between ports, each after its delay. It is a network
// of UDP only, and has no bandwidth limit.
//
// Packets between two ports arrive in the order sent: a path's delay changes
// slowly compared with the gap between two packets, and QUIC treats reordered
// packets as lost.
type Wire struct {
	jitter float64 // share of the delay, at most
	loss   float64 // share of packets

	mu      sync.Mutex
	rnd     *rand.Rand
	ports   map[netip.AddrPort]*Port
	free    int // port numbers given so far
	flights flights
	sooner  chan struct{} // a flight is due before all others
	closing chan struct{}
	closed  bool
	done    chan struct{}
}

// New starts a wire. Of a packet's delay up to the share jitter is added, and the
// share loss of all packets is lost.
func New(seed uint64, jitter, loss float64) *Wire {
	w := &Wire{
		jitter:  jitter,
		loss:    loss,
		rnd:     rand.New(rand.NewPCG(seed, 0x77697265)),
		ports:   make(map[netip.AddrPort]*Port),
		sooner:  make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go w.run() // until Close, which waits
	return w
}

// Close stops the wire and waits for its goroutine. Ports can still be read and
// closed.
func (w *Wire) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	<-w.done
}

// A flight is one packet under way.
type flight struct {
	at       time.Time
	from, to *Port
	payload  []byte
}

// flights is a heap, soonest first.
type flights []flight

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].at.Before(f[j].at) }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	old := *f
	last := old[len(old)-1]
	old[len(old)-1] = flight{}
	*f = old[:len(old)-1]
	return last
}

// run delivers packets when they are due.
func (w *Wire) run() {
	defer close(w.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		now := time.Now()
		for len(w.flights) > 0 && !w.flights[0].at.After(now) {
			f := heap.Pop(&w.flights).(flight)
			if f.from.reaches(f.to) {
				f.to.deliver(f)
			}
		}
		wait := time.Hour
		if len(w.flights) > 0 {
			wait = w.flights[0].at.Sub(now)
		}
		w.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.sooner:
		case <-w.closing:
			return
		}
	}
}

// Counters count the traffic of one port, IP and UDP headers included.
type Counters struct {
	PacketsIn, PacketsOut int64
	BytesIn, BytesOut     int64
}

// Sub is the difference between c and before.
func (c Counters) Sub(before Counters) Counters {
	return Counters{c.PacketsIn - before.PacketsIn, c.PacketsOut - before.PacketsOut, c.BytesIn - before.BytesIn, c.BytesOut - before.BytesOut}
}

// Bytes is the sum of both directions.
func (c Counters) Bytes() int64 { return c.BytesIn + c.BytesOut }

// A Port is one UDP socket on a wire. It implements net.PacketConn.
type Port struct {
	wire  *Wire
	addr  *net.UDPAddr
	place Place

	in     chan flight
	closed chan struct{}
	once   sync.Once

	packetsIn, packetsOut, bytesIn, bytesOut atomic.Int64

	// Guarded by wire.mu.
	cut   bool // nothing passes
	group int  // ports of different groups do not reach each other
	last  map[*Port]time.Time

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes
}

var errAddrInUse = errors.New("address in use on the simulated network")

// Listen opens a port at place. Without an IP address it is on loopback, and
// without a port number it takes a free one. A restarted node takes over its
// address from a closed port.
func (w *Wire) Listen(addr *net.UDPAddr, place Place) (*Port, error) {
	p := &Port{
		wire:    w,
		addr:    &net.UDPAddr{IP: addr.IP, Port: addr.Port},
		place:   place,
		in:      make(chan flight, portQueue),
		closed:  make(chan struct{}),
		last:    make(map[*Port]time.Time),
		changed: make(chan struct{}),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.addr.IP == nil || p.addr.IP.IsUnspecified() {
		p.addr.IP = net.IPv4(127, 0, 0, 1)
	}
	for p.addr.Port == 0 || addr.Port == 0 && w.ports[keyOf(p.addr)] != nil {
		w.free++
		p.addr.Port = firstFree + w.free
	}
	if w.ports[keyOf(p.addr)] != nil {
		return nil, errAddrInUse
	}
	w.ports[keyOf(p.addr)] = p
	return p, nil
}

func keyOf(a *net.UDPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Counters are the traffic so far.
func (p *Port) Counters() Counters {
	return Counters{p.packetsIn.Load(), p.packetsOut.Load(), p.bytesIn.Load(), p.bytesOut.Load()}
}

// reaches reports whether packets pass from p to q. The caller holds wire.mu.
func (p *Port) reaches(q *Port) bool { return !p.cut && !q.cut && p.group == q.group }

// Cut drops all packets, both ways, or ends that.
func (p *Port) Cut(cut bool) {
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	p.cut = cut
}

// Join moves the port to a group, 0 at first: packets pass only within one.
func (p *Port) Join(group int) {
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	p.group = group
}

// deliver queues f for ReadFrom, or drops it if the queue is full.
func (p *Port) deliver(f flight) {
	select {
	case p.in <- f:
		p.packetsIn.Add(1)
		p.bytesIn.Add(int64(len(f.payload) + packetHeader))
	default:
	}
}

// WriteTo sends b. A packet that cannot arrive is lost without an error.
func (p *Port) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-p.closed:
		return 0, net.ErrClosed
	default:
	}
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Err: net.UnknownNetworkError(to.Network())}
	}
	w := p.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.cut || w.closed {
		return len(b), nil // as if it had never left the machine
	}
	p.packetsOut.Add(1)
	p.bytesOut.Add(int64(len(b) + packetHeader))
	q := w.ports[keyOf(addr)]
	if q == nil || !p.reaches(q) || w.loss > 0 && w.rnd.Float64() < w.loss {
		return len(b), nil
	}
	delay := p.place.OneWay(q.place)
	delay += time.Duration(w.jitter * w.rnd.Float64() * float64(delay))
	at := time.Now().Add(delay)
	if last := p.last[q]; !at.After(last) {
		at = last.Add(flowEpsilon)
	}
	p.last[q] = at
	heap.Push(&w.flights, flight{at, p, q, slices.Clone(b)})
	if w.flights[0].from == p && w.flights[0].at.Equal(at) {
		select {
		case w.sooner <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

// ReadFrom waits for the next packet.
func (p *Port) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		deadline, changed := p.deadline, p.changed
		p.mu.Unlock()
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			wait := time.Until(deadline)
			if wait <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			timeout = time.After(wait)
		}
		select {
		case f := <-p.in:
			return copy(b, f.payload), f.from.addr, nil
		case <-changed:
		case <-timeout:
			return 0, nil, os.ErrDeadlineExceeded
		case <-p.closed:
			return 0, nil, net.ErrClosed
		}
	}
}

// Close frees the address. Packets under way to it are lost.
func (p *Port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.wire.mu.Lock()
		defer p.wire.mu.Unlock()
		p.cut = true
		if p.wire.ports[keyOf(p.addr)] == p {
			delete(p.wire.ports, keyOf(p.addr))
		}
	})
	return nil
}

// LocalAddr is the port's address.
func (p *Port) LocalAddr() net.Addr { return p.addr }

// SetReadDeadline bounds ReadFrom, also a call that waits already.
func (p *Port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// SetDeadline is SetReadDeadline: writes never block.
func (p *Port) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writes never block.
func (p *Port) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer do nothing; QUIC calls them on a socket.
func (p *Port) SetReadBuffer(int) error  { return nil }
func (p *Port) SetWriteBuffer(int) error { return nil }
