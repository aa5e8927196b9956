package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/dht/datagram"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/identity"
	"weir/dht/inspect"
	"weir/dht/naming"
	"weir/dht/overlay"
	"weir/dht/place"
	"weir/dht/policysync"
	"weir/dht/publish"
	"weir/dht/records"
	"weir/dht/reserve"
	"weir/dht/scale"
	"weir/dht/seek"
	"weir/dht/shortfall"
)

// Config is a node's identity, its network and the callbacks that it publishes
// from.
type Config struct {
	Key     crypto.PrivKey
	Network string // name of the network; see [NetworkID]

	Listen []multiaddr.Multiaddr // TCP and QUIC; empty: no address, as for a client
	// PublicIP is announced to others instead of this machine's own addresses,
	// with the same ports, if a NAT in front of it maps it one to one.
	PublicIP  netip.Addr
	Bootstrap []peer.AddrInfo // any one of them suffices; self is skipped
	Seeds     []overlay.Seed  // places to join by if peer IDs are not known
	// Gate decides where others may send this node and its clients. The node
	// registers the addresses to dial with it; nil: a gate that knows only
	// those.
	Gate     *scope.Gate
	PeerFile string // file of remembered peers; "": none
	Client   bool   // holds nothing and serves nothing

	// Discovery says which nodes hold records; "": [directory.Kademlia]. A mode
	// that is [directory.Mode.Listed] needs Servers, which returns the brokers,
	// or all nodes that take part, possibly including this one. It is called
	// often, and may return other servers each time.
	Discovery directory.Mode
	Servers   func() []peer.AddrInfo

	// ClockOffset is added to the machine's clock where it is compared with
	// those of others, to test the effects of a wrong clock.
	ClockOffset time.Duration

	// Libp2p are further options of the host, such as those that put it on a
	// simulated network.
	Libp2p []libp2p.Option

	// ShardSplit is the number of publishers above which a shard is split, and
	// ShardMerge the one below which it is joined to its neighbour. 0:
	// DefaultSplit and DefaultMerge.
	ShardSplit, ShardMerge int

	// Policy returns the policy in force; nil: the default one.
	Policy func() *policy.Compiled
	// Operator is the peer whose signed policies are applied; "": none. Apply
	// puts one in force, which Policy returns from then on, or returns why not.
	// It is called with one policy at a time, each newer than the one before.
	Operator peer.ID
	Apply    func(p signed.Policy, sealed []byte) error
	// Sample returns the current state to publish: the node's record, of which
	// Node, Seq, Issued, TTL, Addrs, Coordinate and Carries are filled in here,
	// and one carriage per stream carried. It is called a few times a second,
	// and for every reservation answered. Nil: nothing is published.
	Sample func() (capacity.Record, []capacity.StreamInfo)
	// Yield has this node's publisher of stream give way to one at another node,
	// of the same right or not, and reports whether it does. Nil: none ever does.
	Yield func(stream string, same bool) bool
	// Grant returns a lease for a request or refuses with a *capacity.Refusal;
	// Release takes one back. Nil: nothing is granted.
	Grant   func(capacity.Request) (capacity.Lease, error)
	Release func(from peer.ID, id string)
	// Provisioner starts and stops servers; nil: this node does not.
	Provisioner *scale.Provisioner

	// Event receives what happens to peers; nil: events are dropped. It must
	// not block.
	Event func(event.Event)

	Log *slog.Logger // nil: nothing is logged
	// Tracer records the spans of work done for a request that has a trace;
	// nil: none are recorded, and the trace is still passed to other nodes.
	Tracer trace.Tracer
}

// ParseBootstrap parses a bootstrap peer's address, a multiaddr that ends in
// /p2p/ and its peer ID.
func ParseBootstrap(s string) (peer.AddrInfo, error) {
	return directory.ParseAddr("bootstrap address", s)
}

// A Node is this process's membership in the network. Close it after use;
// [Node.Run] keeps it in the network.
type Node struct {
	Policies *policysync.Sync // follows the operator's policy
	Reader   *inspect.Reader  // reads the tables of holders
	Prober   *inspect.Prober  // asks other nodes for their status
	// Shortfalls receives the nodes that deliver less than they should.
	Shortfalls *shortfall.Judge
	Seeker     *seek.Seeker // finds and places
	// Provisioners start and stop servers.
	Provisioners *scale.Provisioners
	// Names claims the names of streams, and knows who publishes them.
	Names *naming.Registrar
	// Publisher keeps this node's records at their holders.
	Publisher *publish.Publisher
	// Overlay is the libp2p part: the host, streams of further protocols, and
	// traffic counts. It ends with the node.
	Overlay *overlay.Overlay

	cfg       Config
	network   string // the network's ID
	protocols protocols
	log       *slog.Logger

	peers      *overlay.Peers // of Overlay
	dir        directory.Directory
	cache      *directory.Cache
	lookUps    directory.LookUps
	table      *holder.Table // records held for others and for itself; empty in a client
	sharding   *directory.Sharding
	newest     *place.Memory
	reputation *holder.Reputation
	reports    *holder.Reports  // of the seekers that query this node
	rates      holder.RateLimit // of records sent to this node, per peer
	acks       records.Acks
	copies     *identity.Copies
	holding    *holding.Holder
	records    *records.Server
	client     records.Client
	reserve    reserve.Server
	exchange   scale.Exchange
	datagrams  *datagram.Exchange
	warmth     holder.Warmth
	ready      chan struct{}
}

// protocols are the names of a network's protocols, but for kad-dht's.
type protocols struct{ records, reserve, policy, provision protocol.ID }

func protocolsOf(networkID string) protocols {
	prefix := protocolPrefix(networkID)
	return protocols{
		records:   prefix + "/records/1",
		reserve:   prefix + "/reserve/1",
		policy:    prefix + "/policy/1",
		provision: prefix + "/provision/1",
	}
}

// Listen makes a node and binds its addresses. A busy port is an error that
// names the address. Nothing is sent before [Node.Run].
func Listen(cfg Config) (*Node, error) {
	if cfg.Key == nil {
		return nil, errors.New("dht: no identity key")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	uses := []scope.Use{scope.Dial}
	if cfg.Gate == nil {
		cfg.Gate = scope.NewGate(cfg.Log, false)
		uses = append(uses, scope.Redirect)
	}
	if cfg.Event == nil {
		cfg.Event = func(event.Event) {}
	}
	if cfg.Policy == nil {
		compiled, err := policy.Compile(policy.Default())
		if err != nil {
			return nil, err
		}
		cfg.Policy = func() *policy.Compiled { return compiled }
	}
	var err error
	if cfg.Discovery, err = directory.ParseMode(string(cfg.Discovery)); err != nil {
		return nil, err
	}
	if cfg.Discovery.Listed() && cfg.Servers == nil {
		return nil, fmt.Errorf("discovery %s: no list of servers", cfg.Discovery)
	}
	id := NetworkID(cfg.Network)
	n := &Node{
		cfg:        cfg,
		network:    id,
		protocols:  protocolsOf(id),
		log:        cfg.Log,
		cache:      directory.NewCache(),
		table:      holder.NewTable(holder.DefaultLimits()),
		newest:     place.NewMemory(),
		reputation: holder.NewReputation(),
		reports:    holder.NewReports(),
		ready:      make(chan struct{}),
	}
	if err := n.wire(uses); err != nil {
		return nil, err
	}
	if !cfg.Client {
		n.serve()
	}
	if err := n.Overlay.Listen(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Run keeps the node in the network until ctx is done, and returns ctx.Err():
// it connects to bootstrap and remembered peers, without end; publishes its
// records; measures round trips; looks holders up. At the end it withdraws its
// records and hands over those of others, which takes a second and a half at
// most. It is called once.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Overlay.Run(ctx) })
	g.Go(func() error { return n.announce(ctx) })
	if !n.cfg.Discovery.Listed() {
		g.Go(func() error { return n.lookUps.Run(ctx) })
	}
	g.Go(func() error { return n.Prober.Run(ctx) })
	g.Go(func() error { return n.sweep(ctx) })
	g.Go(func() error { return n.Seeker.Regions.Run(ctx) })
	g.Go(func() error { return n.Policies.Run(ctx, n.ready) })
	g.Go(func() error { return n.copies.Run(ctx) })
	if n.cfg.Sample != nil {
		g.Go(func() error { return n.Publisher.Run(ctx) })
	}
	err := g.Wait()
	if n.cfg.Sample != nil {
		n.Publisher.Leave()
	}
	n.handOver()
	return err
}

// handOver sends the records that this node holds to the nodes that replace it
// as holders.
func (n *Node) handOver() {
	if now := time.Now(); !n.cfg.Client && !n.dir.Complete(now) {
		n.client.HandOver(n.Overlay.Context(), n.holding.HandOvers(now, n.peers.Connected))
	}
}

// Close stops the node and waits: once it has returned, no goroutine of the
// node runs any more. It may be called more than once.
func (n *Node) Close() error {
	return errors.Join(n.Publisher.Close(), n.Names.Close(), n.Overlay.Close())
}

// wall is the clock to compare with the times of other nodes: now plus
// Config.ClockOffset.
func (n *Node) wall(now time.Time) time.Time { return now.Add(n.cfg.ClockOffset) }

// ID is the node's peer ID.
func (n *Node) ID() peer.ID { return n.Overlay.Host.ID() }

// NetworkID is the ID in the node's protocol names.
func (n *Node) NetworkID() string { return n.network }

// Ready is closed once every bootstrap peer has been tried and a holder has
// accepted the node's record, or there is no holder to accept it. A node that
// publishes nothing is ready once it has looked holders up.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Flooded is the number of records and datagrams refused from peers over their
// rate limit.
func (n *Node) Flooded() uint64 { return n.rates.Refused() }

// servers are the listed servers, possibly including this node, in the order of
// their IDs, or nil if none are listed. It adds their addresses to the
// peerstore.
func (n *Node) servers() []peer.ID {
	if !n.cfg.Discovery.Listed() {
		return nil
	}
	var list []peer.ID
	for _, ai := range n.cfg.Servers() {
		list = append(list, ai.ID)
		n.cfg.Gate.Name(ai.Addrs...)
		if !n.peers.Connected(ai.ID) {
			n.peers.Learn(ai.ID, ai.Addrs)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Holders are the nodes that hold topic as far as this node knows, closest
// first, including this one if it is among them.
func (n *Node) Holders(topic Topic) []peer.ID {
	if topic == CapacityTopic() {
		topic = n.sharding.Home()
	}
	h, _ := n.dir.Holders(time.Now(), topic)
	list := slices.Clone(h.Remote)
	if h.Self {
		list = append(list, n.ID())
	}
	return directory.Closest(kb.ConvertKey(topic.Key(n.network)), list)
}

// sweep drops expired records once a second, so that watchers see them go. It
// also detects that the process was suspended for a while: its records are
// stale then, and it has to ask others again.
func (n *Node) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		now := time.Now()
		n.warmth.Note(now, n.Overlay.Kad.RoutingTable().Size() > 0 && n.dir.Complete(now))
		n.table.Sweep(now)
		n.rates.Sweep(now)
		n.Names.Sweep(now)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// down looks for other holders when a peer went down.
func (n *Node) down(id peer.ID, err error) {
	var foreign multistream.ErrNotSupported[protocol.ID]
	if n.cfg.Discovery.Listed() && errors.As(err, &foreign) {
		n.log.Warn("listed server is no node of this network: take it off the list, or give both the same network", "peer", id)
	} else {
		n.log.Debug("peer is down", "peer", id, "err", err)
	}
	n.cache.Lost(id)
	// If one holder is gone, others may be: have the next record confirmed.
	n.Publisher.Doubt(id)
}

// announce closes ready once every way to join has been tried and a holder has
// accepted the record, or there is none to do so. A node without records is
// ready once it has looked holders up.
func (n *Node) announce(ctx context.Context) error {
	select {
	case <-n.Overlay.Tried():
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		h, looked := n.dir.Holders(time.Now(), CapacityTopic())
		if n.peers.Alone() || looked && (n.cfg.Sample == nil || len(h.Remote) == 0) {
			break
		}
		select {
		case <-n.Publisher.Accepted():
			close(n.ready)
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	close(n.ready)
	return nil
}
