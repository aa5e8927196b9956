package lab

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
)

// A wire carries packets between ports, each after its delay. It is a network
// of UDP only, and has no bandwidth limit.
//
// Packets between two ports arrive in the order sent: a path's delay changes
// slowly compared with the gap between two packets, and QUIC treats reordered
// packets as lost.
type wire struct {
	jitter float64 // share of the delay, at most
	loss   float64 // share of packets

	mu      sync.Mutex
	rnd     *rand.Rand
	ports   map[netip.AddrPort]*port
	flights flights
	sooner  chan struct{} // a flight is due before all others
	closing chan struct{}
	closed  bool
	done    chan struct{}
}

func newWire(seed uint64, jitter, loss float64) *wire {
	w := &wire{
		jitter:  jitter,
		loss:    loss,
		rnd:     rand.New(rand.NewPCG(seed, 0x77697265)),
		ports:   make(map[netip.AddrPort]*port),
		sooner:  make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go w.run() // until close, which waits
	return w
}

// close stops the wire and waits for its goroutine. Ports can still be read and
// closed.
func (w *wire) close() {
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
	from, to *port
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
func (w *wire) run() {
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

// A port is one UDP socket on a wire. It implements net.PacketConn.
type port struct {
	wire  *wire
	addr  *net.UDPAddr
	place Place

	in     chan flight
	closed chan struct{}
	once   sync.Once

	packetsIn, packetsOut, bytesIn, bytesOut atomic.Int64

	// Guarded by wire.mu.
	cut   bool // nothing passes
	group int  // ports of different groups do not reach each other
	last  map[*port]time.Time

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes
}

var errAddrInUse = errors.New("address in use on the simulated network")

// listen opens a port. A restarted node takes over its address from a closed port.
func (w *wire) listen(addr *net.UDPAddr, place Place) (*port, error) {
	p := &port{
		wire:    w,
		addr:    addr,
		place:   place,
		in:      make(chan flight, portQueue),
		closed:  make(chan struct{}),
		last:    make(map[*port]time.Time),
		changed: make(chan struct{}),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ports[keyOf(addr)] != nil {
		return nil, errAddrInUse
	}
	w.ports[keyOf(addr)] = p
	return p, nil
}

func keyOf(a *net.UDPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// counters are the traffic so far.
func (p *port) counters() Counters {
	return Counters{p.packetsIn.Load(), p.packetsOut.Load(), p.bytesIn.Load(), p.bytesOut.Load()}
}

// reaches reports whether packets pass from p to q. The caller holds wire.mu.
func (p *port) reaches(q *port) bool { return !p.cut && !q.cut && p.group == q.group }

// deliver queues f for ReadFrom, or drops it if the queue is full.
func (p *port) deliver(f flight) {
	select {
	case p.in <- f:
		p.packetsIn.Add(1)
		p.bytesIn.Add(int64(len(f.payload) + packetHeader))
	default:
	}
}

// WriteTo sends b. A packet that cannot arrive is lost without an error.
func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
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
func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
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
func (p *port) Close() error {
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
func (p *port) LocalAddr() net.Addr { return p.addr }

// SetReadDeadline bounds ReadFrom, also a call that waits already.
func (p *port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// SetDeadline is SetReadDeadline: writes never block.
func (p *port) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writes never block.
func (p *port) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer do nothing; QUIC calls them on a socket.
func (p *port) SetReadBuffer(int) error  { return nil }
func (p *port) SetWriteBuffer(int) error { return nil }
