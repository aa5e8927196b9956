package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/inspect"
	"weir/dht/liveness"
	"weir/dht/naming"
	"weir/dht/pb"
	"weir/dht/place"
	"weir/dht/policysync"
	"weir/dht/publish"
	"weir/dht/scale"
	"weir/dht/vivaldi"
)

// Config says what a node is and what it publishes.
type Config struct {
	Key     crypto.PrivKey
	Network string // name of the network; see [NetworkID]

	Listen []multiaddr.Multiaddr // TCP and QUIC; empty: nowhere, as a client does
	// PublicIP is told to others in the place of this machine's own addresses,
	// with the same ports, if a NAT in front of it maps it one to one.
	PublicIP  netip.Addr
	Bootstrap []peer.AddrInfo // any one of them suffices; self is skipped
	Seeds     []Seed          // places to join by where peer IDs are not known
	// Gate decides where others may send this node and its clients. It is told
	// here of the addresses to dial; nil: one that goes by those alone.
	Gate     *scope.Gate
	PeerFile string // where peers are remembered; "": nowhere
	Client   bool   // holds nothing and serves nothing

	// Discovery says which nodes hold records; "": [directory.Kademlia]. A mode
	// that is [directory.Mode.Listed] needs Servers, which returns the brokers, or
	// all nodes that take part, this one possibly among them. It is called
	// often, and may return other servers each time.
	Discovery directory.Mode
	Servers   func() []peer.AddrInfo

	// ClockOffset is added to the machine's clock where it is compared with
	// those of others, to try out what happens when it is wrong.
	ClockOffset time.Duration

	// Libp2p are further options of the host, such as those that put it on a
	// simulated network.
	Libp2p []libp2p.Option

	// A shard with more than ShardSplit publishers is split, and one with less
	// than ShardMerge joined to its neighbour. 0: DefaultSplit and DefaultMerge.
	ShardSplit, ShardMerge int

	// Judge returns the policy in force; nil: the default one.
	Judge func() *policy.Compiled
	// Operator is whose policies are applied; "": nobody's. Apply puts one in
	// force, which Judge returns from then on, or says why not. It is called
	// with one policy at a time, each newer than the one before.
	Operator peer.ID
	Apply    func(p signed.Policy, sealed []byte) error
	// Sample returns what to publish now: the node's record, of which Node,
	// Seq, Issued, TTL, Addrs, Coordinate and Carries are filled in here,
	// and one carriage per stream carried. It is called a few times a second,
	// and by whoever answers a reservation. Nil: nothing is published.
	Sample func() (capacity.Record, []capacity.Carriage)
	// Grant gives a lease for a request or refuses with a
	// *capacity.Refusal; Release takes one back. Nil: nothing is granted.
	Grant   func(capacity.Request) (capacity.Lease, error)
	Release func(from peer.ID, id string)
	// Provisioner starts and stops servers; nil: this node does not.
	Provisioner *scale.Provisioner

	// Event is told what happens to peers; nil: nobody is. It must not block.
	Event func(event.Event)

	Log *slog.Logger // nil: nothing is logged
	// Tracer records the spans of what is done for a request that has a trace; nil:
	// nobody does, and the trace goes on to other nodes all the same.
	Tracer trace.Tracer
}

// A Node is this machine's place in the network. Close it after use; what
// keeps it in the network is [Node.Run].
type Node struct {
	Policies *policysync.Sync // keeps up with the operator's policy
	Reader   *inspect.Reader  // reads what holders hold
	// Provisioners start and stop servers.
	Provisioners *scale.Provisioners

	cfg      Config
	network  string // its ID
	records  protocol.ID
	reserves protocol.ID
	policyID protocol.ID
	// provisionID is that of requests for servers.
	provisionID protocol.ID
	host        host.Host
	kad         *kaddht.IpfsDHT
	log         *slog.Logger
	tracer      trace.Tracer

	traffic   *traffic
	reach     *liveness.Detector
	dir       directory.Directory
	cache     *directory.Cache
	lookUps   directory.LookUps
	table     *holder.Table // what it holds for others and itself; empty in a client
	sharding  *directory.Sharding
	regions   regionIndex
	coords    vivaldi.Client
	told      told
	newest    *newestLog
	beliefs   *holder.Beliefs
	doubts    *holder.Doubts   // of those who ask it
	desk      desk             // inbound requests at once, per peer
	rates     holder.RateLimit // of records sent here, per peer
	lanes     lanes            // outbound requests at once, per peer
	publisher *publish.Publisher
	copies    copies
	names     *naming.Registrar
	settling  atomic.Int64 // Unix ns since when it is one of a few that hold everything; 0: it is not
	ready     chan struct{}
	changed   chan struct{} // a peer came or went: have a look

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool           // nothing starts once set
	wg     sync.WaitGroup // what start and serve began: handlers, calls, watchers
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
	if cfg.Judge == nil {
		judge, err := policy.Compile(policy.Default())
		if err != nil {
			return nil, err
		}
		cfg.Judge = func() *policy.Compiled { return judge }
	}
	var err error
	if cfg.Discovery, err = directory.ParseMode(string(cfg.Discovery)); err != nil {
		return nil, err
	}
	if cfg.Discovery.Listed() && cfg.Servers == nil {
		return nil, fmt.Errorf("discovery %s: no list of servers", cfg.Discovery)
	}
	coords, err := vivaldi.New()
	if err != nil {
		return nil, err
	}
	id := NetworkID(cfg.Network)
	n := &Node{
		cfg:         cfg,
		network:     id,
		records:     protocolPrefix(id) + "/records/1",
		reserves:    protocolPrefix(id) + "/reserve/1",
		policyID:    protocolPrefix(id) + "/policy/1",
		provisionID: protocolPrefix(id) + "/provision/1",
		log:         cfg.Log,
		tracer:      cfg.Tracer,
		traffic:     newTraffic(),
		reach:       liveness.New(),
		cache:       directory.NewCache(),
		table:       holder.NewTable(holder.DefaultLimits()),
		coords:      coords,
		newest:      newNewestLog(),
		beliefs:     holder.NewBeliefs(),
		doubts:      holder.NewDoubts(),
		ready:       make(chan struct{}),
		changed:     make(chan struct{}, 1),
		copies:      copies{suspected: make(chan struct{}, 1)},
	}
	self, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	n.sharding = directory.NewSharding(self, cfg.ShardSplit, cfg.ShardMerge)
	n.dir = directory.New(cfg.Discovery, directory.View{
		ID: self, Client: cfg.Client, NetworkID: id, Live: n.reach, Servers: n.servers,
		Cache: n.cache, Home: n.sharding.Home, Member: n.member,
		Near: func(key kb.ID) []peer.ID { return n.kad.RoutingTable().NearestPeers(key, n.kad.BucketSize()) },
	})
	n.lookUps = directory.LookUps{
		Cache: n.cache, NetworkID: id, Whole: n.dir.Whole, Home: n.sharding.Home, Log: n.log,
		Closest: func(ctx context.Context, key string) ([]peer.ID, error) { return n.kad.GetClosestPeers(ctx, key) },
		Alone:   func() bool { return n.kad.RoutingTable().Size() == 0 },
	}
	n.publisher = publish.New(n.publishing(self))
	n.names = naming.New(n.naming(self))
	n.host, err = newHost(cfg.Key, cfg.Listen, cfg.PublicIP, append(slices.Clone(cfg.Libp2p), libp2p.ConnectionGater(newDialGate(cfg.Gate, cfg.Bootstrap))), n.traffic, n.records, n.reserves, n.policyID, n.provisionID)
	if err != nil {
		return nil, err
	}
	n.gateOwn(uses)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.Policies = policysync.New(n.policyConfig())
	n.Provisioners = n.newProvisioners()
	n.Reader = n.newReader()
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			n.answered(c.RemotePeer(), 0)
			n.receiveDatagrams(c)
			n.Policies.Connected(c.RemotePeer())
			n.wake()
		},
		DisconnectedF: func(net network.Network, c network.Conn) {
			if net.Connectedness(c.RemotePeer()) != network.Connected {
				n.coords.Forget(c.RemotePeer())
			}
			n.wake()
		},
	})
	n.kad, err = newKad(n.host, protocolPrefix(id), cfg.Client, cfg.Operator)
	if err != nil {
		return nil, errors.Join(err, n.host.Close())
	}
	if !cfg.Client {
		n.host.SetStreamHandler(n.records, n.serve(n.serveRecords))
		n.host.SetStreamHandler(n.reserves, n.serve(n.serveReserve))
		n.host.SetStreamHandler(n.policyID, n.serve(func(s network.Stream) {
			var req pb.PolicyExchange
			n.serveOne(s, policysync.MaxFrame, &req, &pb.PolicyExchange{Error: errBusy.Error()}, func(from peer.ID) proto.Message { return n.Policies.Answer(from, &req) })
		}))
		n.host.SetStreamHandler(n.provisionID, n.serve(func(s network.Stream) {
			var req pb.ProvisionRequest
			n.serveOne(s, maxProvision, &req, &pb.ProvisionResponse{Error: errBusy.Error()}, func(from peer.ID) proto.Message { return n.answerProvision(from, &req) })
		}))
	}
	return n, nil
}

// Run keeps the node in the network until ctx is done, and returns ctx.Err():
// it connects to bootstrap and remembered peers, for ever; publishes its
// records; measures round trips; looks holders up. At the end it withdraws its
// records and hands on those of others, which takes a second and a half at most.
// It is called once.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.bootstrap(ctx) })
	if !n.cfg.Discovery.Listed() {
		g.Go(func() error { return n.lookUps.Run(ctx) })
	}
	g.Go(func() error { return n.probe(ctx) })
	g.Go(func() error { return n.sweep(ctx) })
	g.Go(func() error { return n.refreshRegions(ctx) })
	g.Go(func() error { return n.Policies.Run(ctx, n.ready) })
	g.Go(func() error { return n.watchForCopies(ctx) })
	if n.cfg.Sample != nil {
		g.Go(func() error { return n.publisher.Run(ctx) })
	}
	err := g.Wait()
	if n.cfg.Sample != nil {
		n.publisher.Leave()
	}
	n.handOver()
	return err
}

// Close stops the node and waits: once it has returned, nothing of the node's
// runs any more. It may be called more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	n.mu.Unlock()
	var err error
	if first {
		n.cancel()
		err = errors.Join(n.publisher.Close(), n.names.Close(), n.kad.Close(), n.host.Close())
	}
	n.wg.Wait()
	return err
}

// policyConfig wires the spread of policies to the network.
func (n *Node) policyConfig() policysync.Config {
	return policysync.Config{
		Operator: n.cfg.Operator,
		Apply:    n.cfg.Apply,
		Peers: func() (peers []peer.ID) {
			for _, ai := range n.members() {
				peers = append(peers, ai.ID)
			}
			return peers
		},
		Exchange: func(ctx context.Context, p peer.ID, req *pb.PolicyExchange) (*pb.PolicyExchange, error) {
			resp := &pb.PolicyExchange{}
			_, _, err := n.call(ctx, p, n.policyID, req, resp, policysync.MaxFrame)
			return resp, err
		},
		Joined: func() bool { return n.kad.RoutingTable().Size() > 0 },
		Put:    func(ctx context.Context, key string, value []byte) error { return n.kad.PutValue(ctx, key, value) },
		Get:    func(ctx context.Context, key string) ([]byte, error) { return n.kad.GetValue(ctx, key) },
		Closest: func(key string) bool {
			id := kb.ConvertKey(key)
			return directory.Elect(id, n.self(), n.kad.RoutingTable().NearestPeers(id, holder.Replicas)).Self
		},
		Go:  func(f func(context.Context)) bool { return n.start(func() { f(n.ctx) }) },
		Log: n.log,
	}
}

// start runs f on a goroutine that Close waits for, and reports false without
// doing so if Close has begun.
func (n *Node) start(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Go(f)
	return true
}

// serve makes f a stream handler that Close waits for.
func (n *Node) serve(f func(network.Stream)) network.StreamHandler {
	return func(s network.Stream) {
		n.mu.Lock()
		closed := n.closed
		if !closed {
			n.wg.Add(1)
		}
		n.mu.Unlock()
		if closed {
			_ = s.Reset()
			return
		}
		defer n.wg.Done()
		f(s)
	}
}

// wall is the clock that others' times are compared with.
func (n *Node) wall(now time.Time) time.Time { return now.Add(n.cfg.ClockOffset) }

// ID is the node's peer ID.
func (n *Node) ID() peer.ID { return n.host.ID() }

// Host is the libp2p host below the node. It ends with the node.
func (n *Node) Host() host.Host { return n.host }

// NetworkID is the ID in the node's protocol names.
func (n *Node) NetworkID() string { return n.network }

// Addrs are the addresses others reach this node at, each with /p2p/ID.
func (n *Node) Addrs() []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: n.ID(), Addrs: n.host.Addrs()})
	if err != nil {
		return nil // only for an ID that is none
	}
	return addrs
}

// Ready is closed once every bootstrap peer has been tried and a holder has
// accepted the node's record, or nobody is there to accept it. A node that
// publishes nothing is ready once it has looked holders up.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Coordinate is the node's Vivaldi coordinate, in seconds.
func (n *Node) Coordinate() *coordinate.Coordinate { return n.coords.Here() }

// Traffic is what each protocol has cost since the node started.
func (n *Node) Traffic() []Traffic { return n.traffic.list() }

// Flooded is how many records and datagrams of peers were refused since they sent
// too many.
func (n *Node) Flooded() uint64 { return n.rates.Refused() }

// Kick makes the node publish as soon as the pace allows: a stream that is new
// or gone at once, all else half a second after the last time.
func (n *Node) Kick() { n.publisher.Kick() }

// OpenStream opens a stream of the protocol /weir/<network-id>/name to id,
// connecting first if need be, also by addrs, all within ctx.
func (n *Node) OpenStream(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr, name string) (network.Stream, error) {
	n.learn(id, addrs)
	n.locate(ctx, id)
	return n.host.NewStream(ctx, id, protocolPrefix(n.network)+protocol.ID("/"+name))
}

// Handle lets f serve the streams of the protocol /weir/<network-id>/name. F
// runs on a goroutine of its own per stream, which Close waits for; Close
// resets the stream.
func (n *Node) Handle(name string, f func(network.Stream)) {
	n.host.SetStreamHandler(protocolPrefix(n.network)+protocol.ID("/"+name), n.serve(f))
}

const protectTag = "weir-link"

// locateTime bounds the search for a node's addresses.
const locateTime = 1500 * time.Millisecond

// Protect keeps the connection to id from being trimmed.
func (n *Node) Protect(id peer.ID) { n.host.ConnManager().Protect(id, protectTag) }

// Unprotect ends what Protect began.
func (n *Node) Unprotect(id peer.ID) { n.host.ConnManager().Unprotect(id, protectTag) }

// learn keeps addresses at which id may be dialled.
func (n *Node) learn(id peer.ID, addrs []multiaddr.Multiaddr) {
	if len(addrs) > 0 && id != n.ID() {
		n.host.Peerstore().AddAddrs(id, addrs, peerstore.TempAddrTTL)
	}
}

// locate prepares for a dial to id: it asks the network for addresses if there
// are none, and makes libp2p forget past failures, for whoever calls has a
// reason to try now.
func (n *Node) locate(ctx context.Context, id peer.ID) {
	if n.host.Network().Connectedness(id) == network.Connected {
		return
	}
	n.clearBackoff(id)
	if len(n.host.Peerstore().Addrs(id)) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, locateTime)
	defer cancel()
	ai, err := n.kad.FindPeer(ctx, id)
	if err != nil {
		n.log.Debug("peer not located", "peer", id, "err", err)
		return
	}
	n.learn(id, ai.Addrs)
}

// servers are the listed servers, this node perhaps among them, in the order of
// their IDs, or nil if none are listed. It sees to it that they can be dialled.
func (n *Node) servers() []peer.ID {
	if !n.cfg.Discovery.Listed() {
		return nil
	}
	var list []peer.ID
	for _, ai := range n.cfg.Servers() {
		list = append(list, ai.ID)
		n.cfg.Gate.Name(ai.Addrs...)
		if n.host.Network().Connectedness(ai.ID) != network.Connected {
			n.learn(ai.ID, ai.Addrs)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// wake makes whoever waits for peers to come or go look again.
func (n *Node) wake() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// self is the node's ID as a holder, "" in a client.
func (n *Node) self() peer.ID {
	if n.cfg.Client {
		return ""
	}
	return n.ID()
}

// Holders are the nodes that hold topic as far as this one knows, closest
// first, this one included if it is among them.
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

// deadline is how long id may take to answer a request.
func (n *Node) deadline(id peer.ID) time.Duration {
	least := 300 * time.Millisecond
	if n.host.Network().Connectedness(id) != network.Connected {
		least = time.Second // three or four round trips come on top
	}
	return min(max(least, 4*n.reach.RTT(id)), 2*time.Second)
}

// patience is how long to wait for id's answer before asking others too.
func (n *Node) patience(id peer.ID) time.Duration {
	return place.Patience(n.reach.RTT(id), n.host.Network().Connectedness(id) == network.Connected)
}

// errLate means that a peer's answer is not there when it should be.
var errLate = errors.New("no answer when it was due")

// dropStale closes all connections to id but the newest, if there are several: a
// node that was restarted has opened a new one, while what is sent over the old
// one gets lost until it times out.
func (n *Node) dropStale(id peer.ID) {
	conns := n.host.Network().ConnsToPeer(id)
	if len(conns) < 2 {
		return
	}
	newest := slices.MaxFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
	for _, c := range conns {
		if c != newest {
			n.start(func() { _ = c.Close() })
		}
	}
}

// sweep drops what has run out, once a second, for the watchers' sake, and
// notices when the process was stopped for a while: what it holds is stale
// then, and it has to ask others again.
func (n *Node) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Now()
	for {
		// The wall clock: the monotonic one may stand still in a sleep.
		now := time.Now()
		stopped := now.Round(0).Sub(last.Round(0)) > holder.Keepalive
		switch {
		case n.kad.RoutingTable().Size() == 0 || !n.dir.Whole(time.Now()):
			n.settling.Store(0)
		case stopped || n.settling.Load() == 0:
			n.settling.Store(now.UnixNano())
		}
		last = now
		n.table.Sweep(now)
		for _, p := range n.reach.Lost(now, n.connected) {
			n.event(event.Event{Kind: event.PeerLost, Peer: p})
		}
		n.rates.Sweep(now)
		n.names.Sweep(now)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) connected(p peer.ID) bool {
	return n.host.Network().Connectedness(p) == network.Connected
}

// settled reports whether this node has been one of a few that hold everything
// for a TTL without a break, so that every publisher has had the time to tell
// it. Until then its own memory is no answer.
func (n *Node) settled() bool {
	since := n.settling.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > capacity.DefaultTTL
}

// answered and failed keep account of id, and look for other holders when it
// went down.
func (n *Node) answered(id peer.ID, rtt time.Duration) {
	if lost := n.reach.Answered(time.Now(), id, rtt); lost > 0 {
		n.event(event.Event{Kind: event.PeerBack, Peer: id, Elapsed: millis(lost)})
	}
}

func (n *Node) event(e event.Event) {
	if n.cfg.Event != nil {
		e.Time = time.Now()
		n.cfg.Event(e)
	}
}

func (n *Node) failed(id peer.ID, err error) {
	how := liveness.BadAnswer
	switch {
	case errors.Is(err, network.ErrResourceLimitExceeded), errors.Is(err, context.Canceled):
		return // our own doing
	case errors.Is(err, errUnreachable):
		how = liveness.NoConnection
	case errors.Is(err, errLate):
		how = liveness.Late
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		how = liveness.NoAnswer
	}
	if !n.reach.Failed(time.Now(), id, how) {
		return
	}
	var foreign multistream.ErrNotSupported[protocol.ID]
	if n.cfg.Discovery.Listed() && errors.As(err, &foreign) {
		n.log.Warn("listed server is no node of this network: take it off the list, or give both the same --network", "peer", id)
	} else {
		n.log.Debug("peer is down", "peer", id, "err", err)
	}
	if how == liveness.NoConnection {
		n.kad.RoutingTable().RemovePeer(id)
	}
	n.dropStale(id)
	n.cache.Lost(id)
	// If one holder is gone, others may be: have the next record confirmed.
	n.publisher.Doubt(id)
}
