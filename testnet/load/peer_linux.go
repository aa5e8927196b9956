package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v4/deadline"

	"weir/sfu/client"
)

const (
	checkPause   = 50 * time.Millisecond // between the first connectivity checks
	consentEvery = 2 * time.Second       // RFC 7675 allows 5 s
	mostEarly    = 256                   // packets kept that come before the keys
	flightPause  = 200 * time.Millisecond
)

// A Peer is one end of a session: an ICE agent of one candidate, DTLS, and the
// keys of SRTP. It does not check the server's certificate.
type Peer struct {
	swarm      *Swarm
	index      int
	local      [4]byte
	ufrag, pwd string
	session    *client.Session
	posted     time.Time
	media      func(packet []byte, at int64) // RTP and RTCP, on the reader's goroutine
	upkeep     func(now int64)               // once a second, on the reader's goroutine

	mu      sync.Mutex
	answer  answer
	checks  map[[stun.TransactionIDSize]byte]netip.AddrPort
	checked chan struct{} // closed at the first check that succeeded
	remote  atomic.Pointer[netip.AddrPort]

	dtls      *dtls.Conn
	handshake chan []byte
	readBy    *deadline.Deadline
	keys      atomic.Pointer[keys]
	ended     chan struct{} // closed when the server ends the session
	left      sync.Once

	// Of the reader:
	early   [][]byte
	earlyAt []int64
	asked   int64 // when consent was last asked for
	isDirty bool
	again   func(now int64) bool // asks for what is missing
}

type keys struct{ local, remote *srtp.Context }

func newPeer(s *Swarm) *Peer {
	return &Peer{
		swarm: s, ufrag: random(4), pwd: random(16),
		checks: map[[stun.TransactionIDSize]byte]netip.AddrPort{}, checked: make(chan struct{}),
		handshake: make(chan []byte, 64), readBy: deadline.New(), ended: make(chan struct{}),
	}
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// connect offers o at address, and returns when media can flow. A password in
// address is the token.
func (p *Peer) connect(ctx context.Context, address string, o offer, wait time.Duration) error {
	u, err := url.Parse(address)
	if err != nil {
		return client.ErrBadURL
	}
	token, _ := u.User.Password()
	u.User = nil
	if err := p.swarm.add(p); err != nil {
		return err
	}
	o.ufrag, o.pwd, o.fingerprint = p.ufrag, p.pwd, p.swarm.fingerprint
	o.candidate = netip.AddrPortFrom(netip.AddrFrom4(p.local), p.swarm.socket.port)
	p.posted = time.Now()
	p.session, err = client.Post(ctx, client.PostConfig{URL: u.String(), Token: token, Offer: o.String(), HTTP: p.swarm.http, Wait: wait, Log: p.swarm.Log})
	if err != nil {
		return err
	}
	a, err := parseAnswer(p.session.Answer())
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.answer = a
	p.mu.Unlock()
	if err := p.check(ctx); err != nil {
		return err
	}
	return p.secure(ctx, a.passive)
}

// check sends connectivity checks until one succeeds.
func (p *Peer) check(ctx context.Context) error {
	for pause := checkPause; ; pause = min(2*pause, time.Second) {
		for _, to := range p.answer.candidates {
			p.sendCheck(to)
		}
		select {
		case <-p.checked:
			return nil
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("no connectivity check was answered: %w", ctx.Err())
		}
	}
}

func (p *Peer) sendCheck(to netip.AddrPort) {
	id := stun.NewTransactionID()
	p.mu.Lock()
	if len(p.checks) > 64 { // unanswered; those of long ago are of no use
		clear(p.checks)
	}
	p.checks[id] = to
	a := p.answer
	p.mu.Unlock()
	m, err := stun.Build(transaction(id), stun.BindingRequest, stun.NewUsername(a.ufrag+":"+p.ufrag),
		raw{stun.AttrUseCandidate, nil}, raw{stun.AttrICEControlling, make([]byte, 8)}, raw{stun.AttrPriority, []byte{0x6e, 0xff, 0xff, 0xff}},
		stun.NewShortTermIntegrity(a.pwd), stun.Fingerprint)
	if err == nil {
		p.swarm.socket.send(p.local, to, m.Raw)
	}
}

type transaction [stun.TransactionIDSize]byte

// AddTo implements [stun.Setter].
func (t transaction) AddTo(m *stun.Message) error {
	m.TransactionID = t
	m.WriteTransactionID()
	return nil
}

type raw struct {
	kind  stun.AttrType
	value []byte
}

// AddTo implements [stun.Setter].
func (r raw) AddTo(m *stun.Message) error {
	m.Add(r.kind, r.value)
	return nil
}

// secure does the handshake of DTLS and takes SRTP's keys from it (RFC 5764).
func (p *Peer) secure(ctx context.Context, asClient bool) error {
	options := []dtls.Option{
		dtls.WithCertificates(p.swarm.certificate), dtls.WithInsecureSkipVerify(true),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM), dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithFlightInterval(flightPause), dtls.WithLoggerFactory(&logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}),
	}
	to := net.UDPAddrFromAddrPort(*p.remote.Load())
	var err error
	if asClient {
		var all []dtls.ClientOption
		for _, o := range options {
			all = append(all, o)
		}
		p.dtls, err = dtls.ClientWithOptions(packetConn{p}, to, all...)
	} else {
		all := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for _, o := range options {
			all = append(all, o)
		}
		p.dtls, err = dtls.ServerWithOptions(packetConn{p}, to, all...)
	}
	if err != nil {
		return fmt.Errorf("DTLS: %w", err)
	}
	if err := p.dtls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("DTLS: %w", err)
	}
	if _, ok := p.dtls.SelectedSRTPProtectionProfile(); !ok {
		return errors.New("DTLS: the server does not speak SRTP with AES-128-GCM")
	}
	state, ok := p.dtls.ConnectionState()
	if !ok {
		return errors.New("DTLS: no keys")
	}
	k, err := newKeys(&state, asClient)
	if err != nil {
		return err
	}
	p.keys.Store(k)
	p.swarm.wg.Go(p.awaitEnd)
	return nil
}

func newKeys(from srtp.KeyingMaterialExporter, asClient bool) (*keys, error) {
	c := srtp.Config{Profile: srtp.ProtectionProfileAeadAes128Gcm}
	if err := c.ExtractSessionKeysFromDTLS(from, asClient); err != nil {
		return nil, fmt.Errorf("SRTP: %w", err)
	}
	local, err := srtp.CreateContext(c.Keys.LocalMasterKey, c.Keys.LocalMasterSalt, c.Profile)
	if err != nil {
		return nil, fmt.Errorf("SRTP: %w", err)
	}
	remote, err := srtp.CreateContext(c.Keys.RemoteMasterKey, c.Keys.RemoteMasterSalt, c.Profile)
	if err != nil {
		return nil, fmt.Errorf("SRTP: %w", err)
	}
	return &keys{local, remote}, nil
}

// awaitEnd reads what nobody sends over DTLS, until its end.
func (p *Peer) awaitEnd() {
	b := make([]byte, 2048)
	for {
		if _, err := p.dtls.Read(b); err != nil {
			close(p.ended)
			return
		}
	}
}

// leave ends the session: at the server, if ctx is not done.
func (p *Peer) leave(ctx context.Context) {
	p.left.Do(func() {
		if ctx.Err() == nil && p.session != nil {
			_ = p.session.Close() // a server that was stopped has forgotten it
		}
		if p.dtls != nil {
			_ = p.dtls.Close()
		}
		p.readBy.Set(time.Unix(0, 1))
		p.swarm.do(func() { p.swarm.peers[p.index].CompareAndSwap(p, nil) })
	})
}

// datagram takes what has come, on the reader's goroutine (RFC 7983).
func (p *Peer) datagram(b []byte, r run) {
	switch {
	case b[0] < 4:
		p.stun(b, r.from)
	case b[0] >= 20 && b[0] < 64:
		select {
		case p.handshake <- bytes.Clone(b):
		default: // lost; DTLS sends again
		}
	case b[0] >= 128 && b[0] < 192 && len(b) >= 12:
		if p.keys.Load() == nil {
			if len(p.early) < mostEarly {
				p.early, p.earlyAt = append(p.early, bytes.Clone(b)), append(p.earlyAt, r.at)
			}
			return
		}
		for i, b := range p.early {
			p.media(b, p.earlyAt[i])
		}
		p.early, p.earlyAt = nil, nil
		p.media(b, r.at)
	}
}

func (p *Peer) stun(b []byte, from netip.AddrPort) {
	m := &stun.Message{Raw: slices.Clone(b)}
	if m.Decode() != nil {
		return
	}
	switch m.Type {
	case stun.BindingRequest:
		addr := &stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())}
		reply, err := stun.Build(transaction(m.TransactionID), stun.BindingSuccess, addr, stun.NewShortTermIntegrity(p.pwd), stun.Fingerprint)
		if err == nil {
			p.swarm.socket.send(p.local, from, reply.Raw)
		}
	case stun.BindingSuccess:
		p.mu.Lock()
		to, ok := p.checks[m.TransactionID]
		delete(p.checks, m.TransactionID)
		p.mu.Unlock()
		if ok && p.remote.CompareAndSwap(nil, &to) {
			close(p.checked)
		}
	}
}

// tend asks for consent when it is time, and does what the kind of peer needs.
func (p *Peer) tend(now int64) {
	to := p.remote.Load()
	if to == nil || p.keys.Load() == nil {
		return
	}
	if now-p.asked >= consentEvery.Nanoseconds() {
		p.asked = now
		p.sendCheck(*to)
	}
	if p.upkeep != nil {
		p.upkeep(now)
	}
}

// sendRTCP encrypts and sends, on the goroutine that has the local keys.
func (p *Peer) sendRTCP(b []byte) {
	sealed, err := p.keys.Load().local.EncryptRTCP(nil, b, nil)
	if err == nil {
		p.swarm.socket.send(p.local, *p.remote.Load(), sealed)
	}
}

// packetConn is what DTLS reads and writes.
type packetConn struct{ *Peer }

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case packet := <-c.handshake:
		return copy(b, packet), net.UDPAddrFromAddrPort(*c.remote.Load()), nil
	case <-c.readBy.Done():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (c packetConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.swarm.socket.send(c.local, *c.remote.Load(), b)
	return len(b), nil
}

// Close makes pending reads fail.
func (c packetConn) Close() error {
	c.readBy.Set(time.Unix(0, 1))
	return nil
}

func (c packetConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: c.local[:], Port: int(c.swarm.socket.port)}
}

func (c packetConn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c packetConn) SetWriteDeadline(time.Time) error  { return nil }
func (c packetConn) SetReadDeadline(t time.Time) error { c.readBy.Set(t); return nil }
