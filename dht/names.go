package dht

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht/naming"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/seek"
)

// askIfThere is how long an answer may take before the node's machine is probed
// whether the node is still running.
const askIfThere = 200 * time.Millisecond

// naming wires a [naming.Registrar] to this node.
func (n *Node) naming(self peer.ID) naming.Config {
	return naming.Config{
		ID: self, Client: n.cfg.Client, Directory: n.dir, Live: n.peers.Live, Table: n.table,
		Published: func(topic Topic) (capacity.Record, bool) {
			r, _, ok := n.publisher.Published(topic)
			return r, ok
		},
		LookUp: func(ctx context.Context, topic Topic) {
			now := time.Now()
			if h, looked := n.dir.Holders(now, topic); !looked && !h.All && n.cache.Begin(now, topic) {
				n.lookUps.Now(ctx, topic)
			}
		},
		Ask: n.askClaim, Introduced: n.introduced, Silence: silence,
		Introduce: func(id peer.ID) *pb.Peer { return pb.PeerOf(n.overlay.Host.Peerstore().PeerInfo(id)) },
	}
}

// Publishers is [naming.Registrar.Publishers].
func (n *Node) Publishers(ctx context.Context, stream string) ([]peer.ID, error) {
	return n.names.Publishers(ctx, stream)
}

// Claim is [naming.Registrar.Claim].
func (n *Node) Claim(ctx context.Context, stream string) (release func(), err error) {
	ctx, span := tracing.Start(ctx, n.tracer, "claim", trace.SpanKindInternal, tracing.Stream.String(stream))
	defer span.End()
	release, err = n.names.Claim(ctx, stream)
	if taken := new(naming.Taken); errors.As(err, &taken) {
		tracing.Fail(span, "name-taken")
	} else if err != nil {
		tracing.Fail(span, seek.ErrorWord(err))
	}
	return release, err
}

// askClaim asks one node about a name. It takes only the trace of ctx: a node
// whose answer is not waited for still gets the question.
func (n *Node) askClaim(ctx context.Context, id peer.ID, claim *pb.Claim, limit time.Duration) (*pb.ClaimReply, error) {
	ctx, cancel := context.WithTimeout(tracing.Carry(n.overlay.Context(), ctx), limit)
	defer cancel()
	crashed := time.AfterFunc(askIfThere, func() {
		n.overlay.Go(func() {
			if n.peers.Refuses(ctx, id) {
				n.peers.Live.Leave(time.Now(), id)
				cancel()
			}
		})
	})
	defer crashed.Stop()
	n.peers.Locate(ctx, id)
	var resp pb.Response
	req := &pb.Request{Op: &pb.Request_Claim{Claim: claim}}
	rtt, _, err := n.overlay.Call(ctx, id, n.records, req, &resp, maxQueryReply)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) && n.overlay.Context().Err() == nil {
			err = fmt.Errorf("%w: nothing listens there any more", overlay.ErrUnreachable)
		}
		n.peers.Failed(id, err)
		return nil, err
	}
	n.peers.Answered(id, rtt)
	switch {
	case resp.Error != "":
		return nil, fmt.Errorf("it refused: %.200s", resp.Error)
	case resp.GetClaim() == nil:
		return nil, errors.New("it answered something else")
	}
	return resp.GetClaim(), nil
}

// serveClaim answers a question for a stream's name.
func (n *Node) serveClaim(from peer.ID, req *pb.Claim) *pb.Response {
	topic := Topic(req.Topic)
	if err := topic.Check(); err != nil {
		return errorReply(err)
	}
	if topic.Stream() == "" {
		return errorReply(fmt.Errorf("%s is no stream: it has no name to take", topic))
	}
	return &pb.Response{Op: &pb.Response_Claim{Claim: n.names.Answer(time.Now(), from, req)}}
}

// silence names the reason why a node did not answer, in few words.
func silence(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, overlay.ErrLate):
		return "no answer in time"
	case errors.Is(err, overlay.ErrUnreachable):
		return "unreachable"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return "this node has too many requests under way"
	}
	return capacity.Printable(err.Error(), maxReason)
}

// introduced learns the addresses of a node that a peer named. It is not ok for
// an invalid ID.
func (n *Node) introduced(w *pb.Peer) (peer.ID, bool) {
	ai, err := w.AddrInfo()
	if err != nil || ai.ID == n.ID() {
		return "", false
	}
	if !n.peers.Connected(ai.ID) {
		n.peers.Learn(ai.ID, ai.Addrs)
	}
	return ai.ID, true
}
