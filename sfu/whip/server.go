package whip

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/rights"
	"weir/sfu/sdp"
	"weir/sfu/whip/handover"
)

// Overflow is what a full node does with a client that it cannot take.
type Overflow string

// The ways to send a client on.
const (
	// Redirect answers 307 with the helper's URL and a ticket.
	Redirect Overflow = "redirect"
	// Relay hands the client's offer to the helper and returns its answer, for
	// clients that do not follow redirects. Media flows to the helper directly.
	Relay Overflow = "relay"
	// Refuse answers 503.
	Refuse Overflow = "refuse"
)

// ParseOverflow reads one of the names above.
func ParseOverflow(s string) (Overflow, error) {
	switch o := Overflow(s); o {
	case Redirect, Relay, Refuse:
		return o, nil
	}
	return "", fmt.Errorf("overflow %q: want redirect, relay or refuse", s)
}

// A Source is a node to pull a stream from.
type Source struct {
	Node  peer.ID
	Addrs []multiaddr.Multiaddr
	Lease string // ID of a lease for the pull, granted by Node; may be empty
}

// A Helper is a node that will take one client, under a lease.
type Helper struct {
	Node  peer.ID
	Addrs []multiaddr.Multiaddr
	URL   string // public base URL of its WHIP and WHEP
	Lease capacity.Lease
	Why   string // one line, for people
}

// Signal is a stream to another node, or one end of a pipe in a test.
type Signal = handover.Signal

// Media sets up the media connections of clients. Offers are those of
// [sdp.ParseOffer]; errors are those of package sdp, or foreseen by nobody.
type Media interface {
	// Publish answers a publisher's offer. tell is told what happens to its media.
	Publish(ctx context.Context, o *sdp.Offer, tell func(event.Event)) (p Publisher, tracks []*forward.Track, answer string, err error)
	// View answers the offer of a viewer of st. begun is told when the first
	// packet of each kind goes out, with locks held: it must not block.
	View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (t Transport, answer string, err error)
}

// A Transport is the media connection of one client. Restart, Knows and Add are
// never called at once.
type Transport interface {
	// Connected is closed when media can flow.
	Connected() <-chan struct{}
	// Ended is told why the connection has ended, or has to, for people.
	Ended() <-chan string
	// Silence is how long the client has sent no connectivity check that carries
	// its password; false before the first.
	Silence(now time.Time) (time.Duration, bool)

	// Restart takes new ICE credentials of the client's, and returns our own as an
	// SDP fragment.
	Restart(ctx context.Context, ufrag, pwd string) (fragment string, err error)
	// Knows reports whether the client has, or had, that ufrag.
	Knows(ufrag string) bool
	// Add takes further candidates.
	Add(*sdp.Fragment)

	State() string          // for people
	Video() bool            // video is sent to the client
	Traffic() Traffic       // in all
	RTT() time.Duration     // to a viewer, by its reports; 0: unknown
	NotTaken() []string     // what of the offer, or the stream, there is no media for, and why
	Unused() map[string]int // candidates that are not used, by why

	// Stop ends media at once.
	Stop()
	// Close ends the connection and waits for all that it runs.
	Close()
}

// A Publisher is the connection of a client that sends.
type Publisher interface {
	Transport
	// Adopt has it feed the tracks of a stream that another publisher has left, if
	// they are alike, and reports whether they are.
	Adopt(tracks []*forward.Track) bool
	// Quiet is how long it has sent nothing, counted from since at the earliest.
	Quiet(now, since time.Time) time.Duration
	// Look tells of sections that have begun to send nothing; since is when media
	// could flow.
	Look(now, since time.Time)
	Sections(now time.Time) []sdp.SectionStatus
	NotForwarded() map[string]int64 // packets, by reason
}

// Traffic is what has gone over a connection.
type Traffic = forward.Traffic

// Streams are those that are carried here, and that can be.
type Streams interface {
	// Here is the stream of that name that is carried here, which may have ended
	// just now, or nil; origin is whether its publisher is here.
	Here(name string) (st *forward.Stream, origin bool)
	// Reserve keeps a name for a publisher that is being set up, until done is
	// called: nobody pulls a stream of that name here meanwhile. It reports false
	// if it is kept already.
	Reserve(name string) (done func(), ok bool)
	// Publish makes the stream of a publisher known here, and ends another that was
	// under its name.
	Publish(st *forward.Stream)
	// Drop ends the stream of a publisher that has gone, and forgets it.
	Drop(st *forward.Stream)
	// Acquire returns the stream, pulled here if it is carried elsewhere, and holds
	// it until the returned function is called. Hint names a carrier to try first;
	// nil: none. While no carrier has room it waits for one until then. Before it
	// waits it calls rest, whose error it returns. The error is problem.ErrEnded if the
	// stream ended just then.
	Acquire(ctx context.Context, name string, hint *Source, until time.Time, rest func() error) (*forward.Stream, func(), error)
	// Await returns nil when the stream has been seen, here or at another node.
	// After tries that failed although it had been seen, it takes its time.
	Await(ctx context.Context, name string, tries int) error
}

// Config is what a Server is made of. All fields but those with a default, those
// that may be nil and the empty ones are required. Functions may be called from
// several goroutines and must return when ctx ends.
type Config struct {
	Self    peer.ID
	Key     crypto.PrivKey // signs tickets
	Ledger  *ledger.Ledger
	Streams Streams
	Media   Media

	// Place finds and reserves a helper for a client. A [capacity.Refusal] if
	// nobody has room, problem.ErrNotLive if the stream to view is nowhere, a
	// [*problem.UnansweredError] if neither can be known.
	Place func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error)
	// Claim takes the name of a stream for a publisher here, until release is
	// called. The error is a [*problem.TakenError], or a [*problem.UnansweredError].
	// Nil: every name is free that is free here.
	Claim func(ctx context.Context, stream string) (release func(), err error)
	// Published tells which other nodes have a publisher of stream. Nil: nobody is
	// asked.
	Published func(ctx context.Context, stream string) ([]peer.ID, error)
	// Handover opens a stream of [handover.Protocol]; nil: [Relay] reaches nobody.
	Handover func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Addrs are this node's own libp2p addresses, for tickets.
	Addrs func() []multiaddr.Multiaddr

	Gate            *scope.Gate     // decides where clients may be sent
	Rights          *rights.Rights  // nil: clients may do whatever they ask for
	AddressSessions func() int      // most sessions of a client's address as of now, of IPv6 its /64; 0: no limit
	Overflow        func() Overflow // as of now
	Patience        time.Duration   // how long Place may wait for a server that is being started
	RoomWait        time.Duration   // how long a viewer waits for a carrier with room
	PublicURL       string          // base URL for Location; empty: as the client addressed us
	Origins         Origins         // whose pages may publish and view; zero: all

	// Event is told what happens, and Measured how long it took. They must not
	// block.
	Event    func(event.Event)
	Measured func(meter.Measure, time.Duration)
	Log      *slog.Logger
	Tracer   trace.Tracer
}

// event tells that something happened now.
func (c *Config) event(e event.Event) {
	e.Time = time.Now()
	c.Event(e)
}

// eventOf tells of what happened now to the request of ctx.
func (c *Config) eventOf(ctx context.Context, e event.Event) {
	e.Trace = tracing.ID(ctx)
	c.event(e)
}

// A Server serves the clients of one node.
type Server struct {
	cfg        Config
	log        *slog.Logger
	tracer     trace.Tracer
	admission  *admission
	names      names
	redirector redirector
	taker      *handover.Taker

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	ended    endedSessions

	wg sync.WaitGroup // sessions, and their looks for another publisher
}

// New makes a Server. It runs nothing until a client comes.
func New(cfg Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, log: cfg.Log, tracer: cfg.Tracer, ctx: ctx, cancel: cancel, admission: newAdmission(cfg.AddressSessions),
		sessions: map[string]*session{},
	}
	s.names = names{cfg: &s.cfg, publishers: map[string]*session{}}
	s.redirector = redirector{cfg: &s.cfg}
	s.taker = handover.NewTaker(ctx, cfg.Self, s.Handler(), relayTimeout, cfg.Log)
	return s
}

// Close ends all sessions and waits for them. Requests under way fail.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// TakeOver serves a handover that from asks for, as if the client had come with
// its ticket itself, and closes signal. Clients reach this node at public, a base
// URL.
func (s *Server) TakeOver(from peer.ID, signal Signal, public string) {
	s.taker.Serve(from, signal, public)
}

// Sample takes in what sessions have carried up to now, for their bitrates.
func (s *Server) Sample(now time.Time) {
	for _, sess := range s.all() {
		sess.pace.sample(now, sess.transport.Traffic())
	}
}

// Counts are how many of each there are now.
type Counts struct {
	Publishers, Viewers int

	Setups  int // requests that are being set up
	Waiting int // requests that wait, for a stream, for room or for their turn
}

// Counts reads them.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	var c Counts
	c.Setups, c.Waiting = s.admission.counts()
	for _, sess := range s.sessions {
		if sess.kind == WHIP {
			c.Publishers++
		} else {
			c.Viewers++
		}
	}
	return c
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
