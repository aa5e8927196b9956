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
)

// The largest answers, in bytes, that a peer may send us.
const (
	MaxQueryReply = 24 << 10 // holding.QueryLimit records, doubts of them, and the rules
	MaxReserve    = 4 << 10
)

const maxReason = 256 // bytes of a reason given

// Overlay is how requests leave the node; see [overlay.Overlay].
type Overlay interface {
	// Call sends req to p and reads resp, of max bytes at most. The round trip is
	// 0 if that of this call says nothing.
	Call(ctx context.Context, p peer.ID, protocol protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent overlay.Cost, err error)
	// Go runs f in the background, or returns false once the node is closed.
	Go(f func()) bool
	// Context is done once the node is closed.
	Context() context.Context
}

// Peers is what is known of how to reach others; see [overlay.Peers].
type Peers interface {
	Connected(p peer.ID) bool
	Learn(p peer.ID, addrs []multiaddr.Multiaddr)
	Locate(ctx context.Context, p peer.ID) // looks for addresses, if there are none
	Deadline(p peer.ID) time.Duration
	Answered(p peer.ID, rtt time.Duration)
	Failed(p peer.ID, err error)
}

// Coordinates are where the node is, and how far away others are.
type Coordinates interface {
	Here() *coordinate.Coordinate
	Predict(at *coordinate.Coordinate) time.Duration // 0: unknown
}

// Config is what a [Seeker] needs of its node. All fields but Grant and Release
// have to be set.
type Config struct {
	ID        peer.ID
	Client    bool           // holds nothing
	Publishes bool           // has records of its own
	Discovery directory.Mode // how holders are found

	Overlay     Overlay
	Records     protocol.ID // by which holders are asked
	Reserves    protocol.ID // by which candidates are asked for room
	Peers       Peers
	Live        *liveness.Detector
	Coordinates Coordinates

	Directory directory.Directory
	Cache     *directory.Cache
	LookUps   *directory.LookUps
	Sharding  *directory.Sharding

	Table   *holder.Table   // what the node holds
	Holding *holding.Holder // and how it answers for it
	Newest  *place.Memory
	Beliefs *holder.Beliefs

	Policy func() *policy.Compiled
	// Own is the record that the node published last, and Published the one in
	// topic, sealed.
	Own       func() (capacity.Record, bool)
	Published func(topic holder.Topic) (r capacity.Record, sealed []byte, ok bool)
	// Use is what the node uses now, encoded; in a stream's topic with what it
	// does for that.
	Use func(topic holder.Topic) []byte
	// WarmedUp reports whether every publisher has had the time to tell this node
	// of its record, where all hold everything.
	WarmedUp func() bool
	// Measure makes one exchange with p for the sake of its round trip.
	Measure func(ctx context.Context, p peer.ID) error
	// Reachable is an error if clients must not be sent to where r says it is.
	Reachable func(need capacity.Need, r *capacity.Record) error
	// Wall is the clock that others' times are compared with.
	Wall func(now time.Time) time.Time
	// Grant gives leases of this node itself, nil if it takes nothing, and Release
	// takes them back.
	Grant   func(capacity.Request) (capacity.Lease, error)
	Release func(from peer.ID, request string)

	Log    *slog.Logger
	Tracer trace.Tracer
}

// A Seeker finds and places for one node. It may be used by several goroutines.
type Seeker struct {
	cfg     Config
	regions regionIndex
}

// New makes the seeker of a node. It does nothing by itself before [Seeker.Run].
func New(cfg Config) *Seeker { return &Seeker{cfg: cfg} }

// Regions are the regions of which the index told, nearest first.
func (s *Seeker) Regions() []string {
	near, _ := s.regions.list()
	return near
}

// Question is the request that asks a holder for what in topic meets need.
func (s *Seeker) Question(topic holder.Topic, need capacity.Need) *pb.Request {
	return s.queryRequest(&query{topic: topic, need: need, limit: holding.QueryLimit})
}

// patience is how long to wait for id's answer before asking others too.
func (s *Seeker) patience(id peer.ID) time.Duration {
	return place.Patience(s.cfg.Live.RTT(id), s.cfg.Peers.Connected(id))
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
