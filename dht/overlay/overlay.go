package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"weir/capacity/event"
	"weir/capacity/scope"
	"weir/capacity/task"
	"weir/dht/liveness"
	"weir/dht/vivaldi"
)

// Config is a node's identity, network and addresses on the libp2p level.
type Config struct {
	Key crypto.PrivKey
	// Network is the network's name, for logs. Prefix begins its protocols,
	// including kad-dht's. Member is the protocol that identifies its nodes,
	// and Protocols are those whose streams per peer are bounded.
	Network   string
	Prefix    protocol.ID
	Member    protocol.ID
	Protocols []protocol.ID

	Listen   []multiaddr.Multiaddr // TCP and QUIC; empty: no address, as for a client
	PublicIP netip.Addr            // announced to others instead of this machine's own
	Client   bool                  // queries kad-dht and does not serve it
	Libp2p   []libp2p.Option       // further options
	Values   kaddht.Option         // values that kad-dht stores: a Validator, or nil for none

	Bootstrap []peer.AddrInfo // any one of them suffices; self is skipped
	Seeds     []Seed          // places to join by if peer IDs are not known
	PeerFile  string          // file of remembered peers; "": none
	// Servers returns nodes to join by if there is neither a bootstrap peer nor
	// a seed; nil: none.
	Servers func() []peer.AddrInfo

	// Gate decides where this node dials; nil: anywhere. This node's own
	// addresses are registered with it, for Uses.
	Gate *scope.Gate
	Uses []scope.Use

	// Connected receives every new connection, and Down every peer that failed
	// so often that it is left alone for a while. Neither must block.
	Connected func(network.Conn)
	Down      func(p peer.ID, err error)
	// Event receives the peers that are lost and back. It must not block.
	Event func(event.Event)

	Log    *slog.Logger // nil: nothing is logged
	Tracer trace.Tracer // nil: nothing is traced
}

// An Overlay is this node's host in the network. Its fields are set by [New]
// and do not change.
type Overlay struct {
	Host    host.Host
	Kad     *kaddht.IpfsDHT
	Peers   *Peers
	Coords  vivaldi.Client
	Traffic *Traffic
	Server  *Server

	cfg     Config
	calls   outbound
	changed chan struct{} // a peer connected or disconnected
	tried   chan struct{} // closed once every way to join has been tried
	ctx     context.Context
	cancel  context.CancelFunc
	tasks   task.Group // begun by Go and Serve
}

// New makes a host that does not listen yet, so that its handlers can be set
// before the first peer comes.
func New(cfg Config) (*Overlay, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	coords, err := vivaldi.New()
	if err != nil {
		return nil, err
	}
	o := &Overlay{
		Coords:  coords,
		Traffic: newTraffic(),
		cfg:     cfg,
		changed: make(chan struct{}, 1),
		tried:   make(chan struct{}),
	}
	options := slices.Clone(cfg.Libp2p)
	if cfg.Gate != nil {
		options = append(options, libp2p.ConnectionGater(newDialGate(cfg.Gate, cfg.Bootstrap)))
	}
	if o.Host, err = newHost(cfg.Key, cfg.PublicIP, options, o.Traffic, cfg.Protocols...); err != nil {
		return nil, err
	}
	o.gateOwn()
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.Peers = &Peers{Live: liveness.New(), host: o.Host, member: cfg.Member, cfg: &o.cfg, start: o.Go}
	o.Server = &Server{ctx: o.ctx, heard: func(p peer.ID) { o.Peers.Answered(p, 0) }, log: cfg.Log, tracer: cfg.Tracer}
	o.Host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			o.Peers.Answered(c.RemotePeer(), 0)
			if cfg.Connected != nil {
				cfg.Connected(c)
			}
			o.Wake()
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			if !o.Peers.Connected(c.RemotePeer()) {
				o.Coords.Forget(c.RemotePeer())
			}
			o.Wake()
		},
	})
	if o.Kad, err = newKad(o.Host, cfg.Prefix, cfg.Client, cfg.Values); err != nil {
		return nil, errors.Join(err, o.Host.Close())
	}
	o.Peers.kad = o.Kad
	return o, nil
}

// Listen binds the addresses of Config.Listen. A busy port is an error that
// names the address; the caller then closes the overlay. Nothing is sent before
// [Overlay.Run].
func (o *Overlay) Listen() error {
	// One by one: for several at once, libp2p reports no error if any one of
	// them works.
	for _, a := range o.cfg.Listen {
		err := o.Host.Network().Listen(a)
		if err != nil && strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) { // libp2p does not wrap it
			err = fmt.Errorf("in use by another process (%w): choose another port, or 0 for any free one", syscall.EADDRINUSE)
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
	}
	return nil
}

// Run joins the network and keeps the node in it until ctx is done, and returns
// ctx.Err(): it connects to bootstrap and remembered peers, without end, and
// reports lost peers.
func (o *Overlay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return (&joiner{Overlay: o}).run(ctx) })
	g.Go(func() error { return o.noticeLoss(ctx) })
	return g.Wait()
}

// noticeLoss reports lost peers, once a second.
func (o *Overlay) noticeLoss(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, p := range o.Peers.Live.Lost(time.Now(), o.Peers.Connected) {
			o.Peers.event(event.Event{Kind: event.PeerLost, Peer: p})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close stops the host and waits: once it has returned, nothing begun by Go or
// Serve runs any more. It may be called more than once.
func (o *Overlay) Close() error {
	var err error
	if o.tasks.Stop() {
		o.cancel()
		err = errors.Join(o.Kad.Close(), o.Host.Close())
	}
	o.tasks.Wait()
	return err
}

// Context ends with Close.
func (o *Overlay) Context() context.Context { return o.ctx }

// Go runs f on a goroutine that Close waits for, and reports false without
// doing so if Close has begun.
func (o *Overlay) Go(f func()) bool { return o.tasks.Go(f) }

// Begin is Go for an f that is given a context, which ends with Close.
func (o *Overlay) Begin(f func(context.Context)) bool { return o.Go(func() { f(o.ctx) }) }

// Serve registers f for the streams of protocol p. F runs on a goroutine of its
// own per stream, which Close waits for; Close resets the stream.
func (o *Overlay) Serve(p protocol.ID, f func(network.Stream)) {
	o.Host.SetStreamHandler(p, func(s network.Stream) {
		if !o.tasks.Do(func() { f(s) }) {
			_ = s.Reset()
		}
	})
}

// Handle registers f for the streams of the network's protocol of that name, as
// Serve does.
func (o *Overlay) Handle(name string, f func(network.Stream)) {
	o.Serve(o.cfg.Prefix+protocol.ID("/"+name), f)
}

// OpenStream opens a stream of the network's protocol of that name to id,
// connecting first if need be, also by addrs, all within ctx.
func (o *Overlay) OpenStream(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr, name string) (network.Stream, error) {
	o.Peers.Learn(id, addrs)
	o.Peers.Locate(ctx, id)
	return o.Host.NewStream(ctx, id, o.cfg.Prefix+protocol.ID("/"+name))
}

const protectTag = "weir-link"

// Protect keeps the connection to id from being trimmed.
func (o *Overlay) Protect(id peer.ID) { o.Host.ConnManager().Protect(id, protectTag) }

// Unprotect ends the protection by Protect.
func (o *Overlay) Unprotect(id peer.ID) { o.Host.ConnManager().Unprotect(id, protectTag) }

// ID is the node's peer ID.
func (o *Overlay) ID() peer.ID { return o.Host.ID() }

// Addrs are the addresses at which others reach this node, each with /p2p/ID.
func (o *Overlay) Addrs() []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: o.ID(), Addrs: o.Host.Addrs()})
	if err != nil {
		return nil // only for an invalid ID
	}
	return addrs
}

// OwnAddrs are all addresses that may refer to this node.
func (o *Overlay) OwnAddrs() []multiaddr.Multiaddr {
	own := slices.Concat(o.Host.Addrs(), o.Host.Network().ListenAddresses())
	if all, err := o.Host.Network().InterfaceListenAddresses(); err == nil {
		own = append(own, all...)
	}
	return own
}

// Tried is closed once every bootstrap peer, seed and remembered peer has been
// tried.
func (o *Overlay) Tried() <-chan struct{} { return o.tried }

// Wake makes the node check at once whether it has to join again: the servers
// may have changed.
func (o *Overlay) Wake() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// ErrNotMember means that a peer is connected but is no node of this network.
var ErrNotMember = errors.New("not a node of this network")

// ErrUnreachable means that there was no connection to a peer and none could be
// made.
var ErrUnreachable = errors.New("unreachable")

// ErrLate means that a peer's answer is overdue.
var ErrLate = errors.New("no answer when it was due")
