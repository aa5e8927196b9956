package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
	"weir/dht/scale"
	"weir/dht/seek"
)

// ProvisionFeature is in the records of nodes that start servers.
const ProvisionFeature = holder.ProvisionFeature

// newProvisioners wires the client and server side of provisioning to this
// node.
func (n *Node) newProvisioners() *scale.Provisioners {
	return &scale.Provisioners{
		Self: n.ID(),
		Own:  n.cfg.Provisioner,
		List: n.provisioners,
		Ask: func(ctx context.Context, p peer.ID, req scale.Request) (scale.Reply, error) {
			resp, err := n.askProvisioner(ctx, p, provisionToWire(req))
			if err != nil {
				return scale.Reply{}, err
			}
			return n.provisionReply(req, resp)
		},
		Silent: func(p peer.ID) bool { return n.peers.Live.Down(time.Now(), p) || n.peers.Live.Suspect(p) },
		Log:    n.log,
	}
}

// provisioners are the nodes that start servers in region, closest to the
// topic's key first, this one included if it is one.
func (n *Node) provisioners(ctx context.Context, region string) ([]peer.ID, error) {
	topic := ProvisionTopic(region)
	answer, err := n.Seeker.Find(ctx, topic, capacity.Need{}, nil)
	if err != nil {
		return nil, err // no answer does not mean that there is none
	}
	var list []peer.ID
	if n.cfg.Provisioner.Serves(region) {
		list = append(list, n.ID())
	}
	for _, c := range answer.Candidates {
		n.peers.Learn(c.Record.Node, c.Record.Addrs)
		list = append(list, c.Record.Node)
	}
	return directory.Closest(kb.ConvertKey(topic.Key(n.network)), list), nil
}

// askProvisioner sends one request. A refusal is an error.
func (n *Node) askProvisioner(ctx context.Context, p peer.ID, req *pb.ProvisionRequest) (*pb.ProvisionResponse, error) {
	n.peers.Locate(ctx, p)
	var resp pb.ProvisionResponse
	rtt, _, err := n.overlay.Call(ctx, p, n.provisionID, req, &resp, maxProvision)
	if err != nil {
		n.peers.Failed(p, err)
		return nil, err
	}
	n.peers.Answered(p, rtt)
	switch {
	case resp.Error != "":
		return nil, fmt.Errorf("provisioner: %.200s", resp.Error)
	case resp.Refusal != nil:
		return &resp, &capacity.Refusal{
			Reason:     clip(resp.Refusal.Reason, 64),
			Detail:     clip(resp.Refusal.Detail, maxReason),
			RetryAfter: time.Duration(resp.Refusal.RetryMs) * time.Millisecond,
		}
	}
	return &resp, nil
}

// provisionReply reads resp, the answer to req.
func (n *Node) provisionReply(req scale.Request, resp *pb.ProvisionResponse) (r scale.Reply, err error) {
	switch {
	case resp.Closer != nil:
		ai, err := resp.Closer.AddrInfo()
		if err != nil {
			return r, err
		}
		n.peers.Learn(ai.ID, ai.Addrs)
		r.Closer = ai.ID
	case resp.Coming != nil:
		r.Server = scale.PendingServer{
			Request: clip(resp.Coming.Request, 64),
			Until:   time.Now().Add(time.Duration(resp.Coming.UntilMs) * time.Millisecond),
			Started: resp.Coming.Started,
		}
	case !req.Leave:
		return r, errors.New("provisioner answered something else")
	}
	return r, nil
}

// answerProvision answers one request of /provision/1.
func (n *Node) answerProvision(ctx context.Context, from peer.ID, wire *pb.ProvisionRequest) *pb.ProvisionResponse {
	req, err := provisionFromWire(wire)
	var reply scale.Reply
	if err == nil {
		reply, err = n.Provisioners.Answer(ctx, from, req)
	}
	switch {
	case seek.IsRefusal(err):
		return &pb.ProvisionResponse{Refusal: refusalToWire(err)}
	case err != nil:
		return &pb.ProvisionResponse{Error: clip(err.Error(), maxReason)}
	case reply.Closer != "":
		return &pb.ProvisionResponse{Closer: pb.PeerOf(n.overlay.Host.Peerstore().PeerInfo(reply.Closer))}
	case req.Leave:
		return &pb.ProvisionResponse{}
	}
	left := max(0, time.Until(reply.Server.Until))
	return &pb.ProvisionResponse{Coming: &pb.Coming{Request: reply.Server.Request, UntilMs: uint32(min(left, time.Hour).Milliseconds()), Started: reply.Server.Started}}
}

func provisionToWire(req scale.Request) *pb.ProvisionRequest {
	if req.Leave {
		return &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Leave{Leave: &pb.Leave{Region: req.Region, Final: req.Final}}}
	}
	return &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{
		Region: req.Region, Need: signed.NeedToWire(req.Need), Reason: clip(req.Reason, 64), Final: req.Final,
	}}}
}

func provisionFromWire(w *pb.ProvisionRequest) (req scale.Request, err error) {
	switch op := w.Op.(type) {
	case *pb.ProvisionRequest_Provision:
		req = scale.Request{Region: op.Provision.Region, Reason: clip(op.Provision.Reason, 64), Final: op.Provision.Final}
		req.Need, err = holding.NeedFromWire(op.Provision.Need)
	case *pb.ProvisionRequest_Leave:
		req = scale.Request{Region: op.Leave.Region, Leave: true, Final: op.Leave.Final}
	default:
		err = errors.New("unknown request")
	}
	return req, err
}
