package dht

import (
	"context"
	"slices"
	"time"

	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/dht/datagram"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/identity"
	"weir/dht/inspect"
	"weir/dht/naming"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/policysync"
	"weir/dht/publish"
	"weir/dht/records"
	"weir/dht/reserve"
	"weir/dht/scale"
	"weir/dht/seek"
	"weir/dht/shortfall"
)

// Tags for the connection manager, should there be too many connections: a
// publisher, or one of this node's holders, is worth more than any other peer.
const (
	publisherTag, holderTag = "weir-publisher", "weir-holder"
	peerWeight              = 50
)

// wire makes the node's parts. Each is given those that are made before it, and
// functions that call the others, which none calls before [Node.Run].
func (n *Node) wire(uses []scope.Use) error {
	if err := n.wireOverlay(uses); err != nil {
		return err
	}
	n.wireDirectory()
	n.wirePublisher()
	n.wireHolder()
	n.wireInspection()
	n.wireSeeker()
	n.wirePolicies()
	return nil
}

func (n *Node) wireOverlay(uses []scope.Use) (err error) {
	p := n.protocols
	c := overlay.Config{
		Key: n.cfg.Key, Network: n.cfg.Network, Prefix: protocolPrefix(n.network), Member: p.records,
		Protocols: []protocol.ID{p.records, p.reserve, p.policy, p.provision},
		Listen:    n.cfg.Listen, PublicIP: n.cfg.PublicIP, Client: n.cfg.Client, Libp2p: n.cfg.Libp2p,
		Bootstrap: n.cfg.Bootstrap, Seeds: n.cfg.Seeds, PeerFile: n.cfg.PeerFile,
		Gate: n.cfg.Gate, Uses: uses,
		Connected: func(c network.Conn) {
			if !n.cfg.Client {
				n.datagrams.Receive(c)
			}
			n.Policies.Connected(c.RemotePeer())
		},
		Down:  n.down,
		Event: n.cfg.Event, Log: n.log, Tracer: n.cfg.Tracer,
	}
	if n.cfg.Discovery.Listed() {
		c.Servers = n.cfg.Servers
	}
	if n.cfg.Operator != "" {
		c.Values = kaddht.Validator(policysync.Validator{Operator: n.cfg.Operator})
	}
	if n.Overlay, err = overlay.New(c); err != nil {
		return err
	}
	n.peers = n.Overlay.Peers
	n.client = records.Client{
		Overlay: n.Overlay, Protocol: p.records, Peers: n.peers, Open: n.Overlay.Host.NewStream, Wall: n.wall, Log: n.log,
	}
	return nil
}

func (n *Node) wireDirectory() {
	n.sharding = directory.NewSharding(n.ID(), n.cfg.ShardSplit, n.cfg.ShardMerge)
	n.dir = directory.New(n.cfg.Discovery, directory.View{
		ID: n.ID(), Client: n.cfg.Client, NetworkID: n.network, Live: n.peers.Live, Servers: n.servers,
		Cache: n.cache, Home: n.sharding.Home, Member: n.peers.Member,
		Near: func(key kb.ID) []peer.ID {
			return n.Overlay.Kad.RoutingTable().NearestPeers(key, n.Overlay.Kad.BucketSize())
		},
	})
	n.lookUps = directory.LookUps{
		Cache: n.cache, NetworkID: n.network, Whole: n.dir.Complete, Home: n.sharding.Home, Log: n.log,
		Closest: func(ctx context.Context, key string) ([]peer.ID, error) {
			return n.Overlay.Kad.GetClosestPeers(ctx, key)
		},
		Alone: func() bool { return n.Overlay.Kad.RoutingTable().Size() == 0 },
	}
}

func (n *Node) wirePublisher() {
	var provisions []string
	if p := n.cfg.Provisioner; p != nil {
		provisions = p.Regions
	}
	n.acks = records.Acks{
		Self: n.ID(), Peers: n.peers, Live: n.peers.Live, Directory: n.dir, Cache: n.cache, Observe: n.Overlay.Coords.Observe,
		Accepted: func(p peer.ID) { n.Overlay.Host.ConnManager().TagPeer(p, holderTag, peerWeight) },
		Go:       n.Overlay.Begin, Log: n.log,
	}
	n.Publisher = publish.New(publish.Config{
		ID: n.ID(), Key: n.cfg.Key, Directory: n.dir, Sharding: n.sharding, Table: n.table, Live: n.peers.Live,
		Sample: n.cfg.Sample, Provisions: provisions, Coordinate: n.Overlay.Coords.Here, Wall: n.wall,
		Addrs: func() []multiaddr.Multiaddr { return n.Overlay.Host.Addrs() },
		Audience: func() publish.Audience {
			peers := append(n.Overlay.Kad.RoutingTable().ListPeers(), n.servers()...)
			slices.Sort(peers)
			return publish.Audience{Liveness: n.peers.Live.Generation(), Cache: n.cache.Changes(), Peers: peers}
		},
		Connected: n.peers.Connected,
		Advertise: n.client.Advertise, Datagram: func(p peer.ID, m *pb.Datagram) bool { return n.datagrams.Send(p, m) },
		Acked: n.acks.Take, Copied: func() { n.copies.Suspect() },
		Log: n.log,
	})
}

// wireHolder makes what serves the records of others, and the names of streams.
func (n *Node) wireHolder() {
	n.holding = holding.New(holding.Config{
		ID: n.ID(), NetworkID: n.network, Directory: n.dir, Sharding: n.sharding, Table: n.table, Reports: n.reports, Rates: &n.rates,
		Policy: n.cfg.Policy, Wall: n.wall, Log: n.log,
		Introduce: n.peers.Introduce,
		Accepted:  func(from peer.ID) { n.Overlay.Host.ConnManager().TagPeer(from, publisherTag, peerWeight) },
		Left:      n.peers.Live.Leave,
	})
	asker := &naming.Asker{Overlay: n.Overlay, Protocol: n.protocols.records, Peers: n.peers, Left: n.peers.Live.Leave}
	n.Names = naming.New(naming.Config{
		ID: n.ID(), Client: n.cfg.Client, Directory: n.dir, Live: n.peers.Live, Table: n.table,
		Published: func(topic Topic) (capacity.Record, bool) {
			r, _, ok := n.Publisher.Published(topic)
			return r, ok
		},
		LookUp: func(ctx context.Context, topic Topic) {
			now := time.Now()
			if h, looked := n.dir.Holders(now, topic); !looked && !h.All && n.cache.Begin(now, topic) {
				n.lookUps.Now(ctx, topic)
			}
		},
		Ask: asker.Ask, Introduce: n.peers.Introduce, Introduced: n.peers.Introduced,
		Yield: n.cfg.Yield, Tracer: n.cfg.Tracer,
	})
	n.datagrams = datagram.New(datagram.Config{
		NetworkID: n.network, Protocol: n.protocols.records + "/datagram", Traffic: n.Overlay.Traffic, Conns: n.Overlay.Host.Network().ConnsToPeer,
		Go: n.Overlay.Begin, Rates: &n.rates,
		Heard: func(from peer.ID) { n.peers.Answered(from, 0) }, Answered: n.Publisher.Answered, Lacks: n.Publisher.Lacks, Hold: n.holding.Datagram,
		Log: n.log,
	})
	n.records = records.NewServer(records.Config{
		Inbound: n.Overlay.Server, Holding: n.holding, Names: n.Names, Own: n.Publisher,
		Table: n.table, Mode: n.cfg.Discovery, Coordinate: n.Overlay.Coords.Here, Wall: n.wall,
		Go: n.Overlay.Go, Closed: n.Overlay.Context().Done(), Log: n.log,
	})
	n.reserve = reserve.Server{
		Key: n.cfg.Key, Published: n.Publisher.Published, Sample: n.cfg.Sample, Grant: n.cfg.Grant, Release: n.cfg.Release,
	}
}

// wireSeeker makes what finds and places, and what has servers started where
// there is no room.
func (n *Node) wireSeeker() {
	n.Seeker = seek.New(seek.Config{
		ID: n.ID(), Client: n.cfg.Client, Publishes: n.cfg.Sample != nil, Discovery: n.cfg.Discovery,
		Overlay: n.Overlay, Records: n.protocols.records, Reserves: n.protocols.reserve,
		Peers: n.peers, Live: n.peers.Live, Coordinates: n.Overlay.Coords,
		Directory: n.dir, Cache: n.cache, LookUps: &n.lookUps, Sharding: n.sharding,
		Table: n.table, Holding: n.holding, Newest: n.newest, Reputation: n.reputation,
		Policy: func() *policy.Compiled { return n.cfg.Policy() }, Own: n.Publisher.Own, Published: n.Publisher.Published,
		Use: n.reserve.Use, WarmedUp: func() bool { return n.warmth.Warm(time.Now()) },
		Measure: n.Prober.Ask, Reachable: reachable(n.cfg.Gate), Wall: n.wall,
		Grant: n.cfg.Grant, Release: n.cfg.Release,
		Log: n.log, Tracer: n.cfg.Tracer,
	})
	n.exchange = scale.Exchange{
		Call: func(ctx context.Context, p peer.ID, req *pb.ProvisionRequest, resp *pb.ProvisionResponse) error {
			n.peers.Locate(ctx, p)
			rtt, _, err := n.Overlay.Call(ctx, p, n.protocols.provision, req, resp, scale.MaxMessage)
			if err != nil {
				n.peers.Failed(p, err)
				return err
			}
			n.peers.Answered(p, rtt)
			return nil
		},
		Introduce: n.peers.Introduce, Introduced: n.peers.Introduced,
	}
	n.Provisioners = &scale.Provisioners{
		Self: n.ID(), Own: n.cfg.Provisioner, Ask: n.exchange.Ask, Log: n.log,
		List: func(ctx context.Context, region string) ([]peer.ID, error) {
			topic := ProvisionTopic(region)
			answer, err := n.Seeker.Find(ctx, topic, capacity.Need{}, nil)
			if err != nil {
				return nil, err // no answer does not mean that there is none
			}
			var list []peer.ID
			if n.cfg.Provisioner.Serves(region) {
				list = append(list, n.ID())
			}
			for _, c := range answer.Candidates {
				n.peers.Learn(c.Record.Node, c.Record.Addrs)
				list = append(list, c.Record.Node)
			}
			return directory.Closest(kb.ConvertKey(topic.Key(n.network)), list), nil
		},
		Silent: func(p peer.ID) bool { return n.peers.Live.Down(time.Now(), p) || n.peers.Live.Suspect(p) },
	}
	n.exchange.Answer = n.Provisioners.Answer
}

// reachable returns a check whose error says that clients must not be sent to
// the URL in a record. Nodes are reached by dials, which are gated themselves.
func reachable(gate *scope.Gate) func(need capacity.Need, r *capacity.Record) error {
	return func(need capacity.Need, r *capacity.Record) error {
		if need.Purpose == capacity.Cascade || r.URL == "" {
			return nil
		}
		return gate.CheckURL(scope.Redirect, r.URL)
	}
}

// wireInspection makes what is asked of other nodes about themselves and about
// this one.
func (n *Node) wireInspection() {
	host := n.Overlay.Host
	n.Prober = inspect.NewProber(inspect.ProberConfig{
		Self: n.ID(), Locate: n.peers.Locate, Coords: n.Overlay.Coords, Wall: n.wall, Table: n.table, Log: n.log,
		Fetch: n.client.Fetch,
		Name: func() string {
			me, _ := n.Publisher.Own()
			return me.Name
		},
		Sealed:  n.Publisher.Sealed,
		Members: n.peers.Members,
		Known: func() []peer.ID {
			return slices.Concat(host.Network().Peers(), n.Overlay.Kad.RoutingTable().ListPeers())
		},
		Holders: func() []peer.ID { return n.Holders(CapacityTopic()) },
		Addrs:   host.Peerstore().Addrs,
		Conns:   host.Network().ConnsToPeer,
		Member:  n.peers.Member,
		RTT:     n.peers.Live.RTT,
	})
	n.Reader = &inspect.Reader{
		Self: n.ID(),
		Topics: func(ctx context.Context, topic Topic) []Topic {
			if topic == CapacityTopic() {
				return n.Seeker.Regions.Shards(ctx)
			}
			return []Topic{topic}
		},
		Holders: func(topic Topic) (self bool, remote []peer.ID) {
			h, _ := n.dir.Holders(time.Now(), topic)
			h = n.Seeker.WithTheSlow(topic, h)
			if each, own := n.dir.Each(); own {
				h.Remote = each
			}
			return h.Self, n.Seeker.NearestFirst(h.Remote)
		},
		Each:   n.cfg.Discovery.Own(),
		Table:  n.table,
		Remote: n.client.Watch,
		Ignore: func(p peer.ID) bool { return n.peers.Live.SilentFor(time.Now(), p, capacity.DefaultTTL) },
		Busy:   ErrBusy,
		Why:    overlay.Silence,
		Closed: n.Overlay.Context().Done(),
		Me:     func() capacity.Record { return n.Seeker.Me("") },
		RTT:    n.Overlay.Coords.Predict,
		Trust:  n.reputation.Of,
		Log:    n.log,
	}
	n.Shortfalls = shortfall.New(shortfall.Config{
		Reputation: n.reputation, Newest: n.newest, Fetch: n.Prober.Fetch, Wall: n.wall, Log: n.log,
		Held: func(now time.Time, p peer.ID) (capacity.Record, bool) {
			h := n.table.Get(now, CapacityTopic(), p)
			if h == nil {
				return capacity.Record{}, false
			}
			return h.Record, true
		},
		Go: n.Overlay.Begin,
	})
	n.copies = identity.NewCopies(identity.CopiesConfig{
		Held: func(ctx context.Context) []capacity.Record {
			changes, _ := n.Reader.Snapshot(ctx, n.sharding.Home()) // the records received by then
			return inspect.OfNode(changes, n.ID())
		},
		Foreign: n.Publisher.Foreign, Due: new(overlay.LogBackoff).Due, Event: n.cfg.Event, Log: n.log,
	})
}

func (n *Node) wirePolicies() {
	n.Policies = policysync.New(policysync.Config{
		Operator: n.cfg.Operator,
		Apply:    n.cfg.Apply,
		Peers: func() (peers []peer.ID) {
			for _, ai := range n.peers.Members() {
				peers = append(peers, ai.ID)
			}
			return peers
		},
		Exchange: func(ctx context.Context, p peer.ID, req *pb.PolicyExchange) (*pb.PolicyExchange, error) {
			resp := &pb.PolicyExchange{}
			_, _, err := n.Overlay.Call(ctx, p, n.protocols.policy, req, resp, policysync.MaxFrame)
			return resp, err
		},
		Joined: func() bool { return n.Overlay.Kad.RoutingTable().Size() > 0 },
		Put: func(ctx context.Context, key string, value []byte) error {
			return n.Overlay.Kad.PutValue(ctx, key, value)
		},
		Get: func(ctx context.Context, key string) ([]byte, error) { return n.Overlay.Kad.GetValue(ctx, key) },
		Closest: func(key string) bool {
			id, self := kb.ConvertKey(key), n.ID()
			if n.cfg.Client {
				self = ""
			}
			return directory.Elect(id, self, n.Overlay.Kad.RoutingTable().NearestPeers(id, holder.Replicas)).Self
		},
		Go:  n.Overlay.Begin,
		Log: n.log,
	})
}

// serve registers the handlers of this node's protocols.
func (n *Node) serve() {
	p, server := n.protocols, n.Overlay.Server
	n.Overlay.Serve(p.records, n.records.Serve)
	n.Overlay.Serve(p.reserve, overlay.Handler(server, reserve.MaxMessage, reserve.Busy(), n.reserve.Answer))
	n.Overlay.Serve(p.policy, overlay.Handler(server, policysync.MaxFrame, &pb.PolicyExchange{Error: holding.ErrRequests.Error()},
		func(_ context.Context, from peer.ID, req *pb.PolicyExchange) *pb.PolicyExchange {
			return n.Policies.Answer(from, req)
		}))
	n.Overlay.Serve(p.provision, overlay.Handler(server, scale.MaxMessage, &pb.ProvisionResponse{Error: holding.ErrRequests.Error()}, n.exchange.Serve))
}
