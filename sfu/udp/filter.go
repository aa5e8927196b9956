package udp

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
)

const (
	// freshSources is how many new source addresses of a peer are admitted
	// within freshWindow. pion keeps a candidate for each as long as the peer
	// lives. A browser has one for each of its interfaces, twice with TCP.
	freshSources = 16
	freshWindow  = time.Minute
	// maxSources bounds the source addresses of a peer until the next ICE
	// restart.
	maxSources = 256
	// nominationLasts is how long after its last check a nominated local
	// address stays the one to answer from, while the peer checks others.
	nominationLasts = 10 * time.Second
	// maxOwed bounds the checks of one source address that are kept until they
	// are checked back.
	maxOwed = 4
	// recentChecks is the number of checks that are kept until they are
	// answered.
	recentChecks = 64
)

// drop is why a datagram was not passed to pion.
type drop int

const (
	dropDTLSClear     drop = iota // an unencrypted record that is never legitimate
	dropDTLSLate                  // a handshake record after the handshake
	dropDTLSMalformed             //
	dropDTLSType                  // of another protocol version, or unknown
	dropDTLSEpoch                 // of an epoch that is never used
	dropUser                      // a check with an unknown user name
	dropIntegrity                 // a check without the right password
	dropSources                   // a check from one source address too many
	dropSource                    // from an address without a valid check
	dropSTUN                      // neither a check nor an answer to one
	dropProtocol                  // neither STUN, DTLS nor RTP
	dropConnections               // a TCP connection too many
	dropMessage                   // over TCP: too long, or the first and not a check
	drops
)

// dropNames are the reasons in metrics.
var dropNames = [drops]string{
	"dtls_clear", "dtls_late", "dtls_malformed", "dtls_type", "dtls_epoch",
	"stun_user", "stun_integrity", "stun_sources", "unknown_source", "stun_malformed", "protocol",
	"tcp_connections", "tcp_malformed",
}

// endpoint is the source of a datagram; its address is never an IPv4-mapped
// IPv6 address.
type endpoint struct {
	netip.AddrPort
	tcp bool
}

func endpointOf(a netip.AddrPort) endpoint {
	return endpoint{AddrPort: netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
}

// A filter stands between the network and pion, and admits the datagrams that a
// peer of one of this node's PeerConnections may have sent. It learns the
// peers' addresses from their connectivity checks with the right password.
type filter struct {
	dropped [drops]atomic.Int64

	mu       sync.RWMutex
	byUfrag  map[string]*Peer
	bySource map[endpoint]*route
	recent   [recentChecks]check // ring buffer
	next     int
	message  stun.Message // reused for parsing
}

// A Peer is the filter's state of the far end of one ICE transport. No datagram
// of it is admitted before Expect or after Close.
type Peer struct {
	filter  *filter
	secured atomic.Bool // the DTLS handshake is done
	asked   bool        // asked only what it asks, see Triggered; set before Expect
	taker   atomic.Pointer[func(datagram []byte, at time.Time) bool]

	// filter.mu guards the following fields.
	ufrag, pwd string
	sources    map[endpoint]struct{}
	fresh      [freshSources]time.Time // times of the last new sources; ring buffer
	next       int
	checked    time.Time // when the last valid check came
	closed     bool
}

// A route leads to one address of a peer.
type route struct {
	peer      *Peer
	local     netip.Addr // our address that the peer uses; zero: unknown
	control   []byte     // control message for sending from local
	checked   time.Time  // last check that came to local
	nominated bool       // nominated by the peer
	owed      [][]byte   // for each check not checked back yet, the control message to do so with
}

// A check is a connectivity check that is to be answered from the address it
// was sent to.
type check struct {
	id      [stun.TransactionIDSize]byte
	to      endpoint
	control []byte
}

func newFilter() *filter {
	return &filter{byUfrag: map[string]*Peer{}, bySource: map[endpoint]*route{}}
}

// newPeer returns a peer without credentials, of which nothing is admitted yet.
func (g *filter) newPeer() *Peer {
	return &Peer{filter: g, sources: map[endpoint]struct{}{}}
}

// Expect sets the ICE credentials that the peer has to show from now on. A
// change of them is an ICE restart: the addresses known before stay valid, for
// the media that flows until the restart is done.
func (p *Peer) Expect(ufrag, pwd string, now time.Time) {
	p.filter.mu.Lock()
	defer p.filter.mu.Unlock()
	if p.closed || p.ufrag == ufrag && p.pwd == pwd {
		return
	}
	if p.filter.byUfrag[p.ufrag] == p {
		delete(p.filter.byUfrag, p.ufrag)
	}
	p.ufrag, p.pwd = ufrag, pwd
	p.filter.byUfrag[ufrag] = p
	for from := range p.sources {
		if r := p.filter.bySource[from]; r == nil || r.peer != p || now.Sub(r.checked) > freshWindow {
			p.forget(from)
		}
	}
}

// forget removes from from the known addresses. Called with filter.mu held.
func (p *Peer) forget(from endpoint) {
	delete(p.sources, from)
	if r := p.filter.bySource[from]; r != nil && r.peer == p {
		delete(p.filter.bySource, from)
	}
}

// Triggered limits the connectivity checks that are sent to p over UDP to
// triggered ones (RFC 8445, section 7.3.1.4): for each valid check that has come
// from an address at most one goes there, from where the check was sent to, and
// [Socket] discards all others. Call it before Expect.
func (p *Peer) Triggered() { p.asked = true }

// Secured records that the DTLS handshake is done.
func (p *Peer) Secured() { p.secured.Store(true) }

// Take has f called with each datagram of RTP or RTCP that comes from an address
// of the peer, before pion reads it, and with the time at which it was read; nil
// ends that. What f reports as taken does not reach pion. If f returns true it
// may have changed the datagram, which it must not keep in either case.
//
// f is called by the goroutines that read: the one of [Socket.ReadFromAddrPort]
// for UDP, on which the media of all peers waits, and one for each connection
// over TCP. It must not block. No call begins after Close of the peer; one that
// has begun may still run.
func (p *Peer) Take(f func(datagram []byte, at time.Time) bool) {
	if f == nil {
		p.taker.Store(nil)
		return
	}
	p.taker.Store(&f)
}

// Silence returns how long no valid check has come; ok is false before the
// first. It uses the monotonic clock.
func (p *Peer) Silence(now time.Time) (d time.Duration, ok bool) {
	p.filter.mu.RLock()
	defer p.filter.mu.RUnlock()
	return now.Sub(p.checked), !p.checked.IsZero()
}

// Close stops admitting datagrams of the peer. It may be called more than once.
func (p *Peer) Close() {
	p.filter.mu.Lock()
	defer p.filter.mu.Unlock()
	p.closed = true
	if p.filter.byUfrag[p.ufrag] == p {
		delete(p.filter.byUfrag, p.ufrag)
	}
	for from := range p.sources {
		p.forget(from)
	}
}

// take adds from to the addresses of p, and reports false if that is one too
// many. Called with filter.mu held.
func (p *Peer) take(from endpoint, now time.Time) bool {
	if _, known := p.sources[from]; known {
		return true
	}
	if last := p.fresh[p.next]; !last.IsZero() && now.Sub(last) < freshWindow || len(p.sources) >= maxSources {
		return false
	}
	p.fresh[p.next] = now
	p.next = (p.next + 1) % freshSources
	p.sources[from] = struct{}{}
	return true
}

// isSTUN reports whether b is STUN by its first byte (RFC 7983) and by its
// length.
func isSTUN(b []byte) bool { return len(b) >= 20 && b[0] < 4 }

// isRTP reports whether b is RTP or RTCP by its first byte (RFC 7983).
func isRTP(b []byte) bool { return len(b) > 0 && b[0] >= 128 && b[0] < 192 }

// STUN message types used by ICE.
const (
	bindingRequest    = 0x0001
	bindingIndication = 0x0011
	bindingSuccess    = 0x0101
)

func messageType(b []byte) int { return int(b[0])<<8 | int(b[1]) }

// admit returns how many bytes of datagram, which it may shorten, are for pion;
// 0 if none are. Local is its destination address, if known.
func (g *filter) admit(datagram []byte, from endpoint, local netip.Addr) int {
	n, why := len(datagram), drop(-1)
	switch {
	case len(datagram) == 0:
		why = dropProtocol
	case isRTP(datagram): // SRTP authenticates
		return n
	case datagram[0] >= 20 && datagram[0] < 64:
		g.mu.RLock()
		r := g.bySource[from]
		g.mu.RUnlock()
		if r == nil {
			why = dropSource
			break
		}
		var reason drop
		if n, reason = screenDTLS(datagram, r.peer.secured.Load()); n < len(datagram) {
			g.dropped[reason].Add(1)
		}
		return n
	case !isSTUN(datagram):
		why = dropProtocol
	case messageType(datagram) == bindingRequest:
		why = g.check(datagram, from, local, time.Now())
	case messageType(datagram) == bindingSuccess || messageType(datagram) == bindingIndication:
		g.mu.RLock()
		if g.bySource[from] == nil {
			why = dropSource
		}
		g.mu.RUnlock()
	default:
		why = dropSTUN
	}
	if why < 0 {
		return n
	}
	g.dropped[why].Add(1)
	return 0
}

// taken offers an admitted datagram, read at at, to its peer's Take, and returns
// whether it is taken.
func (g *filter) taken(datagram []byte, from endpoint, at time.Time) bool {
	if !isRTP(datagram) {
		return false
	}
	g.mu.RLock()
	r := g.bySource[from]
	g.mu.RUnlock()
	if r == nil {
		return false
	}
	f := r.peer.taker.Load()
	return f != nil && (*f)(datagram, at)
}

// check validates a connectivity check (RFC 8445, section 7.3), and returns why
// it is dropped, or -1.
func (g *filter) check(datagram []byte, from endpoint, local netip.Addr, now time.Time) drop {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := &g.message
	m.Raw = append(m.Raw[:0], datagram...)
	if m.Decode() != nil {
		return dropSTUN
	}
	user, err := m.Get(stun.AttrUsername)
	if err != nil {
		return dropUser
	}
	ufrag, _, _ := strings.Cut(string(user), ":")
	p := g.byUfrag[ufrag]
	if p == nil {
		return dropUser
	}
	if stun.MessageIntegrity(p.pwd).Check(m) != nil {
		return dropIntegrity
	}
	if !p.take(from, now) {
		return dropSources
	}
	p.checked = now
	r := g.bySource[from]
	if r == nil || r.peer != p {
		r = &route{peer: p}
		g.bySource[from] = r
	}
	nominates := m.Contains(stun.AttrUseCandidate)
	r.arrive(local, nominates, now)
	control := r.control
	if local.IsValid() && local != r.local {
		control = sendFrom(local)
	}
	if p.asked && len(r.owed) < maxOwed {
		r.owed = append(r.owed, control)
	}
	if local.IsValid() {
		g.recent[g.next] = check{m.TransactionID, from, control}
		g.next = (g.next + 1) % recentChecks
	}
	return -1
}

// arrive records that a check came to local. The peer's nomination decides
// which of our addresses its media is sent from; without one, the last check
// decides.
func (r *route) arrive(local netip.Addr, nominates bool, now time.Time) {
	if local != r.local && r.nominated && !nominates && now.Sub(r.checked) < nominationLasts {
		return
	}
	if local != r.local {
		r.local, r.control, r.nominated = local, sendFrom(local), false
	}
	r.checked = now
	r.nominated = r.nominated || nominates
}

// sent inspects STUN that is about to be sent, and returns the control message
// to send it with, which is nil if it may leave from any address; ok is false
// for a check that must not be sent.
func (g *filter) sent(b []byte, to endpoint) (control []byte, ok bool) {
	switch messageType(b) {
	case bindingRequest:
		// Admit the answer and all that follows it.
		g.mu.Lock()
		defer g.mu.Unlock()
		m := &g.message
		m.Raw = append(m.Raw[:0], b...)
		if m.Decode() == nil {
			user, _ := m.Get(stun.AttrUsername)
			_, ufrag, _ := strings.Cut(string(user), ":")
			p, r := g.byUfrag[ufrag], g.bySource[to]
			if p != nil && p.asked {
				return r.checkBack(p)
			}
			if p != nil && r == nil && len(p.sources) < maxSources {
				p.sources[to] = struct{}{}
				g.bySource[to] = &route{peer: p, checked: time.Now()}
			}
		}
		if r := g.bySource[to]; r != nil {
			return r.control, true
		}
	default:
		g.mu.RLock()
		defer g.mu.RUnlock()
		for i := range g.recent {
			if c := &g.recent[i]; c.to == to && string(c.id[:]) == string(b[8:20]) {
				return c.control, true
			}
		}
	}
	return nil, true
}

// checkBack takes the oldest check of p over r that has not been checked back
// yet, and returns the control message to do so with; ok is false if there is
// none. r may be nil.
func (r *route) checkBack(p *Peer) (control []byte, ok bool) {
	if r == nil || r.peer != p || len(r.owed) == 0 {
		return nil, false
	}
	control, r.owed = r.owed[0], r.owed[1:]
	return control, true
}

// control returns the control message for sending to a peer's address.
func (g *filter) control(to endpoint) []byte {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if r := g.bySource[to]; r != nil {
		return r.control
	}
	return nil
}
