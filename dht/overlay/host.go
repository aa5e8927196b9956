package overlay

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Limits of a host. libp2p's defaults refuse the 253rd connection, trim at 192,
// and allow eight connections per IPv4 address: too few for the holders of a
// popular topic, or for several nodes behind one address.
const (
	connsLow    = 1_024 // the connection manager trims down to this…
	connsHigh   = 1_280 // …when there are more than this
	connsMost   = 4_096
	streamsMost = 32_768
	connsSubnet = 512 // from one IPv4 address or one IPv6 /56
	dialsSubnet = 50  // new connections per second from one of those

	// StreamsPerPeer is how many streams may be open at once with one peer over
	// one of Config.Protocols, in each direction.
	StreamsPerPeer = 64
)

// newHost returns a libp2p host that does not listen yet, and announces the
// addresses at publicIP if there is one. The protocols are those whose streams
// per peer are bounded.
func newHost(key crypto.PrivKey, publicIP netip.Addr, more []libp2p.Option, reporter metrics.Reporter, protocols ...protocol.ID) (host.Host, error) {
	resources, err := newResources(protocols)
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(connsLow, connsHigh, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connection manager: %w", err), resources.Close())
	}
	transports := []libp2p.Option{
		libp2p.Transport(quic.NewTransport),
		// Without SO_REUSEPORT: a second node on the same port would share it
		// and get every other connection, instead of an error.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
	}
	announce := realAddrs
	if publicIP.IsValid() {
		announce = func(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr { return realAddrs(mapped(addrs, publicIP)) }
		// The addresses that peers observe are not needed, and a port that the
		// NAT chose for an outgoing connection leads nowhere.
		transports = append(transports, libp2p.DisableIdentifyAddressDiscovery())
	}
	h, err := libp2p.New(append(append(transports, more...),
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(conns),
		libp2p.BandwidthReporter(reporter),
		libp2p.AddrsFactory(announce),
		libp2p.DisableMetrics(),
		libp2p.UserAgent("weir"),
	)...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("libp2p host: %w", err), resources.Close())
	}
	return h, nil
}

func newResources(protocols []protocol.ID) (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	perPeer := rcmgr.BaseLimit{
		Streams:         2 * StreamsPerPeer,
		StreamsInbound:  StreamsPerPeer,
		StreamsOutbound: StreamsPerPeer,
		Memory:          16 << 20,
	}
	for _, p := range protocols {
		scaling.AddProtocolPeerLimit(p, perPeer, rcmgr.BaseLimitIncrease{})
	}
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: connsMost, ConnsInbound: connsMost, ConnsOutbound: connsMost,
			Streams: streamsMost, StreamsInbound: streamsMost, StreamsOutbound: streamsMost,
			FD: connsMost,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: connsLow, ConnsInbound: connsLow, ConnsOutbound: connsLow,
			Streams: connsLow, StreamsInbound: connsLow, StreamsOutbound: connsLow,
			FD: connsLow,
		},
		ProtocolDefault: rcmgr.ResourceLimits{
			Streams: streamsMost, StreamsInbound: streamsMost, StreamsOutbound: streamsMost,
		},
	}.Build(scaling.AutoScale())

	dials := rate.Limit{RPS: dialsSubnet, Burst: connsSubnet}
	loopback := make([]rate.PrefixLimit, 0, 2)
	for _, l := range slices.Concat(rcmgr.DefaultNetworkPrefixLimitV4, rcmgr.DefaultNetworkPrefixLimitV6) {
		loopback = append(loopback, rate.PrefixLimit{Prefix: l.Network}) // no limit
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsSubnet}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsSubnet}, {PrefixLength: 48, ConnCount: connsMost}},
		),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: rcmgr.DefaultNetworkPrefixLimitV4[0].Network, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: rcmgr.DefaultNetworkPrefixLimitV6[0].Network, ConnCount: math.MaxInt}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: loopback,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: dials}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: dials}},
				GracePeriod:      time.Minute,
			},
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	return m, nil
}

// realAddrs drops the addresses that do not lead here from other machines:
// loopback and link-local ones, unless there are no others, and unspecified
// ones.
func realAddrs(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	addrs = slices.DeleteFunc(slices.Clone(addrs), manet.IsIPUnspecified)
	far := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool {
		return manet.IsIPLoopback(a) || manet.IsIP6LinkLocal(a)
	})
	if len(far) > 0 {
		return far
	}
	return addrs
}

// mapped replaces this machine's own addresses by public, within the same
// family, for a NAT that maps them one to one: the ports stay. Loopback
// addresses are kept, because no NAT leads to them.
func mapped(addrs []multiaddr.Multiaddr, public netip.Addr) []multiaddr.Multiaddr {
	proto := "ip6"
	if public.Is4() {
		proto = "ip4"
	}
	host, err := multiaddr.NewComponent(proto, public.String())
	if err != nil {
		return addrs // only for an address with a zone, which is no public one
	}
	var all []multiaddr.Multiaddr
	for _, a := range addrs {
		first, rest := multiaddr.SplitFirst(a)
		if first != nil && first.Protocol().Code == host.Protocol().Code && !manet.IsIPLoopback(a) && !manet.IsIPUnspecified(a) {
			a = host.Encapsulate(rest)
		}
		if !slices.ContainsFunc(all, a.Equal) {
			all = append(all, a)
		}
	}
	return all
}

// newKad returns the routing table and look-ups among the nodes under prefix. A
// server answers others; a client only asks. Provider records are off: weir's
// records have a protocol of their own.
func newKad(h host.Host, prefix protocol.ID, client bool, values kaddht.Option) (*kaddht.IpfsDHT, error) {
	mode := kaddht.ModeServer
	if client {
		mode = kaddht.ModeClient
	}
	if values == nil {
		values = kaddht.DisableValues()
	}
	// The default filters keep loopback and private networks out of the table;
	// here any peer that speaks the protocol and has an address is accepted.
	kad, err := kaddht.New(h,
		kaddht.ProtocolPrefix(prefix),
		kaddht.Mode(mode),
		values,
		kaddht.DisableProviders(),
		kaddht.QueryFilter(func(_ any, ai peer.AddrInfo) bool { return len(ai.Addrs) > 0 }),
		kaddht.RoutingTableFilter(func(any, peer.ID) bool { return true }),
		kaddht.AddressFilter(func(as []multiaddr.Multiaddr) []multiaddr.Multiaddr { return as }),
		kaddht.RoutingTablePeerDiversityFilter(nil),
		kaddht.RoutingTableRefreshQueryTimeout(3*time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("kad-dht: %w", err)
	}
	return kad, nil
}
