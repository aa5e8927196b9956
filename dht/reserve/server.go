package reserve

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
)

// MaxMessage is the size in bytes of the largest message of /reserve/1.
const MaxMessage = 4 << 10

const maxReason = 256 // bytes of a reason given

// A Server answers requests for leases. It is safe for concurrent use.
type Server struct {
	Key crypto.PrivKey // signs leases
	// Published returns the record that the node publishes in topic, with its
	// sealed bytes.
	Published func(topic holder.Topic) (r capacity.Record, sealed []byte, ok bool)
	// Sample returns the node's current state; nil: it publishes nothing.
	Sample func() (capacity.Record, []capacity.StreamInfo)
	// Grant returns a lease for a request or refuses with a *capacity.Refusal;
	// Release takes one back. Nil: nothing is granted.
	Grant   func(capacity.Request) (capacity.Lease, error)
	Release func(from peer.ID, id string)
}

// Busy is the answer of a node that serves all the requests it can.
func Busy() *pb.ReserveResponse {
	return &pb.ReserveResponse{Refusal: pb.RefusalOf(&capacity.Refusal{Reason: "busy", Detail: holding.ErrRequests.Error(), RetryAfter: time.Second})}
}

// Answer answers one request.
func (s *Server) Answer(_ context.Context, from peer.ID, req *pb.ReserveRequest) *pb.ReserveResponse {
	switch op := req.Op.(type) {
	case *pb.ReserveRequest_Reserve:
		return s.reserve(from, op.Reserve)
	case *pb.ReserveRequest_Release:
		if s.Release != nil {
			s.Release(from, op.Release.Id)
		}
		return &pb.ReserveResponse{}
	default:
		return &pb.ReserveResponse{Error: "unknown request"}
	}
}

func (s *Server) reserve(from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
	need, err := holding.NeedFromWire(req.Need)
	topic := holder.Topic(req.Topic)
	if err == nil {
		err = topic.CheckAsked()
	}
	if err != nil {
		return &pb.ReserveResponse{Error: capacity.Printable(err.Error(), maxReason)}
	}
	// Take the record as it was before the lease, which may use up the last
	// room.
	r, sealed, ok := s.Published(topic)
	if !ok {
		return &pb.ReserveResponse{Refusal: pb.RefusalOf(&capacity.Refusal{
			Reason: "gone", Detail: "this node has nothing in " + string(topic) + " any more",
		})}
	}
	if r.Seq <= req.Seq {
		sealed = nil
	}
	use := s.Use(topic)
	lease, err := s.grant(capacity.Request{ID: req.Id, From: from, Need: need})
	if err != nil {
		return &pb.ReserveResponse{Refusal: pb.RefusalOf(err)}
	}
	return &pb.ReserveResponse{Lease: lease, Record: sealed, Use: use}
}

// Use is the node's current load, encoded, nil if it publishes nothing; in a
// stream's topic it includes that stream's.
func (s *Server) Use(topic holder.Topic) []byte {
	if s.Sample == nil {
		return nil
	}
	r, carries := s.Sample()
	r.Carries = nil
	for _, c := range carries {
		if c.Stream == topic.Stream() {
			r.Carries = &c
		}
	}
	r.Seq, r.Issued = 1, time.UnixMilli(1)
	return signed.EncodeLoad(&r)
}

func (s *Server) grant(req capacity.Request) ([]byte, error) {
	if s.Grant == nil {
		return nil, &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
	}
	lease, err := s.Grant(req)
	if err != nil {
		return nil, err
	}
	return signed.SealLease(lease, s.Key)
}
