package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MostPeers bounds the peers of a Swarm.
const MostPeers = 1 << 14

// A Swarm is one publisher and many viewers on one socket. Close ends what is
// left of them, and waits.
type Swarm struct {
	Log *slog.Logger

	socket      *socket
	granted     int // bytes of receive buffer
	certificate tls.Certificate
	fingerprint string
	http        *http.Client
	log         [kinds]log // what the publisher sent

	peers  [MostPeers]atomic.Pointer[Peer] // by the last two bytes of their address
	unread chan func()                     // for the reader
	done   chan struct{}                   // closed when the reader has ended
	wg     sync.WaitGroup

	// Of the reader:
	tally    *tally
	next     int // of the peers that are looked after
	last     int64
	dirty    []*Peer // packets are missing
	arrived  atomic.Uint64
	unopened atomic.Uint64 // packets that could not be decrypted
	closed   atomic.Bool
	once     sync.Once
}

// NewSwarm opens the socket and starts the reader.
func NewSwarm(log *slog.Logger) (*Swarm, error) {
	s := &Swarm{Log: log, unread: make(chan func()), done: make(chan struct{})}
	var err error
	if s.certificate, s.fingerprint, err = newCertificate(); err != nil {
		return nil, err
	}
	if s.socket, s.granted, err = openSocket(); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	s.http = &http.Client{Transport: transport}
	go s.read()
	return s, nil
}

// Buffer is how many bytes of datagrams the kernel keeps for the swarm.
func (s *Swarm) Buffer() int { return s.granted }

// Dropped is how many datagrams the kernel had no room for so far.
func (s *Swarm) Dropped() uint64 { return s.socket.drops() }

// Arrived is how many RTP packets have come so far, to all viewers.
func (s *Swarm) Arrived() uint64 { return s.arrived.Load() }

// Unopened is how many of the packets sampled could not be decrypted.
func (s *Swarm) Unopened() uint64 { return s.unopened.Load() }

// Close ends all peers, without telling the server, and the reader.
func (s *Swarm) Close() {
	s.once.Do(func() {
		for i := range s.peers {
			if p := s.peers[i].Load(); p != nil {
				p.leave(context.Background())
			}
		}
		s.wg.Wait()
		s.closed.Store(true)
		<-s.done
		s.socket.close()
		s.http.CloseIdleConnections()
	})
}

// do runs f on the reader's goroutine, and waits.
func (s *Swarm) do(f func()) {
	ran := make(chan struct{})
	select {
	case s.unread <- func() { f(); close(ran) }:
		<-ran
	case <-s.done:
	}
}

// read is the reader: it alone has the viewers' counters.
func (s *Swarm) read() {
	runtime.LockOSThread()
	defer close(s.done)
	nap := unix.NsecToTimespec(napTime.Nanoseconds())
	for !s.closed.Load() {
		more, err := s.socket.receive(s.take)
		if err != nil {
			s.Log.Error("socket of the viewers failed", "err", err)
			return
		}
		select {
		case f := <-s.unread:
			f()
		default:
		}
		if now := time.Now().UnixNano(); now-s.last >= tendEvery.Nanoseconds() {
			s.last = now
			s.tend(now)
		}
		if !more {
			_ = unix.Nanosleep(&nap, nil) // a shorter one does no harm
		}
	}
}

const (
	// napTime is how long the reader lets datagrams gather. The kernel notes
	// when they come, and a receiver that sleeps at each of them costs the
	// server, which wakes it, as much as the sending.
	napTime   = 500 * time.Microsecond
	tendEvery = 5 * time.Millisecond
)

// take hands the datagrams of a run to the peer they came to.
func (s *Swarm) take(r run) {
	i := int(r.to[2])<<8 | int(r.to[3])
	if i >= MostPeers {
		return
	}
	p := s.peers[i].Load()
	if p == nil {
		return
	}
	for b := r.data; len(b) > 0; {
		n := min(r.size, len(b))
		p.datagram(b[:n], r)
		b = b[n:]
	}
}

// tend sends the NACKs that are due, and looks after as many peers as makes
// each of them one a second.
func (s *Swarm) tend(now int64) {
	dirty := s.dirty[:0]
	for _, p := range s.dirty {
		if p.again(now) {
			dirty = append(dirty, p)
		}
	}
	s.dirty = dirty
	const each = MostPeers * int(tendEvery) / int(time.Second)
	for range each + 1 {
		if p := s.peers[s.next].Load(); p != nil {
			p.tend(now)
		}
		s.next = (s.next + 1) % MostPeers
	}
}

// add gives p an address, and what comes to it from there on.
func (s *Swarm) add(p *Peer) error {
	for i := range s.peers {
		if i > 0 && s.peers[i].Load() == nil {
			p.index = i
			p.local = [4]byte{127, 64, byte(i >> 8), byte(i)}
			if s.peers[i].CompareAndSwap(nil, p) {
				return nil
			}
		}
	}
	return fmt.Errorf("a swarm has at most %d peers", MostPeers-1)
}

// newCertificate makes the certificate of all peers, and its fingerprint as SDP
// has it (RFC 8122).
func newCertificate() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "load"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	sum := sha256.Sum256(der)
	hex := strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, hex, nil
}
