package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holding"
	"weir/dht/pb"
	"weir/dht/place"
)

// errUnproven means that a candidate's lease, or the record with it, is not
// what it has to be.
var errUnproven = errors.New("lease not used")

// reserveRequest asks for a lease, and for the target's record in topic unless
// it is no newer than seq.
func reserveRequest(id string, topic Topic, need capacity.Need, seq uint64) *pb.ReserveRequest {
	return &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{
		Id: id, Need: signed.NeedToWire(need), Topic: string(topic), Seq: seq,
	}}}
}

func isRefusal(err error) bool {
	var refusal *capacity.Refusal
	return errors.As(err, &refusal)
}

// reserveOn asks one candidate and checks what it says. It takes no longer than
// [place.ReserveDeadline], and goes on when the placement is decided without it:
// ctx is the reservation's.
func (n *Node) reserveOn(ctx context.Context, pick *offer, topic Topic, request string, need capacity.Need) (r reserved) {
	start := time.Now()
	target := pick.Record.Node
	r.node = target
	defer func() { r.elapsed = time.Since(start) }()
	if target == n.ID() {
		if n.cfg.Grant == nil {
			r.err = &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
			return r
		}
		var v policy.Evaluation
		if v, r.err = n.confirm(topic, need, pick, nil, n.use(topic), 0); r.err == nil {
			r.placed.Candidate, r.score = v.Candidate, v.Score
			r.placed.Lease, r.err = n.cfg.Grant(capacity.Request{ID: request, From: target, Need: need})
		}
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, place.ReserveDeadline(pick.RTT))
	defer cancel()
	n.peers.Learn(target, pick.Record.Addrs)
	n.peers.Locate(ctx, target) // its record is fresh: worth a dial
	var known uint64
	if !pick.Told() {
		known = pick.Record.Seq
	}
	req := reserveRequest(request, topic, need, known)
	var resp pb.ReserveResponse
	var rtt time.Duration
	rtt, r.spent, r.err = n.overlay.Call(ctx, target, n.reserves, req, &resp, maxReserve)
	if r.err != nil {
		n.peers.Failed(target, r.err)
		return r
	}
	n.peers.Answered(target, rtt)
	switch {
	case resp.Refusal != nil:
		r.err = &capacity.Refusal{
			Reason:     clip(resp.Refusal.Reason, 64),
			Detail:     clip(resp.Refusal.Detail, maxReason),
			RetryAfter: time.Duration(resp.Refusal.RetryMs) * time.Millisecond,
		}
	case resp.Error != "":
		r.err = fmt.Errorf("request not served: %.200s", resp.Error)
	default:
		var err error
		r.placed.Lease, err = signed.OpenLease(resp.Lease, n.wall(time.Now()))
		if l := r.placed.Lease; err == nil && (l.Target != target || l.From != n.ID() || l.ID != request || l.Need != need) {
			err = errors.New("it is for something else")
		}
		if err == nil {
			var v policy.Evaluation
			v, err = n.confirm(topic, need, pick, resp.Record, resp.Use, rtt)
			r.placed.Candidate, r.score = v.Candidate, v.Score
		}
		var unfit *errUnfit
		if err != nil && !errors.As(err, &unfit) {
			err = fmt.Errorf("%w: %w", errUnproven, err)
		}
		r.err = err
	}
	return r
}

// clip makes s fit for a field of a message.
func clip(s string, most int) string { return capacity.Printable(s, most) }

// ReleaseLease gives a lease back that is not going to be used. A target that
// cannot be told frees it by itself when it runs out.
func (n *Node) ReleaseLease(ctx context.Context, l capacity.Lease) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	n.releaseCtx(ctx, l.Target, l.ID)
}

// release is ReleaseLease in the background of this node's own work, whose ctx is
// the node's.
func (n *Node) release(ctx context.Context, target peer.ID, request string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	n.releaseCtx(ctx, target, request)
}

func (n *Node) releaseCtx(ctx context.Context, target peer.ID, request string) {
	if target == n.ID() {
		if n.cfg.Release != nil {
			n.cfg.Release(target, request)
		}
		return
	}
	req := &pb.ReserveRequest{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: request}}}
	if _, _, err := n.overlay.Call(ctx, target, n.reserves, req, &pb.ReserveResponse{}, maxReserve); err != nil {
		n.log.DebugContext(ctx, "lease not given back; it runs out by itself", "peer", target, "err", err)
	}
}

// serveReserve answers one request of /reserve/1 by the node's own ledger.
func (n *Node) serveReserve(s network.Stream) {
	var req pb.ReserveRequest
	busy := &pb.ReserveResponse{Refusal: refusalToWire(&capacity.Refusal{Reason: "busy", Detail: errBusy.Error(), RetryAfter: time.Second})}
	n.overlay.Server.ServeOne(s, maxReserve, &req, busy, func(from peer.ID) proto.Message { return n.answerReserve(from, &req) })
}

func (n *Node) answerReserve(from peer.ID, req *pb.ReserveRequest) (resp *pb.ReserveResponse) {
	ctx, span := n.overlay.Server.Begin(from, req, req.Trace)
	defer func() { n.overlay.Server.End(ctx, span, from, resp) }()
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
		// The record as it was before the lease, which may have taken the
		// last there was.
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

// use is what this node uses now, and in a stream's topic what it does for that.
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
