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
	"weir/sfu/steering"
	"weir/sfu/whip/admission"
	"weir/sfu/whip/extension"
	"weir/sfu/whip/handover"
)

// Overflow selects how a full node treats a client that it has no room for.
type Overflow string

// Values of Overflow.
const (
	// Redirect answers 307 with the helper's URL and a ticket.
	Redirect Overflow = "redirect"
	// Relay sends the client's offer to the helper and returns its answer, for
	// clients that do not follow redirects. Media flows between client and
	// helper directly.
	Relay Overflow = "relay"
	// Refuse answers 503 without looking for a helper.
	Refuse Overflow = "refuse"
)

// ParseOverflow parses one of the names above.
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
	Lease string // ID of the lease that Node granted for the pull; may be empty
}

// A Helper is a node that granted a lease to serve one client.
type Helper struct {
	Node  peer.ID
	Addrs []multiaddr.Multiaddr
	URL   string // public base URL of its WHIP and WHEP
	Lease capacity.Lease
	Why   string // one line, for people
}

// A Rival is another node that publishes a stream of the same name.
type Rival struct {
	Node peer.ID
	Held time.Duration // for how long; 0: it is of a release that does not say
	Same bool          // by the same right
}

// Signal is a stream to another node, or one end of a pipe in a test.
type Signal = handover.Signal

// Media sets up the media connections of clients. Offers are those of
// [sdp.ParseOffer]. Errors are those of package sdp, or unforeseen ones.
type Media interface {
	// Publish answers a publisher's offer. It reports events of the publisher's
	// media by tell.
	Publish(ctx context.Context, o *sdp.Offer, tell func(event.Event)) (p Publisher, tracks []*forward.Track, answer string, err error)
	// View answers the offer of a viewer of st. It calls begun when the first
	// packet of each kind goes out, with locks held: begun must not block.
	View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (v Viewer, answer string, err error)
}

// A Transport is the media connection of one client. Restart, Knows and Add are
// never called concurrently.
type Transport interface {
	// Connected is closed when media can flow.
	Connected() <-chan struct{}
	// Ended receives the reason, for people, why the connection has ended or
	// has to.
	Ended() <-chan string
	// Silence returns how long the client has sent no connectivity check that
	// is authenticated with its password; false before the first.
	Silence(now time.Time) (time.Duration, bool)

	// Restart takes new ICE credentials of the client, and returns our own as
	// an SDP fragment.
	Restart(ctx context.Context, ufrag, pwd string) (fragment string, err error)
	// Knows reports whether ufrag is, or was, the client's.
	Knows(ufrag string) bool
	// Add takes further ICE candidates.
	Add(*sdp.Fragment)

	State() string      // for people
	Video() bool        // video is sent to the client
	Traffic() Traffic   // totals since the start
	RTT() time.Duration // to a viewer, by its receiver reports; 0: unknown
	// Congestion returns what is known of a viewer's connection, and decided for
	// it; Tick takes note that time has passed.
	Congestion() steering.Status
	Tick()
	NotTaken() []string     // sections of the offer and tracks of the stream without media, and why
	Unused() map[string]int // unused ICE candidates, by reason

	// Stop ends media at once, and does not wait.
	Stop()
	// Close ends the connection and waits for its goroutines.
	Close()
}

// A Viewer is the media connection of a client that receives.
type Viewer interface {
	Transport
	extension.Media
	// Sending returns the layer of the first video that is sent now; false: none
	// yet.
	Sending() (forward.Layer, bool)
}

// A Publisher is the media connection of a client that sends.
type Publisher interface {
	Transport
	// Adopt connects the publisher to the tracks of a stream that another
	// publisher has left, if they are alike, and reports whether they are.
	Adopt(tracks []*forward.Track) bool
	// Quiet returns how long the publisher has sent nothing, counted from since
	// at the earliest.
	Quiet(now, since time.Time) time.Duration
	// Look reports sections that have begun to send nothing; since is when
	// media could flow.
	Look(now, since time.Time)
	Sections(now time.Time) []sdp.SectionStatus
	NotForwarded() map[string]int64 // packets, by reason
}

// Traffic is the totals of one connection.
type Traffic = forward.Traffic

// Streams is the set of streams that this node carries or can pull.
type Streams interface {
	// Here returns the stream of that name that is carried here, which may have
	// ended just now, or nil. Origin reports whether its publisher is here.
	Here(name string) (st *forward.Stream, origin bool)
	// Reserve reserves a name for a publisher that is being set up, until done
	// is called: meanwhile no stream of that name is pulled here. It reports
	// false if the name is reserved already.
	Reserve(name string) (done func(), ok bool)
	// Publish makes the stream of a publisher known here, and ends any other
	// stream of its name. Since is when the stream, if it is one that was carried
	// here before, has lost its source; zero: it had one.
	Publish(st *forward.Stream) (since time.Time)
	// Drop ends and forgets the stream of a publisher that has gone for good.
	Drop(st *forward.Stream)
	// Vanish has the stream of a publisher that has vanished wait for another
	// for a while; since is the publisher's last sign of life.
	Vanish(st *forward.Stream, since time.Time)
	// Acquire returns the stream, pulled here if it is carried elsewhere, and
	// holds it until the returned function is called. Hint is a carrier to try
	// first, or nil. While no carrier has room, Acquire waits for one, up to
	// the time until. Before it waits it calls rest, whose error it returns.
	// The error is problem.ErrEnded if the stream ended just then.
	Acquire(ctx context.Context, name string, hint *Source, until time.Time, rest func() error) (*forward.Stream, func(), error)
	// Await returns nil when the stream has been seen, here or at another node.
	// Tries is the number of earlier tries that failed although the stream had
	// been seen; with more of them it takes longer.
	Await(ctx context.Context, name string, tries int) error
}

// Config configures a Server. Required are all fields but those with a default,
// those that may be nil and those that may be empty. Functions may be called
// from several goroutines and must return when ctx ends.
type Config struct {
	Self    peer.ID
	Key     crypto.PrivKey // signs tickets
	Ledger  *ledger.Ledger
	Streams Streams
	Media   Media

	// Place finds and reserves a helper for a client. The error is a
	// [capacity.Refusal] if no node has room, problem.ErrNotLive if no node has
	// the stream to view, and a [*problem.UnansweredError] if neither can be
	// determined.
	Place func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error)
	// Claim takes the name of a stream for a publisher here that has right, until
	// release is called. The error is a [*problem.TakenError] or a
	// [*problem.UnansweredError]. Nil: check names on this node only.
	Claim func(ctx context.Context, stream string, right []byte) (release func(), err error)
	// Pass has a name that this node has go over to another publisher here, that
	// has right. Nil: it need not be told.
	Pass func(stream string, right []byte)
	// Published returns the other nodes that have a publisher of stream, by right
	// or another. Nil: do not check.
	Published func(ctx context.Context, stream string, right []byte) ([]Rival, error)
	// Handover opens a stream of [handover.Protocol]; nil: [Relay] reaches no
	// helper.
	Handover func(ctx context.Context, node peer.ID, addrs []multiaddr.Multiaddr) (Signal, error)
	// Addrs are this node's own libp2p addresses, for tickets.
	Addrs func() []multiaddr.Multiaddr

	Gate            *scope.Gate     // decides to which nodes clients may be redirected
	Rights          *rights.Rights  // nil: no access control
	AddressSessions func() int      // current limit of sessions per client address, for IPv6 per /64; 0: none
	Overflow        func() Overflow // current mode
	Patience        time.Duration   // how long Place may wait for a server that is starting
	RoomWait        time.Duration   // how long a viewer waits for a carrier with room
	PublicURL       string          // base URL for Location; empty: as in the client's request
	Origins         Origins         // origins whose pages may publish and view; zero: all

	// Event receives events, and Measured durations. They must not block.
	Event    func(event.Event)
	Measured func(meter.Measure, time.Duration)
	Log      *slog.Logger
	Tracer   trace.Tracer
}

// event reports an event of now.
func (c *Config) event(e event.Event) {
	e.Time = time.Now()
	c.Event(e)
}

// eventOf reports an event of now, of the request of ctx.
func (c *Config) eventOf(ctx context.Context, e event.Event) {
	e.Trace = tracing.ID(ctx)
	c.event(e)
}

// A Server serves the clients of one node.
type Server struct {
	cfg        Config
	log        *slog.Logger
	tracer     trace.Tracer
	admission  *admission.Admission
	names      names
	redirector redirector
	taker      *handover.Taker
	events     extension.Counters

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	ended    endedSessions

	wg sync.WaitGroup // sessions, and their checks for another publisher
}

// New makes a Server. It runs nothing until a client comes.
func New(cfg Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, log: cfg.Log, tracer: cfg.Tracer, ctx: ctx, cancel: cancel, admission: admission.New(cfg.AddressSessions),
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

// TakeOver serves a handover from the node from, as if the client itself had
// come with its ticket, and closes signal. Public is the base URL at which
// clients reach this node.
func (s *Server) TakeOver(from peer.ID, signal Signal, public string) {
	s.taker.Serve(from, signal, public)
}

// EventStreams returns how many viewers read their session's events, and how many
// such streams were closed since their reader did not read.
func (s *Server) EventStreams() (open, slow int64) { return s.events.EventStreams() }

// Sample updates the bitrates, losses and estimates of sessions from their
// totals at now.
func (s *Server) Sample(now time.Time) {
	for _, sess := range s.all() {
		sess.pace.sample(now, sess.transport.Traffic())
		sess.transport.Tick()
	}
}

// Counts are the current numbers of sessions and requests.
type Counts struct {
	Publishers, Viewers int

	Setups  int // requests that are being set up
	Waiting int // requests that wait: for a stream, for room or for a setup slot
}

// Counts returns the current numbers of sessions and requests.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	var c Counts
	c.Setups, c.Waiting = s.admission.Counts()
	for _, sess := range s.sessions {
		if sess.kind == WHIP {
			c.Publishers++
		} else {
			c.Viewers++
		}
	}
	return c
}
