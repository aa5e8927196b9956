package seek

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

// errUnproven means that a candidate's lease, or the record with it, is
// invalid.
var errUnproven = errors.New("lease not used")

// ReserveRequest asks for a lease, and for the target's record in topic unless
// it is no newer than seq.
func ReserveRequest(id string, topic holder.Topic, need capacity.Need, seq uint64) *pb.ReserveRequest {
	return &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{
		Id: id, Need: signed.NeedToWire(need), Topic: string(topic), Seq: seq,
	}}}
}

// IsRefusal reports whether err is a target's refusal to take anything more.
func IsRefusal(err error) bool {
	var refusal *capacity.Refusal
	return errors.As(err, &refusal)
}

// reserveOn asks one candidate and checks its answer. It takes no longer than
// [place.ReserveDeadline], and goes on when the placement is decided without
// it: ctx is the reservation's.
func (s *Seeker) reserveOn(ctx context.Context, pick *offer, topic holder.Topic, request string, need capacity.Need) (r reserved) {
	start := time.Now()
	target := pick.Record.Node
	r.node = target
	defer func() { r.elapsed = time.Since(start) }()
	if target == s.cfg.ID {
		if s.cfg.Grant == nil {
			r.err = &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
			return r
		}
		var v policy.Evaluation
		if v, r.err = s.confirm(topic, need, pick, nil, s.cfg.Use(topic), 0); r.err == nil {
			r.placed.Candidate, r.score = v.Candidate, v.Score
			r.placed.Lease, r.err = s.cfg.Grant(capacity.Request{ID: request, From: target, Need: need})
		}
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, place.ReserveDeadline(pick.RTT))
	defer cancel()
	s.cfg.Peers.Learn(target, pick.Record.Addrs)
	s.cfg.Peers.Locate(ctx, target) // its record is fresh: worth dialling
	var known uint64
	if !pick.DigestOnly() {
		known = pick.Record.Seq
	}
	req := ReserveRequest(request, topic, need, known)
	var resp pb.ReserveResponse
	var rtt time.Duration
	rtt, r.spent, r.err = s.cfg.Overlay.Call(ctx, target, s.cfg.Reserves, req, &resp, maxReserve)
	if r.err != nil {
		s.cfg.Peers.Failed(target, r.err)
		return r
	}
	s.cfg.Peers.Answered(target, rtt)
	switch {
	case resp.Refusal != nil:
		r.err = resp.Refusal.Err()
	case resp.Error != "":
		r.err = fmt.Errorf("request not served: %.200s", resp.Error)
	default:
		var err error
		r.placed.Lease, err = signed.OpenLease(resp.Lease, s.cfg.Wall(time.Now()))
		if l := r.placed.Lease; err == nil && (l.Target != target || l.From != s.cfg.ID || l.ID != request || l.Need != need) {
			err = errors.New("it is for something else")
		}
		if err == nil {
			var v policy.Evaluation
			v, err = s.confirm(topic, need, pick, resp.Record, resp.Use, rtt)
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

// ReleaseLease releases a lease that will not be used. If the target cannot be
// reached, the lease ends by itself when it expires.
func (s *Seeker) ReleaseLease(ctx context.Context, l capacity.Lease) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	s.releaseCtx(ctx, l.Target, l.ID)
}

// release is ReleaseLease in the background of this node's own work; ctx is the
// node's.
func (s *Seeker) release(ctx context.Context, target peer.ID, request string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	s.releaseCtx(ctx, target, request)
}

func (s *Seeker) releaseCtx(ctx context.Context, target peer.ID, request string) {
	if target == s.cfg.ID {
		if s.cfg.Release != nil {
			s.cfg.Release(target, request)
		}
		return
	}
	req := &pb.ReserveRequest{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: request}}}
	if _, _, err := s.cfg.Overlay.Call(ctx, target, s.cfg.Reserves, req, &pb.ReserveResponse{}, maxReserve); err != nil {
		s.cfg.Log.DebugContext(ctx, "lease not given back; it runs out by itself", "peer", target, "err", err)
	}
}
