package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// AnswerTime bounds the answer of one provisioner, which looks for room
	// first, and closerTime its search for a closer one.
	AnswerTime = 4 * time.Second
	closerTime = time.Second
	// maxAsked bounds the provisioners asked for one need.
	maxAsked = 4
)

// ErrNoProvisioner means that no known node starts servers in a region.
var ErrNoProvisioner = errors.New("no node starts servers there")

// A Provisioner is the part of a node that starts and stops servers.
type Provisioner struct {
	// Regions are the regions that it serves. It is found under their provision
	// topics, if its records have the feature.
	Regions []string
	// Start answers a seeker that found no room for need. It does not rely on
	// the seeker's result, but looks for room itself. It does not wait for the
	// server. The error is a *capacity.Refusal, or names the nodes that did not
	// answer.
	Start func(ctx context.Context, region string, need capacity.Need, reason string) (PendingServer, error)
	// Leave answers node, which is idle and wants to end. The error is a
	// *capacity.Refusal.
	Leave func(ctx context.Context, region string, node peer.ID) error
}

// Serves reports whether p, which may be nil, starts servers in region.
func (p *Provisioner) Serves(region string) bool {
	return p != nil && slices.Contains(p.Regions, region)
}

// A Request is a question to one provisioner.
type Request struct {
	Region string
	Leave  bool          // the asking node wants to end; else: start a server for…
	Need   capacity.Need // …this, for which no node has room…
	Reason string        // …because that is short
	Final  bool          // answer even if a closer provisioner is known
}

// A Reply is the answer of one provisioner.
type Reply struct {
	Server PendingServer
	Closer peer.ID // ask this one instead; "": the answer is the provisioner's own
}

// Provisioners are the nodes that start servers, as one node sees them. The one
// closest to the topic's key is elected in each region, or the next one if it
// does not answer: all seekers ask the same one, so that one server is started
// however many are in need. It has no goroutines; the functions may be called
// from several.
type Provisioners struct {
	Self peer.ID
	Own  *Provisioner // this node's own; nil: none
	// List returns the provisioners of region, closest first, possibly
	// including this node. If no holder answers, it is an error, and not an
	// empty list.
	List func(ctx context.Context, region string) ([]peer.ID, error)
	// Ask sends a request to another node. Its refusals are *capacity.Refusal
	// errors; any other error means that it gave no answer.
	Ask func(context.Context, peer.ID, Request) (Reply, error)
	// Silent reports whether a node is known to be silent.
	Silent func(peer.ID) bool
	Log    *slog.Logger
}

// Provision tells the provisioner elected for region that no node has room for
// need. The error is a *capacity.Refusal if no server is started, or wraps
// [ErrNoProvisioner].
func (p *Provisioners) Provision(ctx context.Context, region string, need capacity.Need, reason string) (PendingServer, error) {
	return p.elected(ctx, Request{Region: region, Need: need, Reason: reason})
}

// AskLeave asks the provisioner elected for region whether this idle node may
// end. Nil: it may. The error is as that of Provision.
func (p *Provisioners) AskLeave(ctx context.Context, region string) error {
	_, err := p.elected(ctx, Request{Region: region, Leave: true})
	return err
}

// elected sends req to the provisioners of its region, closest first, until one
// answers. A provisioner that names a closer one is asked for a final answer if
// that one does not answer.
func (p *Provisioners) elected(ctx context.Context, req Request) (PendingServer, error) {
	list, err := p.List(ctx, req.Region)
	if err != nil {
		return PendingServer{}, err
	}
	if len(list) == 0 {
		return PendingServer{}, fmt.Errorf("region %q: %w", req.Region, ErrNoProvisioner)
	}
	silent := make(map[peer.ID]bool)
	one := func(id peer.ID, final bool) (Reply, error) {
		req := req
		req.Final = final
		reply, err := p.ask(ctx, id, req)
		if !answered(err) {
			silent[id] = true
			p.Log.Debug("provisioner does not answer", "peer", id, "region", req.Region, "err", err)
		}
		return reply, err
	}
	for _, id := range list[:min(len(list), maxAsked)] {
		if silent[id] {
			continue
		}
		reply, err2 := one(id, false)
		if closer := reply.Closer; err2 == nil && closer != "" {
			if !silent[closer] {
				if reply, err = one(closer, true); answered(err) {
					return reply.Server, err
				}
			}
			reply, err2 = one(id, true)
		}
		if err = err2; answered(err) || ctx.Err() != nil {
			return reply.Server, err
		}
	}
	return PendingServer{}, err
}

// answered reports whether err is an answer: yes, or a refusal.
func answered(err error) bool {
	var refused *capacity.Refusal
	return err == nil || errors.As(err, &refused)
}

func (p *Provisioners) ask(ctx context.Context, id peer.ID, req Request) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	if id == p.Self {
		return p.do(ctx, id, req)
	}
	return p.Ask(ctx, id, req)
}

// do answers req, from node from, by this node itself.
func (p *Provisioners) do(ctx context.Context, from peer.ID, req Request) (reply Reply, err error) {
	switch {
	case !p.Own.Serves(req.Region):
		err = fmt.Errorf("region %.64q: %w", req.Region, ErrNoProvisioner)
	case req.Leave:
		err = p.Own.Leave(ctx, req.Region, from)
	default:
		reply.Server, err = p.Own.Start(ctx, req.Region, req.Need, req.Reason)
	}
	return reply, err
}

// Answer answers another node's request, within [AnswerTime].
func (p *Provisioners) Answer(ctx context.Context, from peer.ID, req Request) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	if !req.Final && p.Own.Serves(req.Region) {
		if closer, err := p.closer(ctx, req.Region); err != nil || closer != "" && closer != from {
			return Reply{Closer: closer}, err
		}
	}
	return p.do(ctx, from, req)
}

// closer is the known provisioner that is closer than this node and not known
// to be silent; or "". Two provisioners that do not know of each other would
// each start a server, so it is an error if the list is not known.
func (p *Provisioners) closer(ctx context.Context, region string) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, closerTime)
	defer cancel()
	list, err := p.List(ctx, region)
	if err != nil {
		return "", err
	}
	for _, id := range list {
		if id == p.Self {
			break
		}
		if !p.Silent(id) {
			return id, nil
		}
	}
	return "", nil
}
