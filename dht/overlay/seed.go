package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
	"golang.org/x/sync/errgroup"
)

const (
	// seedCheck is how often a node that has company looks at its seeds again:
	// two halves of a network that started apart meet by then.
	seedCheck = 30 * time.Second
	// seedDials is how many addresses of the seeds are tried in one round.
	seedDials = 4
	// maxSeedAddrs bounds how many addresses of a name are used.
	maxSeedAddrs = 256
	// maxSeedsNamed bounds how many addresses a node dials for its seeds in its
	// life, because a name can resolve to ever new ones.
	maxSeedsNamed = 4096
)

// A Seed is a place where nodes of the network listen by TCP, without their
// peer IDs: the name of a headless service, of a container or of a machine that
// may come back with another identity. A node that answers there is trusted to
// be of the network: the owner of the name, or of the route there, can lead
// this node into a network of their own. Addresses with peer IDs (Bootstrap)
// have no such weakness.
type Seed struct {
	Host string // a name, or an IP address
	Port uint16
}

func (s Seed) String() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

// ParseSeed parses HOST:PORT.
func ParseSeed(s string) (Seed, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Seed{}, fmt.Errorf("seed %.200q: want HOST:PORT, such as weir.example.org:4001", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Seed{}, fmt.Errorf("seed %.200q: want a port from 1 to 65535", s)
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostName(host) {
		return Seed{}, fmt.Errorf("seed %.200q: %.200q is neither an IP address nor a host's name", s, host)
	}
	return Seed{Host: host, Port: uint16(n)}, nil
}

// hostName reports whether s can be looked up: labels of letters, digits, "-"
// and, as container networks have it, "_", 253 bytes in all.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return true
}

// A seeker finds nodes at seeds.
type seeker struct {
	seeds   []Seed
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	who     func(ctx context.Context, at netip.AddrPort) (peer.ID, error)

	known map[netip.AddrPort]peer.ID // the node found at each address
	named int                        // addresses registered with the gate
}

func newSeeker(seeds []Seed) *seeker {
	return &seeker{
		seeds: seeds, who: identify, known: map[netip.AddrPort]peer.ID{},
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
}

// seek joins by the seeds, until ctx ends: often while the node knows no other,
// and now and then later. Tried is called after the first round.
func (j *joiner) seek(ctx context.Context, s *seeker, tried func()) error {
	defer tried()
	retry := backoff{first: retryFirst, most: retryMost}
	said := LogBackoff{}
	for {
		err := j.seekOnce(ctx, s)
		pause := time.Duration(float64(seedCheck) * (0.75 + rand.Float64()/2))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case j.Kad.RoutingTable().Size() > 0:
			retry.reset()
			said = LogBackoff{}
		default:
			pause = retry.wait(rand.Float64())
			level := slog.LevelDebug
			if said.Due(time.Now()) {
				level = slog.LevelWarn
				if errors.Is(err, errOnlySelf) {
					level = slog.LevelInfo // normal for the first node
				}
			}
			j.cfg.Log.Log(ctx, level, "no node found at the seeds, trying on", "for", said.since(time.Now()).Round(time.Second), "err", err)
		}
		tried()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errOnlySelf means that only this node is at the seeds.
var errOnlySelf = errors.New("they lead to this node alone")

// seekOnce connects to some of the nodes at the seeds that are not connected.
// The error says why none is reached.
func (j *joiner) seekOnce(ctx context.Context, s *seeker) error {
	ctx, cancel := context.WithTimeout(ctx, 3*DialTimeout)
	defer cancel()
	var problems []error
	var at []netip.AddrPort
	for _, seed := range s.seeds {
		addrs, err := s.lookup(ctx, seed.Host)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", seed, err))
		}
		for _, a := range addrs {
			if p := netip.AddrPortFrom(a, seed.Port); !slices.Contains(at, p) {
				at = append(at, p)
			}
		}
	}
	s.forget(at)
	reached := false
	at = slices.DeleteFunc(at, func(a netip.AddrPort) bool {
		id, ok := s.known[a]
		self := ok && id == j.ID()
		up := ok && !self && j.Host.Network().Connectedness(id) == network.Connected
		reached = reached || up
		return self || up
	})
	rand.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
	at = at[:min(len(at), seedDials)]
	found := make([]peer.ID, len(at))
	failed := make([]error, len(at))
	var g errgroup.Group
	for i, a := range at {
		if s.named++; s.named > maxSeedsNamed {
			failed[i] = fmt.Errorf("%s: not dialled: the seeds have led to %d addresses already; name bootstrap peers, or start anew", a, maxSeedsNamed)
			continue
		}
		g.Go(func() error {
			found[i], failed[i] = j.meetSeed(ctx, s, a)
			return nil
		})
	}
	_ = g.Wait()
	for i, a := range at {
		if found[i] != "" {
			s.known[a] = found[i]
		}
		switch {
		case failed[i] != nil:
			problems = append(problems, failed[i])
		case found[i] != j.ID():
			reached = true
		}
	}
	if reached {
		return nil
	}
	if len(problems) == 0 {
		return errOnlySelf
	}
	return errors.Join(problems[:min(len(problems), 3)]...)
}

// lookup returns the addresses of host, a random selection of maxSeedAddrs if
// there are more.
func (s *seeker) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	addrs, err := s.resolve(ctx, host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	if len(addrs) > maxSeedAddrs {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		addrs = addrs[:maxSeedAddrs]
	}
	return addrs, err
}

// forget drops the nodes found at addresses that the seeds do not resolve to
// any more.
func (s *seeker) forget(at []netip.AddrPort) {
	for a := range s.known {
		if !slices.Contains(at, a) {
			delete(s.known, a)
		}
	}
}

// meetSeed identifies the node at an address and connects to it, unless it is
// this node.
func (j *joiner) meetSeed(ctx context.Context, s *seeker, at netip.AddrPort) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*DialTimeout)
	defer cancel()
	id, err := s.who(ctx, at)
	if err != nil {
		return "", fmt.Errorf("%s: %w", at, err)
	}
	if id == j.ID() {
		return id, nil
	}
	addr, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(at))
	if err != nil {
		return id, fmt.Errorf("%s: %w", at, err)
	}
	j.cfg.Gate.Name(addr)
	if err := j.Peers.Connect(ctx, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{addr}}); err != nil {
		return id, DialError(err)
	}
	if !j.Peers.Member(id) {
		return id, fmt.Errorf("%s, %s: %w: give both the same network", at, id, ErrNotMember)
	}
	j.cfg.Log.Info("seed connected", "at", at, "peer", id)
	return id, nil
}

// identify returns the peer ID of the node that listens at an address: it
// begins the handshake of a libp2p connection over TCP, with a temporary key,
// up to where the other end has proved its peer ID.
func identify(ctx context.Context, at netip.AddrPort) (peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return "", err
	}
	plain, err := noise.New(noise.ID, key, nil)
	if err != nil {
		return "", err
	}
	security, err := plain.WithSessionOptions(noise.DisablePeerIDCheck())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := multistream.SelectProtoOrFail(noise.ID, conn); err != nil {
		return "", fmt.Errorf("no libp2p node answers there: %w", err)
	}
	secured, err := security.SecureOutbound(ctx, conn, "")
	if err != nil {
		return "", fmt.Errorf("no libp2p node answers there: %w", err)
	}
	return secured.RemotePeer(), nil
}
