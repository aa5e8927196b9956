package seek

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
	"weir/dht/reserve"
)

// The largest answers, in bytes, that a peer may send.
const (
	MaxQueryReply = 24 << 10 // holding.QueryLimit records, reports about their nodes, and the rules
	maxReserve    = reserve.MaxMessage
)

// Overlay sends requests to other nodes; see [overlay.Overlay].
type Overlay interface {
	// Call sends req to p and reads resp, of max bytes at most. The round trip
	// is 0 if this call does not measure it.
	Call(ctx context.Context, p peer.ID, protocol protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent overlay.Cost, err error)
	// Go runs f in the background, or returns false once the node is closed.
	Go(f func()) bool
	// Context is done once the node is closed.
	Context() context.Context
}

// Peers knows how to reach other nodes; see [overlay.Peers].
type Peers interface {
	Connected(p peer.ID) bool
	Learn(p peer.ID, addrs []multiaddr.Multiaddr)
	Locate(ctx context.Context, p peer.ID) // looks for addresses if none are known
	Deadline(p peer.ID) time.Duration
	Answered(p peer.ID, rtt time.Duration)
	Failed(p peer.ID, err error)
}

// Coordinates are the node's network coordinate and the distances to others.
type Coordinates interface {
	Here() *coordinate.Coordinate
	Predict(at *coordinate.Coordinate) time.Duration // 0: unknown
}

// Config is a [Seeker]'s view of its node. All fields except Grant and Release
// have to be set.
type Config struct {
	ID        peer.ID
	Client    bool           // holds nothing
	Publishes bool           // has records of its own
	Discovery directory.Mode // how holders are found

	Overlay     Overlay
	Records     protocol.ID // protocol for asking holders
	Reserves    protocol.ID // protocol for asking candidates for room
	Peers       Peers
	Live        *liveness.Detector
	Coordinates Coordinates

	Directory directory.Directory
	Cache     *directory.Cache
	LookUps   *directory.LookUps
	Sharding  *directory.Sharding

	Table      *holder.Table   // this node's table
	Holding    *holding.Holder // answers queries from it
	Newest     *place.Memory
	Reputation *holder.Reputation

	Policy func() *policy.Compiled
	// Own returns the record that the node published last, and Published the
	// one in topic, with its sealed bytes.
	Own       func() (capacity.Record, bool)
	Published func(topic holder.Topic) (r capacity.Record, sealed []byte, ok bool)
	// Use returns the node's current use, encoded; in a stream's topic it
	// includes the stream's own.
	Use func(topic holder.Topic) []byte
	// WarmedUp reports whether every publisher has had the time to send this
	// node its record, in a network where every node holds everything.
	WarmedUp func() bool
	// Measure makes one exchange with p to measure its round trip.
	Measure func(ctx context.Context, p peer.ID) error
	// Reachable returns an error if clients must not be sent to r's URL.
	Reachable func(need capacity.Need, r *capacity.Record) error
	// Wall returns the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time
	// Grant returns leases on this node itself, nil if it takes nothing, and
	// Release takes them back.
	Grant   func(capacity.Request) (capacity.Lease, error)
	Release func(from peer.ID, request string)

	Log    *slog.Logger
	Tracer trace.Tracer
}

// A Seeker finds and places for one node. It is safe for concurrent use.
type Seeker struct {
	// Regions is what the node knows of regions. It knows none before
	// [Regions.Run].
	Regions *Regions
	cfg     Config
}

// New makes the seeker of a node. It starts nothing.
func New(cfg Config) *Seeker {
	s := &Seeker{cfg: cfg}
	s.Regions = &Regions{
		index: func(ctx context.Context) ([]policy.Candidate, error) {
			answer, err := s.find(ctx, &query{topic: holder.RegionsTopic, limit: holding.QueryLimit})
			return answer.Candidates, err
		},
		load: s.askLoad, balance: func() float64 { return cfg.Policy().Policy().Balance },
		publishes: cfg.Publishes, sharding: cfg.Sharding, whole: cfg.Directory.Complete, alone: cfg.LookUps.Alone, log: cfg.Log,
	}
	return s
}

// Question is the request that asks a holder for the records in topic that meet
// need.
func (s *Seeker) Question(topic holder.Topic, need capacity.Need) *pb.Request {
	return s.queryRequest(&query{topic: topic, need: need, limit: holding.QueryLimit})
}

// patience is how long to wait for id's answer before asking others too.
func (s *Seeker) patience(id peer.ID) time.Duration {
	return place.Patience(s.cfg.Live.RTT(id), s.cfg.Peers.Connected(id))
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
