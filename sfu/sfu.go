// Package sfu receives streams by WHIP (RFC 9725), sends them by WHEP
// (draft-ietf-wish-whep), and forwards them from node to node over cascade
// links. It forwards RTP and never transcodes.
//
// It does not know how other nodes are found: [Config] has a function for each
// use of other nodes.
package sfu

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
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

// Types of the packages below that Config and callers need.
type (
	Overflow      = whip.Overflow
	Origins       = whip.Origins
	Helper        = whip.Helper
	Rival         = whip.Rival
	Signal        = whip.Signal
	SessionStatus = whip.SessionStatus
	LinkStatus    = cascade.LinkStatus
	Measure       = meter.Measure
	Event         = event.Event
)

// Values of Overflow.
const (
	Redirect = whip.Redirect
	Relay    = whip.Relay
	Refuse   = whip.Refuse
)

// OverflowProtocol is the name of the protocol by which a node hands a request
// over to another, below /weir/<network-id>/.
const OverflowProtocol = handover.Protocol

// A Carrier is a node to pull a stream from.
type Carrier = tree.Source

// Errors of Locate and Place that determine the client's answer.
var (
	// ErrNotLive means that the stream has no publisher now.
	ErrNotLive = problem.ErrNotLive
)

// Errors of the functions of Config; see package problem.
type (
	TakenError      = problem.TakenError
	UnansweredError = problem.UnansweredError
)

// Config configures an SFU. All functions may be called from several goroutines
// and must return when ctx ends.
type Config struct {
	Self   peer.ID
	Key    crypto.PrivKey // signs tickets
	Socket *udp.Socket    // socket for media; the SFU closes it
	Ledger *ledger.Ledger

	// Locate finds a carrier of stream, other than those in exclude, and
	// reserves a pull on it. The error is ErrNotLive if there is none, a
	// [capacity.Refusal] if none has room, and an [*UnansweredError] if neither
	// can be determined.
	Locate func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Carrier, error)
	// Place finds and reserves a helper for a client. The error is a
	// [capacity.Refusal] if no node has room, ErrNotLive if no node has the
	// stream to view, and an [*UnansweredError] if neither can be determined.
	Place func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error)
	// Live reports whether another node carries stream, as far as known now. It
	// is called repeatedly while a viewer waits for the stream. Default:
	// unknown.
	Live func(ctx context.Context, stream string) bool
	// Claim takes the name of a stream for a publisher here that has right, until
	// release is called. The error is a [*TakenError], or an [*UnansweredError]
	// if that cannot be determined. Nil: check names on this node only.
	Claim func(ctx context.Context, stream string, right []byte) (release func(), err error)
	// Pass has a name that this node has go over to another publisher here, that
	// has right. Nil: it need not be told.
	Pass func(stream string, right []byte)
	// Published returns the other nodes that have a publisher of stream. The
	// error is an [*UnansweredError].
	Published func(ctx context.Context, stream string, right []byte) ([]Rival, error)
	// Dial opens the signalling stream of a cascade link.
	Dial func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Handover opens a stream of [OverflowProtocol]; nil: Overflow Relay
	// reaches no helper.
	Handover func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Addrs are this node's own libp2p addresses, for tickets.
	Addrs func() []multiaddr.Multiaddr
	// Changed is called when a stream has come or gone.
	Changed func()
	// Delivered receives the share, 0…1, of the packets that node sent over a
	// cascade link and that arrived in the last seconds; repaired packets count
	// as arrived. It is called once in several seconds for a link, and not
	// while the loss may be this node's own fault. It must not block.
	Delivered func(node peer.ID, share float64)
	// Measured receives durations of the SFU's own work. It must not block.
	// Default: none.
	Measured func(Measure, time.Duration)
	// Event receives events; see [event.Event]. It must not block.
	Event func(Event)

	// Gate decides to which nodes others may direct this node and its clients;
	// nil: one by PublicIP or Socket's address.
	Gate *scope.Gate

	// Rights is the access control; nil: none.
	Rights *rights.Rights

	// AddressSessions returns the current limit of sessions per client address,
	// for IPv6 per /64; 0: no limit. Nil: none.
	AddressSessions func() int

	Overflow  func() Overflow      // current mode. Default: Redirect
	Patience  time.Duration        // how long Place may wait for a server that is starting
	PublicURL string               // base URL for Location; default: as in the client's request
	Origins   Origins              // origins whose pages may publish and view; default: all
	PublicIP  netip.Addr           // public address of Socket, with the same port; zero: its bound addresses
	Fanout    func() int           // current limit of cascade pulls of one stream; 0: none. Default: 8
	Depth     func() int           // current limit of cascade links between origin and viewer. Default: 4
	Linger    func() time.Duration // current time that an unwatched relay is kept. Default: 10 s
	Grace     func() time.Duration // current time that a stream outlives its origin or publisher. Default: [tree.DefaultGrace]
	RoomWait  time.Duration        // how long a viewer waits for a carrier with room; default 10 s
	Log       *slog.Logger

	// Tracer records spans; nil: none are recorded, and each request still has
	// a trace ID.
	Tracer trace.Tracer
}

// An SFU is the media plane of one node. Close ends all sessions and links and
// waits for every goroutine.
type SFU struct {
	cfg     Config
	engine  *rtc.Engine
	clients *whip.Server
	tree    *tree.Tree
	links   *cascade.Links
	drops   forward.Drops
	leaving atomic.Bool
}

// SetDraining says that the node is about to go, or is not any more: then nodes
// that pull streams relayed here move to others, and no others come. A stream
// that is published here can be pulled as before.
func (s *SFU) SetDraining(draining bool) {
	if s.leaving.Swap(draining) != draining {
		s.tree.Leave(draining)
	}
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
	if cfg.Grace == nil {
		cfg.Grace = func() time.Duration { return tree.DefaultGrace }
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
		Leaving:    s.leaving.Load,
		Stream:     func(name string) *tree.Stream { return s.tree.Get(name) },
		Overflowed: func() int64 { return cfg.Socket.Counters().Overflowed },
		Delivered:  cfg.Delivered, Measured: cfg.Measured, Event: cfg.Event, Drops: &s.drops, Log: cfg.Log, Tracer: cfg.Tracer,
	})
	s.tree = tree.New(tree.Config{
		Self: cfg.Self, Locate: cfg.Locate, Live: cfg.Live, Subscribe: s.links.Subscribe, AwaitLink: s.links.Await,
		Changed: cfg.Changed, Linger: cfg.Linger, Grace: cfg.Grace, Ended: func(st *forward.Stream) { s.clients.Ended(st) }, Event: cfg.Event, Log: cfg.Log, Tracer: cfg.Tracer,
	})
	s.clients = s.newClients(media{s})
	return s, nil
}

// sampleInterval is the interval of readings of the streams' meters.
const sampleInterval = 250 * time.Millisecond

// newClients makes the WHIP and WHEP server on m.
func (s *SFU) newClients(m whip.Media) *whip.Server {
	cfg := s.cfg
	return whip.New(whip.Config{
		Self: cfg.Self, Key: cfg.Key, Ledger: cfg.Ledger, Streams: streams{s.tree}, Media: m,
		Place: cfg.Place, Claim: cfg.Claim, Pass: cfg.Pass, Published: cfg.Published, Handover: cfg.Handover, Addrs: cfg.Addrs,
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

// Close ends all sessions, pulls and links, and waits for them. It may be
// called more than once.
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

// StreamInfos returns this node's claims about the streams it carries, by name.
func (s *SFU) StreamInfos() []capacity.StreamInfo {
	var all []capacity.StreamInfo
	now := time.Now()
	for _, st := range s.tree.All() {
		if !st.Ended() {
			all = append(all, st.Info(s.cfg.Fanout(), now))
		}
	}
	return all
}

// Counts are the current numbers of sessions, requests, streams and links.
type Counts struct {
	whip.Counts
	Streams, Links int
}

// Counts returns the current numbers.
func (s *SFU) Counts() Counts {
	return Counts{Counts: s.clients.Counts(), Streams: len(s.tree.All()), Links: s.links.Count()}
}

// Clients returns the WHIP and WHEP server.
func (s *SFU) Clients() *whip.Server { return s.clients }

// Links returns the links to other nodes.
func (s *SFU) Links() *cascade.Links { return s.links }
