// Package sfu takes streams in by WHIP (RFC 9725), sends them out by WHEP
// (draft-ietf-wish-whep), and carries them from node to node over cascade
// links. It forwards RTP and never transcodes.
//
// It knows nothing of how other nodes are found: [Config] has a function for
// each thing it needs of them.
package sfu

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/sfu/cascade"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/problem"
	"weir/sfu/rights"
	"weir/sfu/rtc"
	"weir/sfu/tree"
	"weir/sfu/udp"
	"weir/sfu/whip"
	"weir/sfu/whip/handover"
)

// Types of the parts that an SFU is made of, which its Config and its users name.
type (
	Overflow      = whip.Overflow
	Origins       = whip.Origins
	Helper        = whip.Helper
	Signal        = whip.Signal
	SessionStatus = whip.SessionStatus
	LinkStatus    = cascade.LinkStatus
	Measure       = meter.Measure
	Event         = event.Event
)

// The ways to send a client on.
const (
	Redirect = whip.Redirect
	Relay    = whip.Relay
	Refuse   = whip.Refuse
)

// OverflowProtocol is the name of the protocol by which a request is handed to
// another node, below /weir/<network-id>/.
const OverflowProtocol = handover.Protocol

// A Carrier is a node to pull a stream from.
type Carrier = tree.Source

// Errors that Locate and Place return, and that decide what a client is told.
var (
	// ErrNotLive means that nobody publishes the stream now.
	ErrNotLive = problem.ErrNotLive
)

// Errors that those who embed an SFU return to it; see package problem.
type (
	TakenError      = problem.TakenError
	UnansweredError = problem.UnansweredError
)

// Config is what an SFU is made of. All functions may be called from several
// goroutines and must return when ctx ends.
type Config struct {
	Self   peer.ID
	Key    crypto.PrivKey // signs tickets
	Socket *udp.Socket    // media; the SFU closes it
	Ledger *ledger.Ledger

	// Locate finds a carrier of stream, other than those in exclude, and
	// reserves a pull on it. ErrNotLive if there is none, a [capacity.Refusal] if
	// none has room, an [*UnansweredError] if neither can be known.
	Locate func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Carrier, error)
	// Place finds and reserves a helper for a client. A [capacity.Refusal] if
	// nobody has room, ErrNotLive if the stream to view is nowhere, an
	// [*UnansweredError] if neither can be known.
	Place func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error)
	// Live tells whether another node carries stream, as far as that can be
	// learnt now. It is asked again and again while a viewer waits for the stream.
	// Default: not known.
	Live func(ctx context.Context, stream string) bool
	// Claim takes the name of a stream for a publisher here, until release is
	// called. The error is a [*TakenError], or an [*UnansweredError] if it cannot
	// be known. Nil: every name is free that is free here.
	Claim func(ctx context.Context, stream string) (release func(), err error)
	// Published tells which other nodes have a publisher of stream. The error is
	// an [*UnansweredError].
	Published func(ctx context.Context, stream string) ([]peer.ID, error)
	// Dial opens the signalling of a cascade link.
	Dial func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Handover opens a stream of [OverflowProtocol]; nil: Overflow Relay reaches
	// nobody.
	Handover func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Addrs are this node's own libp2p addresses, for tickets.
	Addrs func() []multiaddr.Multiaddr
	// Changed is told when a stream has come or gone.
	Changed func()
	// Delivered is told which share of what node sends over a cascade link has
	// come in the last seconds, 0…1, lost packets counted that were not repaired;
	// once in several seconds for a link, and not while the loss may be this
	// node's own fault. It must not block.
	Delivered func(node peer.ID, share float64)
	// Measured is told how long things took. It must not block. Default: nobody is.
	Measured func(Measure, time.Duration)
	// Event is told what happens; see [event.Event]. It must not block.
	Event func(Event)

	// Gate decides where others may send this node and its clients; nil: one that
	// goes by PublicIP or Socket's address.
	Gate *scope.Gate

	// Rights decides what clients may do; nil: whatever they ask for.
	Rights *rights.Rights

	// AddressSessions is how many sessions a client's address may have as of now, of
	// IPv6 its /64; 0: no limit. Nil: none.
	AddressSessions func() int

	Overflow  func() Overflow      // as of now. Default: Redirect
	Patience  time.Duration        // how long Place may wait for a server that is being started
	PublicURL string               // base URL for Location; default: as the client addressed us
	Origins   Origins              // whose pages may publish and view; default: all
	PublicIP  netip.Addr           // where others reach Socket, whose port a NAT leaves as it is; zero: where it is bound
	Fanout    func() int           // most cascade pulls of one stream as of now; 0: not bounded. Default: 8
	Depth     func() int           // most cascade links between origin and viewer as of now. Default: 4
	Linger    func() time.Duration // how long an unwatched relay is kept, as of now. Default: 10 s
	RoomWait  time.Duration        // how long a viewer waits for a carrier with room; default 10 s
	Log       *slog.Logger

	// Tracer records spans; nil: nobody does, and each request has an ID all the
	// same.
	Tracer trace.Tracer
}

// An SFU is one node's media plane. Close ends all sessions and links and
// waits for every goroutine.
type SFU struct {
	cfg     Config
	engine  *rtc.Engine
	clients *whip.Server
	tree    *tree.Tree
	links   *cascade.Links
	drops   forward.Drops
}

// New starts an SFU on cfg.Socket.
func New(cfg Config) (*SFU, error) {
	if cfg.Overflow == nil {
		cfg.Overflow = func() Overflow { return Redirect }
	}
	if cfg.Fanout == nil {
		cfg.Fanout = func() int { return 8 }
	}
	if cfg.Depth == nil {
		cfg.Depth = func() int { return 4 }
	}
	if cfg.AddressSessions == nil {
		cfg.AddressSessions = func() int { return 0 }
	}
	if cfg.Linger == nil {
		cfg.Linger = func() time.Duration { return 10 * time.Second }
	}
	if cfg.RoomWait == 0 {
		cfg.RoomWait = whip.DefaultRoomWait
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	if cfg.Gate == nil {
		cfg.Gate = scope.NewGate(cfg.Log, false)
		for _, use := range []scope.Use{scope.Redirect, scope.Candidate} {
			cfg.Gate.Own(use, func() []scope.Kind {
				at := cfg.PublicIP
				if !at.IsValid() {
					at = cfg.Socket.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
				}
				return []scope.Kind{scope.KindOf(at)}
			})
		}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Delivered == nil {
		cfg.Delivered = func(peer.ID, float64) {}
	}
	if cfg.Live == nil {
		cfg.Live = func(context.Context, string) bool { return false }
	}
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.Measured == nil {
		cfg.Measured = func(Measure, time.Duration) {}
	}
	engine, err := rtc.NewEngine(rtc.Config{Socket: cfg.Socket, PublicIP: cfg.PublicIP, Gate: cfg.Gate})
	if err != nil {
		return nil, err
	}
	s := &SFU{cfg: cfg, engine: engine}
	s.links = cascade.New(cascade.Config{
		Self: cfg.Self, Engine: engine, Ledger: cfg.Ledger, Fanout: cfg.Fanout, Depth: cfg.Depth, Dial: cfg.Dial,
		Stream:     func(name string) *tree.Stream { return s.tree.Get(name) },
		Overflowed: func() int64 { return cfg.Socket.Counters().Overflowed },
		Delivered:  cfg.Delivered, Measured: cfg.Measured, Event: cfg.Event, Drops: &s.drops, Log: cfg.Log, Tracer: cfg.Tracer,
	})
	s.tree = tree.New(tree.Config{
		Self: cfg.Self, Locate: cfg.Locate, Live: cfg.Live, Subscribe: s.links.Subscribe, AwaitLink: s.links.Await,
		Changed: cfg.Changed, Linger: cfg.Linger, Event: cfg.Event, Log: cfg.Log, Tracer: cfg.Tracer,
	})
	s.clients = s.newClients(media{s})
	return s, nil
}

// sampleInterval is between two readings of the streams' meters.
const sampleInterval = 250 * time.Millisecond

// newClients serves clients by what m sets up.
func (s *SFU) newClients(m whip.Media) *whip.Server {
	cfg := s.cfg
	return whip.New(whip.Config{
		Self: cfg.Self, Key: cfg.Key, Ledger: cfg.Ledger, Streams: streams{s.tree}, Media: m,
		Place: cfg.Place, Claim: cfg.Claim, Published: cfg.Published, Handover: cfg.Handover, Addrs: cfg.Addrs,
		Gate: cfg.Gate, Rights: cfg.Rights, AddressSessions: cfg.AddressSessions, Overflow: cfg.Overflow, Patience: cfg.Patience,
		RoomWait: cfg.RoomWait, PublicURL: cfg.PublicURL, Origins: cfg.Origins,
		Event: cfg.Event, Measured: cfg.Measured, Log: cfg.Log, Tracer: cfg.Tracer,
	})
}

// Run measures streams until ctx is done, and returns ctx.Err().
func (s *SFU) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, st := range s.tree.All() {
				st.Sample(now)
			}
			s.clients.Sample(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends everything and waits. It may be called more than once.
func (s *SFU) Close() error {
	s.clients.Close()
	s.tree.Close()
	s.links.Close()
	s.engine.Close()
	if err := s.cfg.Socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Carriages are this node's claims about the streams it carries, by name.
func (s *SFU) Carriages() []capacity.Carriage {
	var all []capacity.Carriage
	for _, st := range s.tree.All() {
		if !st.Ended() {
			all = append(all, st.Info(s.cfg.Fanout()))
		}
	}
	return all
}

// Counts are how many of each there are now.
type Counts struct {
	whip.Counts
	Streams, Links int
}

// Counts reads them.
func (s *SFU) Counts() Counts {
	return Counts{Counts: s.clients.Counts(), Streams: len(s.tree.All()), Links: s.links.Count()}
}

// Clients serves WHIP and WHEP.
func (s *SFU) Clients() *whip.Server { return s.clients }

// Links are those to other nodes.
func (s *SFU) Links() *cascade.Links { return s.links }
