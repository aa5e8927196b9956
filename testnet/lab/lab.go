// Package lab runs many real [dht.Node]s in one process, on a simulated packet
// network with distances: each node has a QUIC host of its own, and every
// packet is delayed by its distance on a map. Measurements of discovery and
// tests of its failures run on it.
//
//	l, err := lab.Up(ctx, lab.Config{Nodes: 20, Seed: 1})
//	if err != nil {
//		return err
//	}
//	defer l.Close()
//	placed, decision, err := l.Nodes()[3].Seeker.Place(ctx, dht.CapacityTopic(), need, nil)
//
// A lab in a bubble of testing/synctest has the bubble's time. Anywhere else time
// is real, and a node that gets too little CPU time is slow.
package lab

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/dht"
	"weir/dht/dhttest/wire"
	"weir/dht/directory"
)

// Config is the configuration of a Lab. The zero value of an optional field means the
// default in its comment.
type Config struct {
	Nodes int    // nodes that publish and can be chosen
	Seed  uint64 // of the map, the nodes' keys, jitter and loss

	Regions int           // default 4
	RTT     time.Duration // mean round trip between two nodes; default 100 ms
	Jitter  float64       // maximum share of a delay that is added to it; default 0.03
	Loss    float64       // share of packets lost; default none

	// Discovery selects the holders of records; "": directory.Kademlia. With
	// directory.Broker, Brokers further nodes hold them, which publish nothing
	// and are in the middle of the regions nearest to all others.
	Discovery directory.Mode
	Brokers   int // default 1

	// Limits are the limits of every node's ledger; default: 1 Gbit/s, 150,000
	// packets/s, 500 sessions.
	Limits ledger.Limits
	// Change, if not nil, changes node i's configuration last.
	Change func(i int, cfg *dht.Config)
	// Ready bounds the time until the nodes are ready; default 60 s.
	Ready time.Duration

	Log *slog.Logger // the nodes'; default: discarded
}

const (
	bootstraps = 3 // nodes that the others know from the start
	portNumber = 4001

	// startGap is the time between the starts of two nodes: concurrent
	// handshakes would take so long that they time out, and have to be
	// repeated.
	startGap = 30 * time.Millisecond
)

// check fills in the defaults.
func (c *Config) check() error {
	if c.Regions == 0 {
		c.Regions = 4
	}
	if c.RTT == 0 {
		c.RTT = 100 * time.Millisecond
	}
	if c.Jitter == 0 {
		c.Jitter = 0.03
	}
	if c.Discovery.Brokers() && c.Brokers == 0 {
		c.Brokers = 1
	}
	if c.Limits == (ledger.Limits{}) {
		c.Limits = ledger.Limits{Sessions: 500, Uplink: 1e9, Packets: 150_000}
	}
	if c.Ready == 0 {
		c.Ready = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Nodes < 1 || c.Nodes > 1_000:
		return fmt.Errorf("lab: %d nodes, want 1 to 1000", c.Nodes)
	case c.Regions < 1 || c.Jitter < 0 || c.Loss < 0 || c.Loss >= 1 || c.Brokers < 0:
		return errors.New("lab: want a region or more, jitter and brokers of 0 or more, and a loss from 0 to less than 1")
	}
	return nil
}

// A Lab is a network of nodes. Close ends all of them.
type Lab struct {
	cfg  Config
	Map  *Geography
	wire *wire.Wire

	mu      sync.Mutex
	nodes   []*Node // in the order started, including killed ones
	brokers []*Node
	next    int
	wg      sync.WaitGroup // running nodes, and killed ones that are still closing
}

// A Node is one node of a Lab.
type Node struct {
	*dht.Node
	Index  int // of its place on the map; brokers count from -1 downwards
	At     Place
	Ledger *ledger.Ledger

	port   *wire.Port
	info   peer.AddrInfo
	url    string
	cancel context.CancelFunc
	done   chan struct{} // Run has returned and the node is closed
	err    error         // of Close, once done

	mu   sync.Mutex
	dead bool
}

// Up starts the network and waits until every node is ready.
func Up(ctx context.Context, cfg Config) (*Lab, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, Map: NewGeography(cfg.Seed, cfg.Regions, cfg.RTT), wire: wire.New(cfg.Seed, cfg.Jitter, cfg.Loss)}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) error {
	if l.cfg.Discovery.Brokers() {
		for i := range l.cfg.Brokers {
			if _, err := l.listen(-1-i, l.Map.Centre(i)); err != nil {
				return err
			}
		}
	}
	for range l.cfg.Nodes {
		if _, err := l.listen(l.next, l.Map.Place(l.next)); err != nil {
			return err
		}
		l.next++
	}
	all := append(l.Brokers(), l.Nodes()...)
	for i, n := range all {
		l.run(n)
		if i < bootstraps {
			continue
		}
		select {
		case <-time.After(startGap):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return l.await(ctx, all)
}

// await waits until the nodes are ready.
func (l *Lab) await(ctx context.Context, nodes []*Node) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Ready)
	defer cancel()
	for _, n := range nodes {
		select {
		case <-n.Ready():
		case <-ctx.Done():
			return fmt.Errorf("node %d is not ready: %w", n.Index, ctx.Err())
		}
	}
	return nil
}

// Nodes are the nodes that publish, in the order started, including killed ones.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Node(nil), l.nodes...)
}

// Brokers are the nodes that only hold records.
func (l *Lab) Brokers() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Node(nil), l.brokers...)
}

// Start adds a node, at the next place on the map, and waits until it is ready.
func (l *Lab) Start(ctx context.Context) (*Node, error) {
	l.mu.Lock()
	i := l.next
	l.next++
	l.mu.Unlock()
	n, err := l.listen(i, l.Map.Place(i))
	if err != nil {
		return nil, err
	}
	l.run(n)
	return n, l.await(ctx, []*Node{n})
}

// servers are the holders in the list of servers.
func (l *Lab) servers() []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.nodes
	if l.cfg.Discovery.Brokers() {
		list = l.brokers
	}
	infos := make([]peer.AddrInfo, 0, len(list))
	for _, n := range list {
		infos = append(infos, n.Info())
	}
	return infos
}

// entrances are the bootstrap peers.
func (l *Lab) entrances() []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var infos []peer.AddrInfo
	for _, n := range append(append([]*Node(nil), l.brokers...), l.nodes...) {
		if len(infos) < bootstraps {
			infos = append(infos, n.Info())
		}
	}
	return infos
}

// listen creates a node, which does not run yet.
func (l *Lab) listen(index int, place Place) (*Node, error) {
	key, err := l.key(index)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	ip := net.IPv4(10, 1, byte(index>>8), byte(index)).To4()
	if index < 0 {
		ip = net.IPv4(10, 2, 0, byte(-index)).To4()
	}
	addr, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, portNumber))
	if err != nil {
		return nil, err
	}
	n := &Node{
		Index:  index,
		info:   peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{addr}},
		At:     place,
		Ledger: ledger.New(id, l.cfg.Limits),
		url:    "http://" + ip.String() + ":8080",
		done:   make(chan struct{}),
	}
	cfg := dht.Config{
		Key:       key,
		Network:   "lab",
		Listen:    []multiaddr.Multiaddr{addr},
		Bootstrap: l.entrances(),
		Discovery: l.cfg.Discovery,
		Servers:   l.servers,
		Libp2p:    []libp2p.Option{l.wire.Host(at(n.At), func(p *wire.Port) { n.port = p })},
		Log:       l.cfg.Log.With("node", index),
	}
	if index >= 0 {
		cfg.Sample = n.sample
		cfg.Grant = func(r capacity.Request) (capacity.Lease, error) { return n.Ledger.Reserve(time.Now(), r) }
		cfg.Release = n.Ledger.Release
	}
	if l.cfg.Change != nil {
		l.cfg.Change(index, &cfg)
	}
	n.Node, err = dht.Listen(cfg)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if index < 0 {
		l.brokers = append(l.brokers, n)
	} else {
		l.nodes = append(l.nodes, n)
	}
	return n, nil
}

// run runs n until it is stopped.
func (l *Lab) run(n *Node) {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	l.wg.Go(func() {
		defer close(n.done)
		_ = n.Run(ctx) // ends with ctx only
		n.err = n.Node.Close()
	})
}

// key returns the same key for the same seed and index.
func (l *Lab) key(index int) (crypto.PrivKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	rnd := rand.New(rand.NewPCG(l.cfg.Seed, uint64(int64(index))^0x6b6579))
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
}

// Info is the node's peer ID and addresses.
func (n *Node) Info() peer.AddrInfo { return n.info }

// Record is the record that the node would publish at this instant, by its
// ledger: the truth that published records lag behind.
func (n *Node) Record() capacity.Record {
	r := capacity.Record{
		Node: n.ID(), URL: n.url, Media: strings.TrimSuffix(strings.TrimPrefix(n.url, "http://"), ":8080") + ":8443",
		Region: n.At.Region, Cores: 4, Release: "lab",
	}
	n.Ledger.Totals(time.Now()).Fill(&r)
	return r
}

func (n *Node) sample() (capacity.Record, []capacity.StreamInfo) { return n.Record(), nil }

// SetLoad sets the load that the node measures from now on.
func (n *Node) SetLoad(load ledger.Load) { n.Ledger.Observe(time.Now(), load) }

// Wire is the traffic of the node's network interface so far.
func (n *Node) Wire() wire.Counters { return n.port.Counters() }

// RTT is the round trip time to another node, without jitter.
func (n *Node) RTT(to *Node) time.Duration { return 2 * n.At.OneWay(to.At) }

// Pause drops all packets of the node, both ways, as if its process were
// stopped: other nodes get no answer and no error. Resume ends it.
func (n *Node) Pause() { n.port.Cut(true) }

// Resume ends a Pause.
func (n *Node) Resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dead {
		n.port.Cut(false)
	}
}

// Kill ends the node as a power cut would: it sends nothing more. Its resources
// are freed in the background.
func (n *Node) Kill() {
	n.mu.Lock()
	n.dead = true
	n.port.Cut(true)
	n.mu.Unlock()
	n.cancel()
}

// Dead reports whether the node was killed or stopped.
func (n *Node) Dead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

// Stop ends the node normally, and waits.
func (n *Node) Stop() error {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	n.cancel()
	<-n.done
	return n.err
}

// Partition lets packets pass only between nodes for which group returns the
// same value. It replaces an existing partition.
func (l *Lab) Partition(group func(*Node) int) {
	for _, n := range append(l.Brokers(), l.Nodes()...) {
		n.port.Join(group(n))
	}
}

// Heal ends a partition.
func (l *Lab) Heal() { l.Partition(func(*Node) int { return 0 }) }

// Close ends all nodes and waits: no goroutine of the lab is left.
func (l *Lab) Close() error {
	l.mu.Lock()
	all := append(append([]*Node(nil), l.brokers...), l.nodes...)
	l.mu.Unlock()
	// The wire first: without it nodes do not take the time to say good-bye.
	l.wire.Close()
	for _, n := range all {
		if n.cancel != nil {
			n.cancel()
		} else {
			close(n.done)
			n.err = n.Node.Close() // it never ran
		}
	}
	l.wg.Wait()
	var errs []error
	for _, n := range all {
		if n.err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", n.Index, n.err))
		}
	}
	return errors.Join(errs...)
}
