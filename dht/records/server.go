package records

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/inspect"
	"weir/dht/naming"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// The largest messages, in bytes, that a peer may send. A frame that announces
// more is refused before anything is allocated for it.
const (
	MaxRequest        = 96 << 10 // an ADVERTISE of holding.MaxEntries records
	maxAdvertiseReply = 32 << 10
	maxFetchReply     = 72 << 10 // inspect.MaxFetch records
	maxEvent          = 2 << 10
)

const maxReason = 256 // bytes of a reason given

// Own are the records that a node publishes; see [publish.Publisher].
type Own interface {
	Own() (capacity.Record, bool)                                             // the capacity record
	Sealed(most int) [][]byte                                                 // the capacity record first
	Published(topic holder.Topic) (r capacity.Record, sealed []byte, ok bool) // the one in topic
}

// Config is a Server's view of its node. Functions are called from several
// goroutines.
type Config struct {
	Inbound *overlay.Server
	Holding *holding.Holder
	Names   *naming.Registrar
	Own     Own

	Table *holder.Table // this node's, as a holder

	Mode directory.Mode
	// Coordinate is the node's network coordinate.
	Coordinate func() *coordinate.Coordinate
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time

	// Go runs f in the background, or returns false once the node is closed,
	// which Closed tells.
	Go     func(f func()) bool
	Closed <-chan struct{}
	Log    *slog.Logger
}

// A Server answers the requests of /records/1. It is safe for concurrent use.
type Server struct{ cfg Config }

// NewServer returns a Server.
func NewServer(cfg Config) *Server { return &Server{cfg} }

// Serve answers the request on s.
func (s *Server) Serve(stream network.Stream) {
	var req pb.Request
	if !s.cfg.Inbound.Receive(stream, MaxRequest, &req) {
		return
	}
	if w := req.GetWatch(); w != nil {
		s.watch(stream, stream.Conn().RemotePeer(), w)
		return
	}
	s.cfg.Inbound.Reply(stream, errorReply(holding.ErrRequests), func(from peer.ID) proto.Message {
		return overlay.Answer(s.cfg.Inbound, from, &req, s.Answer)
	})
}

// Answer answers every request but WATCH.
func (s *Server) Answer(_ context.Context, from peer.ID, req *pb.Request) *pb.Response {
	now := time.Now()
	switch op := req.Op.(type) {
	case *pb.Request_Advertise:
		reply, err := s.cfg.Holding.Advertise(now, from, op.Advertise)
		if err != nil {
			return errorReply(err)
		}
		reply.Coordinate = vivaldi.ToWire(s.cfg.Coordinate())
		return &pb.Response{Op: &pb.Response_Advertise{Advertise: reply}}
	case *pb.Request_Query:
		reply, err := s.cfg.Holding.Query(now, from, op.Query)
		if err != nil {
			return errorReply(err)
		}
		return &pb.Response{Op: &pb.Response_Query{Query: reply}}
	case *pb.Request_Fetch:
		return &pb.Response{Op: &pb.Response_Fetch{Fetch: s.fetch(now, op.Fetch)}}
	case *pb.Request_HandOver:
		reply, err := s.cfg.Holding.HandOver(now, from, op.HandOver)
		if err != nil {
			return errorReply(err)
		}
		return &pb.Response{Op: &pb.Response_HandOver{HandOver: reply}}
	case *pb.Request_Claim:
		reply, err := s.cfg.Names.Answer(now, from, op.Claim)
		if err != nil {
			return errorReply(err)
		}
		return &pb.Response{Op: &pb.Response_Claim{Claim: reply}}
	default:
		return errorReply(errors.New("unknown request"))
	}
}

func errorReply(err error) *pb.Response {
	return &pb.Response{Error: capacity.Printable(err.Error(), maxReason), Busy: errors.Is(err, holding.ErrBusy)}
}

// fetch returns this node's own records that req asks for, and its status.
func (s *Server) fetch(now time.Time, req *pb.Fetch) *pb.FetchReply {
	reply := &pb.FetchReply{
		Coordinate: vivaldi.ToWire(s.cfg.Coordinate()),
		NowMs:      s.cfg.Wall(now).UnixMilli(),
		Mode:       string(s.cfg.Mode),
	}
	if req.Topic == "" {
		reply.Sealed = s.cfg.Own.Sealed(min(int(req.Max), inspect.MaxFetch))
	} else if _, sealed, ok := s.cfg.Own.Published(holder.Topic(req.Topic)); ok && req.Max > 0 {
		reply.Sealed = [][]byte{sealed}
	}
	topics, records := s.cfg.Table.Size(now)
	reply.HeldTopics, reply.HeldRecords = uint32(topics), uint32(records)
	if me, ok := s.cfg.Own.Own(); ok {
		reply.Version, reply.Name = me.Release, me.Name
	}
	return reply
}
