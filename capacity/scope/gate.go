// Package scope decides to which addresses others may send a node or its
// clients: by records, tickets, peers that they name, redirects and ICE
// candidates. Without it, any publisher of a record could make nodes and their
// clients connect to hosts in networks that the publisher cannot reach itself.
//
// Public addresses are always allowed. Loopback is allowed if the node has no
// other address itself: a network on one machine. Private addresses are allowed
// if the node has no public one, so that networks within a site need no
// configuration; if it has both, its operator has to allow them. Addresses that
// the operator configures, such as a peer to join by, are allowed. Link-local
// addresses, those of cloud metadata, multicast and addresses of no host are
// never allowed.
package scope

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A Use is the purpose of an address from another node.
type Use string

// The uses.
const (
	Dial      Use = "dial"      // of a libp2p peer
	Redirect  Use = "redirect"  // of a client, to a URL
	Candidate Use = "candidate" // of ICE
)

// ErrRefused is wrapped by every refusal.
var ErrRefused = errors.New("address not allowed")

// A Refusal is a key for counting refusals.
type Refusal struct {
	Use  Use  `json:"use"`
	Kind Kind `json:"kind"`
}

// ownAge is how long the node's own addresses are cached.
const ownAge = 5 * time.Second

// allowed are a use's allowed kinds besides Public.
type allowed struct {
	kinds  map[Kind]bool
	looked time.Time
}

// A Gate decides which addresses one node may use. It is safe for concurrent
// use.
type Gate struct {
	log          *slog.Logger
	allowPrivate bool

	mu      sync.Mutex
	own     map[Use][]func() []Kind
	named   map[netip.Addr]bool
	allowed map[Use]allowed
	refused map[Refusal]uint64
}

// NewGate returns a gate that allows private addresses in any case if
// allowPrivate is set. Each kind and use that is refused is logged once; a nil
// log discards this.
func NewGate(log *slog.Logger, allowPrivate bool) *Gate {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gate{
		log: log, allowPrivate: allowPrivate,
		own: map[Use][]func() []Kind{}, named: map[netip.Addr]bool{}, allowed: map[Use]allowed{}, refused: map[Refusal]uint64{},
	}
}

// Own registers the node's own addresses for a use: f returns their kinds. F is
// called now and then; it must not use the gate.
func (g *Gate) Own(use Use, f func() []Kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own[use] = append(g.own[use], f)
	clear(g.allowed)
}

// Name allows addresses that the operator has configured. If the node has no
// address itself, they show its network.
func (g *Gate) Name(addrs ...multiaddr.Multiaddr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if ip, ok := ipOf(a); ok && !g.named[ip] {
			g.named[ip] = true
			clear(g.allowed)
		}
	}
}

// Check returns nil if ip may be used, and otherwise an error that wraps
// ErrRefused.
func (g *Gate) Check(use Use, ip netip.Addr) error {
	return g.check(use, KindOf(ip), ip.String(), ip.WithZone("").Unmap())
}

// check decides on an address of that kind, logged as text; ip is zero for a
// name.
func (g *Gate) check(use Use, kind Kind, text string, ip netip.Addr) error {
	if kind == Public {
		return nil
	}
	g.mu.Lock()
	at, now := g.allowed[use], time.Now()
	if at.kinds == nil || now.Sub(at.looked) > ownAge {
		at = allowed{g.kinds(use), now}
		g.allowed[use] = at
	}
	if at.kinds[kind] || g.named[ip] {
		g.mu.Unlock()
		return nil
	}
	r := Refusal{use, kind}
	g.refused[r]++
	first := g.refused[r] == 1
	g.mu.Unlock()
	if first {
		advice := "counted from now on"
		if kind == Private || kind == Shared {
			advice += "; --allow-private allows such"
		}
		g.log.Warn("address not used", "for", use, "kind", kind, "address", text, "note", advice)
	}
	return fmt.Errorf("%w for a %s: %s is %s", ErrRefused, use, text, kind)
}

// kinds are the kinds allowed for use. Called with mu held.
func (g *Gate) kinds(use Use) map[Kind]bool {
	count, all := map[Kind]int{}, 0
	for _, f := range g.own[use] {
		for _, k := range f() {
			if k != Unspecified {
				count[k]++
				all++
			}
		}
	}
	named := map[Kind]bool{}
	for ip := range g.named {
		named[KindOf(ip)] = true
	}
	site := count[Public] == 0 && (count[Private]+count[Shared] > 0 || named[Private] || named[Shared])
	private := g.allowPrivate || site
	return map[Kind]bool{
		Loopback: count[Loopback] == all && (all > 0 || named[Loopback]),
		Private:  private,
		Shared:   private,
	}
}

// KindsOf are the kinds of the IP addresses in addrs.
func KindsOf(addrs []multiaddr.Multiaddr) []Kind {
	var kinds []Kind
	for _, a := range addrs {
		if ip, ok := ipOf(a); ok {
			kinds = append(kinds, KindOf(ip))
		}
	}
	return kinds
}

// CheckMultiaddr is Check of the IP address in a. A name passes: what it resolves
// to is checked when it is dialled.
func (g *Gate) CheckMultiaddr(use Use, a multiaddr.Multiaddr) error {
	if ip, ok := ipOf(a); ok {
		return g.Check(use, ip)
	}
	return nil
}

func ipOf(a multiaddr.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// CheckURL is Check of the host in an http or https URL. Names that lead only
// to the resolving machine or site are refused; the addresses of other names
// are known to the client alone.
func (g *Gate) CheckURL(use Use, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%w for a %s: not an http or https URL", ErrRefused, use)
	}
	kind, ip := hostKind(u.Hostname())
	return g.check(use, kind, u.Host, ip)
}

// KindOfURL is the kind of the host in an http or https URL.
func KindOfURL(raw string) Kind {
	u, err := url.Parse(raw)
	if err != nil {
		return Reserved
	}
	kind, _ := hostKind(u.Hostname())
	return kind
}

// hostKind is the kind of a URL's host, and its address if it is one.
func hostKind(host string) (Kind, netip.Addr) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ip, _ = looseIPv4(host)
	}
	switch {
	case ip.IsValid():
		return KindOf(ip), ip.WithZone("").Unmap()
	case host == "localhost" || strings.HasSuffix(host, ".localhost"):
		return Loopback, ip
	case !strings.Contains(host, "."), hasSuffix(host, ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".corp", ".home"):
		return Private, ip
	}
	return Public, ip
}

func hasSuffix(s string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if strings.HasSuffix(s, suffix) {
			return true
		}
	}
	return false
}

// looseIPv4 parses the spellings of IPv4 addresses that browsers and resolvers
// accept beside the usual one, such as 127.1, 0x7f000001 and 2130706433 (WHATWG
// URL, "IPv4 parser").
func looseIPv4(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint64
	for i, part := range parts {
		n, ok := looseNumber(part)
		last := i == len(parts)-1
		if !ok || !last && n > 255 || last && n >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		if last {
			v += n
		} else {
			v += n << (8 * (3 - i))
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

func looseNumber(s string) (n uint64, ok bool) {
	base := uint64(10)
	switch {
	case strings.HasPrefix(s, "0x"):
		s, base = s[2:], 16
		if s == "" {
			return 0, true
		}
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	case s == "":
		return 0, false
	}
	for _, c := range []byte(s) {
		d := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		}
		if d >= base || n > 1<<33 {
			return 0, false
		}
		n = n*base + d
	}
	return n, true
}

// Refused is the number of refusals by use and kind.
func (g *Gate) Refused() map[Refusal]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.refused)
}
