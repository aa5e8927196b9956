package records

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/directory"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// Acks takes in what holders say beside accepting records: where they are, and
// which other holders there are. It is safe for concurrent use.
type Acks struct {
	Self  peer.ID
	Peers interface {
		Answered(p peer.ID, rtt time.Duration)
		// Verify connects to a peer and returns why it is no node of this
		// network.
		Verify(ctx context.Context, ai peer.AddrInfo) error
	}
	Live      *liveness.Detector
	Directory directory.Directory
	Cache     *directory.Cache // of holders
	// Observe takes in the coordinate of p, which is rtt away.
	Observe func(p peer.ID, at *coordinate.Coordinate, rtt time.Duration)
	// Accepted is called with each holder that has accepted a record.
	Accepted func(p peer.ID)
	// Go runs f in the background, with a context that ends with the node, or
	// returns false once the node is closed.
	Go  func(f func(context.Context)) bool
	Log *slog.Logger
}

// Take takes in the reply of p, a holder, to records, rtt after they were sent,
// or 0 if that is no measurement. Accepted: p has accepted some.
func (a *Acks) Take(p peer.ID, reply *pb.AdvertiseReply, rtt time.Duration, accepted bool) {
	a.Peers.Answered(p, rtt)
	a.Observe(p, vivaldi.FromWire(reply.Coordinate), rtt)
	if accepted {
		a.Accepted(p)
	}
	a.meet(p, reply.Closer)
}

// meet checks holders that a peer named: only those that answer count.
func (a *Acks) meet(from peer.ID, named []*pb.Peer) {
	for _, w := range named[:min(len(named), holding.MaxCloser)] {
		ai, err := w.AddrInfo()
		if err != nil {
			a.Log.Debug("holder named is no peer", "peer", from, "err", err)
			continue
		}
		now := time.Now()
		if ai.ID == a.Self || a.Live.Down(now, ai.ID) || !a.Directory.Meets(now, ai.ID) {
			continue
		}
		a.Go(func(ctx context.Context) {
			dialling, cancel := context.WithTimeout(ctx, overlay.DialTimeout)
			defer cancel()
			if err := a.Peers.Verify(dialling, ai); err != nil {
				if ctx.Err() == nil {
					a.Log.Debug("holder named is not there", "peer", ai.ID, "by", from, "err", err)
				}
				return
			}
			a.Cache.Add(ai.ID)
		})
	}
}
