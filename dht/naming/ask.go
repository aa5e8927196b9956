package naming

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"weir/capacity/tracing"
	"weir/dht/overlay"
	"weir/dht/pb"
)

const (
	// askIfThere is how long an answer may take before the node's machine is
	// probed whether the node is still running.
	askIfThere = 200 * time.Millisecond
	// maxReply is the size in bytes of the largest answer to a CLAIM.
	maxReply = 24 << 10
)

// Overlay sends requests to other nodes; see [overlay.Overlay].
type Overlay interface {
	Call(ctx context.Context, p peer.ID, protocol protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent overlay.Cost, err error)
	Go(f func()) bool         // in the background, unless the node is closed
	Context() context.Context // done once it is
}

// Peers knows how to reach other nodes; see [overlay.Peers].
type Peers interface {
	Locate(ctx context.Context, p peer.ID) // looks for addresses if none are known
	// Refuses reports whether p's machine says that nothing listens at p's
	// address.
	Refuses(ctx context.Context, p peer.ID) bool
	Answered(p peer.ID, rtt time.Duration)
	Failed(p peer.ID, err error)
}

// An Asker asks other nodes about names, by CLAIM of /records/1.
type Asker struct {
	Overlay  Overlay
	Protocol protocol.ID
	Peers    Peers
	// Left is called with a node that has crashed.
	Left func(now time.Time, p peer.ID)
}

// Ask asks one node, within limit. It takes only the trace of ctx: a node whose
// answer is not waited for still gets the question.
func (a *Asker) Ask(ctx context.Context, id peer.ID, claim *pb.Claim, limit time.Duration) (*pb.ClaimReply, error) {
	ctx, cancel := context.WithTimeout(tracing.Carry(a.Overlay.Context(), ctx), limit)
	defer cancel()
	crashed := time.AfterFunc(askIfThere, func() {
		a.Overlay.Go(func() {
			if a.Peers.Refuses(ctx, id) {
				a.Left(time.Now(), id)
				cancel()
			}
		})
	})
	defer crashed.Stop()
	a.Peers.Locate(ctx, id)
	var resp pb.Response
	req := &pb.Request{Op: &pb.Request_Claim{Claim: claim}}
	rtt, _, err := a.Overlay.Call(ctx, id, a.Protocol, req, &resp, maxReply)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) && a.Overlay.Context().Err() == nil {
			err = fmt.Errorf("%w: nothing listens there any more", overlay.ErrUnreachable)
		}
		a.Peers.Failed(id, err)
		return nil, err
	}
	a.Peers.Answered(id, rtt)
	switch {
	case resp.Error != "":
		return nil, fmt.Errorf("it refused: %.200s", resp.Error)
	case resp.GetClaim() == nil:
		return nil, errors.New("it answered something else")
	}
	return resp.GetClaim(), nil
}
