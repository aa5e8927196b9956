package scale

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/pb"
)

// MaxMessage is the size in bytes of the largest message of /provision/1.
const MaxMessage = 4 << 10

const (
	maxReason  = 64  // bytes of a reason in one word, and of a request's ID
	maxError   = 256 // bytes of an error
	maxPending = time.Hour
)

// An Exchange carries requests between [Provisioners] of several nodes, by
// /provision/1. Its functions may be called from several goroutines.
type Exchange struct {
	// Call sends req to another node and reads its answer.
	Call func(ctx context.Context, p peer.ID, req *pb.ProvisionRequest, resp *pb.ProvisionResponse) error
	// Introduced learns the addresses in w of another node. It is not ok if w
	// is invalid.
	Introduced func(w *pb.Peer) (p peer.ID, ok bool)
	// Introduce returns a node with its known addresses.
	Introduce func(p peer.ID) *pb.Peer
	// Answer answers a request; see [Provisioners.Answer].
	Answer func(ctx context.Context, from peer.ID, req Request) (Reply, error)
}

// Ask sends req to p. A refusal is a *capacity.Refusal; any other error means
// that p gave no answer.
func (x *Exchange) Ask(ctx context.Context, p peer.ID, req Request) (Reply, error) {
	var resp pb.ProvisionResponse
	if err := x.Call(ctx, p, requestToWire(req), &resp); err != nil {
		return Reply{}, err
	}
	return x.reply(time.Now(), req, &resp)
}

// reply reads resp, the answer to req.
func (x *Exchange) reply(now time.Time, req Request, resp *pb.ProvisionResponse) (r Reply, err error) {
	switch {
	case resp.Error != "":
		return r, fmt.Errorf("provisioner: %.200s", resp.Error)
	case resp.Refusal != nil:
		return r, resp.Refusal.Err()
	case resp.Closer != nil:
		id, ok := x.Introduced(resp.Closer)
		if !ok {
			return r, errors.New("provisioner named an invalid one")
		}
		r.Closer = id
	case resp.Coming != nil:
		r.Server = PendingServer{
			Request: capacity.Printable(resp.Coming.Request, maxReason),
			Until:   now.Add(time.Duration(resp.Coming.UntilMs) * time.Millisecond),
			Started: resp.Coming.Started,
		}
	case !req.Leave:
		return r, errors.New("provisioner answered something else")
	}
	return r, nil
}

// Serve answers one request of from's.
func (x *Exchange) Serve(ctx context.Context, from peer.ID, wire *pb.ProvisionRequest) *pb.ProvisionResponse {
	req, err := requestFromWire(wire)
	var reply Reply
	if err == nil {
		reply, err = x.Answer(ctx, from, req)
	}
	switch {
	case err != nil && answered(err):
		return &pb.ProvisionResponse{Refusal: pb.RefusalOf(err)}
	case err != nil:
		return &pb.ProvisionResponse{Error: capacity.Printable(err.Error(), maxError)}
	case reply.Closer != "":
		return &pb.ProvisionResponse{Closer: x.Introduce(reply.Closer)}
	case req.Leave:
		return &pb.ProvisionResponse{}
	}
	left := min(max(0, time.Until(reply.Server.Until)), maxPending)
	return &pb.ProvisionResponse{Coming: &pb.Coming{Request: reply.Server.Request, UntilMs: uint32(left.Milliseconds()), Started: reply.Server.Started}}
}

func requestToWire(req Request) *pb.ProvisionRequest {
	if req.Leave {
		return &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Leave{Leave: &pb.Leave{Region: req.Region, Final: req.Final}}}
	}
	return &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{
		Region: req.Region, Need: signed.NeedToWire(req.Need), Reason: capacity.Printable(req.Reason, maxReason), Final: req.Final,
	}}}
}

func requestFromWire(w *pb.ProvisionRequest) (req Request, err error) {
	switch op := w.Op.(type) {
	case *pb.ProvisionRequest_Provision:
		if op.Provision.Need == nil {
			return req, errors.New("no need given")
		}
		req = Request{
			Region: op.Provision.Region, Need: signed.NeedFromWire(op.Provision.Need),
			Reason: capacity.Printable(op.Provision.Reason, maxReason), Final: op.Provision.Final,
		}
		return req, req.Need.Check()
	case *pb.ProvisionRequest_Leave:
		return Request{Region: op.Leave.Region, Leave: true, Final: op.Leave.Final}, nil
	default:
		return req, errors.New("unknown request")
	}
}
