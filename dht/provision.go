package dht

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/scale"
)

const (
	// ProvisionFeature is in the records of nodes that start servers.
	ProvisionFeature = holder.ProvisionFeature

	provisionTime = 4 * time.Second // for one provisioner to answer, which looks for room first
	closerTime    = time.Second     // for the asked one to see who is closer
	provisionMost = 4               // provisioners asked for one need
)

// ErrNoProvisioner means that nobody starts servers in a region, as far as is
// known.
var ErrNoProvisioner = errors.New("nobody starts servers there")

// A Provisioner is what a node does that starts and stops servers.
type Provisioner struct {
	// Regions are those in which it does so. It is found under their
	// [ProvisionTopic], if its records have [ProvisionFeature].
	Regions []string
	// Start answers who found no room for need, and whose word for that is not
	// enough: it looks itself. It does not wait for the server. The error is a
	// *capacity.Refusal, or an [*Unanswered].
	Start func(ctx context.Context, region string, need capacity.Need, reason string) (scale.PendingServer, error)
	// Leave answers node, which is idle and would like to end. The error is a
	// *capacity.Refusal.
	Leave func(ctx context.Context, region string, node peer.ID) error
}

func (p *Provisioner) serves(region string) bool {
	return p != nil && slices.Contains(p.Regions, region)
}

// Provision tells the provisioner elected for region that nobody has room for
// need: of those who start servers there, the one closest to the topic's key, or
// the next if it does not answer. All seekers ask the same one, so that one
// server is started however many are in need.
//
// The error is a *capacity.Refusal if none is started, or wraps
// ErrNoProvisioner.
func (n *Node) Provision(ctx context.Context, region string, need capacity.Need, reason string) (scale.PendingServer, error) {
	var coming scale.PendingServer
	err := n.askElected(ctx, region, func(ctx context.Context, p peer.ID, final bool) (closer peer.ID, err error) {
		if p == n.ID() {
			coming, err = n.cfg.Provisioner.Start(ctx, region, need, reason)
			return "", err
		}
		resp, err := n.askProvisioner(ctx, p, &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{
			Region: region, Need: needToWire(need), Reason: clip(reason, 64), Final: final,
		}}})
		if err != nil || resp.Closer != nil {
			return n.namedCloser(resp), err
		}
		if resp.Coming == nil {
			return "", errors.New("provisioner answered something else")
		}
		coming = scale.PendingServer{
			Request: clip(resp.Coming.Request, 64),
			Until:   time.Now().Add(time.Duration(resp.Coming.UntilMs) * time.Millisecond),
			Started: resp.Coming.Started,
		}
		return "", nil
	})
	return coming, err
}

// AskLeave asks the provisioner elected for region whether this node, which has
// nothing to do, may end. Nil: it may. The error is as that of Provision.
func (n *Node) AskLeave(ctx context.Context, region string) error {
	return n.askElected(ctx, region, func(ctx context.Context, p peer.ID, final bool) (peer.ID, error) {
		if p == n.ID() {
			return "", n.cfg.Provisioner.Leave(ctx, region, n.ID())
		}
		resp, err := n.askProvisioner(ctx, p, &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Leave{Leave: &pb.Leave{Region: region, Final: final}}})
		return n.namedCloser(resp), err
	})
}

// askElected has ask put a question to the provisioners of region, closest
// first, until one answers. One that names a closer one is asked to answer
// itself if that one does not.
func (n *Node) askElected(ctx context.Context, region string, ask func(ctx context.Context, p peer.ID, final bool) (closer peer.ID, err error)) error {
	list, err := n.provisioners(ctx, region)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("region %q: %w", region, ErrNoProvisioner)
	}
	silent := make(map[peer.ID]bool)
	one := func(p peer.ID, final bool) (peer.ID, error) {
		ctx, cancel := context.WithTimeout(ctx, provisionTime)
		defer cancel()
		closer, err := ask(ctx, p, final)
		if err != nil && !isRefusal(err) {
			silent[p] = true
			n.log.Debug("provisioner does not answer", "peer", p, "region", region, "err", err)
		}
		return closer, err
	}
	for _, p := range list[:min(len(list), provisionMost)] {
		if silent[p] {
			continue
		}
		closer, askErr := one(p, false)
		if closer != "" && !silent[closer] {
			if _, err = one(closer, true); err == nil || isRefusal(err) {
				return err
			}
		}
		if closer != "" {
			_, askErr = one(p, true)
		}
		if err = askErr; err == nil || isRefusal(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// provisioners are the nodes that start servers in region, closest to the
// topic's key first, this one included if it is one.
func (n *Node) provisioners(ctx context.Context, region string) ([]peer.ID, error) {
	topic := ProvisionTopic(region)
	answer, err := n.find(ctx, &finding{topic: topic, limit: queryLimit})
	if err != nil {
		return nil, err // that nobody answers is not that there is nobody
	}
	var list []peer.ID
	if n.cfg.Provisioner.serves(region) {
		list = append(list, n.ID())
	}
	for _, c := range answer.Candidates {
		n.learn(c.Record.Node, c.Record.Addrs)
		list = append(list, c.Record.Node)
	}
	return directory.Closest(kb.ConvertKey(topic.Key(n.network)), list), nil
}

// sampleProvisioners draws nothing: all that is held in a provision topic counts,
// and of too many the closest to its key.
func (n *Node) sampleProvisioners(topic Topic, exclude []peer.ID, limit int) (picked []policy.Candidate, held int) {
	byNode := make(map[peer.ID]policy.Candidate)
	var list []peer.ID
	records := n.table.List(time.Now(), topic)
	for _, h := range records {
		if !slices.Contains(exclude, h.Node()) {
			byNode[h.Node()] = policy.Candidate{Record: h.Record, Sealed: h.Sealed, Trust: 1}
			list = append(list, h.Node())
		}
	}
	for _, id := range directory.Closest(kb.ConvertKey(topic.Key(n.network)), list) {
		if len(picked) < limit {
			picked = append(picked, byNode[id])
		}
	}
	return picked, len(records)
}

// askProvisioner sends one request. A refusal is an error.
func (n *Node) askProvisioner(ctx context.Context, p peer.ID, req *pb.ProvisionRequest) (*pb.ProvisionResponse, error) {
	n.locate(ctx, p)
	var resp pb.ProvisionResponse
	rtt, _, err := n.call(ctx, p, n.provisionID, req, &resp, maxProvision)
	if err != nil {
		n.failed(p, err)
		return nil, err
	}
	n.answered(p, rtt)
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

// namedCloser is the provisioner that another one named, or "".
func (n *Node) namedCloser(resp *pb.ProvisionResponse) peer.ID {
	if resp == nil || resp.Closer == nil {
		return ""
	}
	ai, err := peerFromWire(resp.Closer)
	if err != nil {
		return ""
	}
	n.learn(ai.ID, ai.Addrs)
	return ai.ID
}

// serveProvision answers one request of /provision/1.
func (n *Node) serveProvision(s network.Stream) {
	var req pb.ProvisionRequest
	n.serveOne(s, maxProvision, &req, &pb.ProvisionResponse{Error: errBusy.Error()}, func(from peer.ID) proto.Message { return n.answerProvision(from, &req) })
}

func (n *Node) answerProvision(from peer.ID, req *pb.ProvisionRequest) (resp *pb.ProvisionResponse) {
	ctx, span := n.serving(from, req, req.Trace)
	defer func() { n.served(ctx, span, from, resp) }()
	fail := func(err error) *pb.ProvisionResponse {
		if isRefusal(err) {
			return &pb.ProvisionResponse{Refusal: refusalToWire(err)}
		}
		return &pb.ProvisionResponse{Error: clip(err.Error(), maxReason)}
	}
	var region string
	var final bool
	switch op := req.Op.(type) {
	case *pb.ProvisionRequest_Provision:
		region, final = op.Provision.Region, op.Provision.Final
	case *pb.ProvisionRequest_Leave:
		region, final = op.Leave.Region, op.Leave.Final
	default:
		return fail(errors.New("unknown request"))
	}
	if !n.cfg.Provisioner.serves(region) {
		return fail(fmt.Errorf("region %.64q: %w", region, ErrNoProvisioner))
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTime)
	defer cancel()
	if !final {
		closer, err := n.closerProvisioner(ctx, region)
		if err != nil {
			return fail(err)
		}
		if closer != "" && closer != from {
			return &pb.ProvisionResponse{Closer: peerToWire(n.host.Peerstore().PeerInfo(closer))}
		}
	}
	if op := req.GetProvision(); op != nil {
		need, err := needFromWire(op.Need)
		if err != nil {
			return fail(err)
		}
		coming, err := n.cfg.Provisioner.Start(ctx, region, need, clip(op.Reason, 64))
		if err != nil {
			return fail(err)
		}
		left := max(0, time.Until(coming.Until))
		return &pb.ProvisionResponse{Coming: &pb.Coming{Request: coming.Request, UntilMs: uint32(min(left, time.Hour).Milliseconds()), Started: coming.Started}}
	}
	if err := n.cfg.Provisioner.Leave(ctx, region, from); err != nil {
		return fail(err)
	}
	return &pb.ProvisionResponse{}
}

// closerProvisioner is who is closer than this node, as far as it knows, and not
// known to be silent; or "". Two that do not hear of each other would each start a
// server: if that cannot be found out, it is an error.
func (n *Node) closerProvisioner(ctx context.Context, region string) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, closerTime)
	defer cancel()
	list, err := n.provisioners(ctx, region)
	if err != nil {
		return "", err
	}
	for _, p := range list {
		if p == n.ID() {
			break
		}
		if !n.reach.Down(time.Now(), p) && !n.reach.Suspect(p) {
			return p, nil
		}
	}
	return "", nil
}
