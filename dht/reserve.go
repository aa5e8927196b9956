package dht

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holding"
	"weir/dht/pb"
)

// clip makes s fit for a message field of most bytes.
func clip(s string, most int) string { return capacity.Printable(s, most) }

// answerReserve answers one request of /reserve/1 by the node's own ledger.
func (n *Node) answerReserve(_ context.Context, from peer.ID, req *pb.ReserveRequest) *pb.ReserveResponse {
	switch op := req.Op.(type) {
	case *pb.ReserveRequest_Reserve:
		need, err := holding.NeedFromWire(op.Reserve.Need)
		if err != nil {
			return &pb.ReserveResponse{Error: clip(err.Error(), maxReason)}
		}
		topic := Topic(op.Reserve.Topic)
		if err := topic.CheckAsked(); err != nil {
			return &pb.ReserveResponse{Error: clip(err.Error(), maxReason)}
		}
		// Take the record as it was before the lease, which may use up the last
		// room.
		r, sealed, ok := n.publisher.Published(topic)
		if !ok {
			return &pb.ReserveResponse{Refusal: refusalToWire(&capacity.Refusal{
				Reason: "gone", Detail: "this node has nothing in " + string(topic) + " any more",
			})}
		}
		if r.Seq <= op.Reserve.Seq {
			sealed = nil
		}
		use := n.use(topic)
		lease, err := n.grant(capacity.Request{ID: op.Reserve.Id, From: from, Need: need})
		if err != nil {
			return &pb.ReserveResponse{Refusal: refusalToWire(err)}
		}
		return &pb.ReserveResponse{Lease: lease, Record: sealed, Use: use}
	case *pb.ReserveRequest_Release:
		if n.cfg.Release != nil {
			n.cfg.Release(from, op.Release.Id)
		}
		return &pb.ReserveResponse{}
	default:
		return &pb.ReserveResponse{Error: "unknown request"}
	}
}

// use is the node's current load, encoded; in a stream's topic it includes that
// stream's.
func (n *Node) use(topic Topic) []byte {
	if n.cfg.Sample == nil {
		return nil
	}
	r, carries := n.cfg.Sample()
	r.Carries = nil
	for _, c := range carries {
		if c.Stream == topic.Stream() {
			r.Carries = &c
		}
	}
	r.Seq, r.Issued = 1, time.UnixMilli(1)
	return signed.EncodeLoad(&r)
}

func (n *Node) grant(req capacity.Request) ([]byte, error) {
	if n.cfg.Grant == nil {
		return nil, &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
	}
	lease, err := n.cfg.Grant(req)
	if err != nil {
		return nil, err
	}
	return signed.SealLease(lease, n.cfg.Key)
}

func refusalToWire(err error) *pb.Refusal {
	var refusal *capacity.Refusal
	if !errors.As(err, &refusal) {
		refusal = &capacity.Refusal{Reason: "error", Detail: err.Error()}
	}
	return &pb.Refusal{
		Reason:  clip(refusal.Reason, 64),
		Detail:  clip(refusal.Detail, maxReason),
		RetryMs: uint32(refusal.RetryAfter.Milliseconds()),
	}
}
